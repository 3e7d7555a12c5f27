"""Numbers between Arrow and numpy, without a copy where there need be none.

pyarrow's own ways import pandas wherever it is installed, which takes longer than a first batch; on the way from a plan to
batches, in the main process and in each worker, nothing else would.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["as_arrow", "as_numpy"]


def as_numpy(column: pa.Array | pa.ChunkedArray, null: float = np.nan) -> npt.NDArray[Any]:
    """(n,) numbers or bools, maybe read-only. Nulls become ``null``, which the type must have."""
    if isinstance(column, pa.ChunkedArray):
        if column.num_chunks != 1:
            return np.concatenate([as_numpy(c, null) for c in (pa.nulls(0, column.type), *column.chunks)])
        column = column.chunk(0)
    validity, data = column.buffers()
    start, end = column.offset, column.offset + len(column)
    values: npt.NDArray[Any]
    if not len(column):
        values = np.zeros(0, column.type.to_pandas_dtype())
    elif pa.types.is_boolean(column.type):
        values = _bits(data, start, end)
    else:
        values = np.frombuffer(data, column.type.to_pandas_dtype(), end)[start:]
    return (
        np.where(_bits(validity, start, end), values, values.dtype.type(null))
        if column.null_count
        else values
    )


def _bits(buffer: pa.Buffer, start: int, end: int) -> npt.NDArray[np.bool_]:
    return np.unpackbits(np.frombuffer(buffer, np.uint8), count=end, bitorder="little")[start:].astype(bool)


def as_arrow(numbers: npt.NDArray[np.int64]) -> pa.Int64Array:
    """(n,) positions; shares their memory."""
    numbers = np.ascontiguousarray(numbers, np.int64)
    return pa.Array.from_buffers(pa.int64(), len(numbers), [None, pa.py_buffer(numbers)])
