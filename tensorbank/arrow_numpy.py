"""Convert between Arrow and numpy or Python, without a copy where there need be none.

pyarrow's own ways, ``pa.array``, ``pa.scalar``, ``pa.table`` of what is no table, ``to_numpy``, import pandas wherever it is
installed. That takes longer than a plan and its first batch together, and nothing on the way there needs it, in any process.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["as_arrow", "as_numpy", "as_scalar", "as_table", "from_python", "strings"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def as_numpy(column: pa.Array | pa.ChunkedArray, null: float = np.nan) -> npt.NDArray[Any]:
    """Convert to (n,) numbers or bools, maybe read-only. Nulls become ``null``, which the type must have."""
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


def _packed(values: npt.NDArray[np.bool_]) -> pa.Buffer:
    return pa.py_buffer(np.packbits(values, bitorder="little"))


def _bits(buffer: pa.Buffer, start: int, end: int) -> npt.NDArray[np.bool_]:
    return np.unpackbits(np.frombuffer(buffer, np.uint8), count=end, bitorder="little")[start:].astype(bool)


def as_arrow(values: npt.NDArray[Any], null: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """Convert (n,) numbers or bools of numpy's type; shares their memory, but of bools.
    ``null``, (n,) bool, says which are null.
    """
    values = np.ascontiguousarray(values)
    kind = pa.from_numpy_dtype(values.dtype)
    data = _packed(values) if values.dtype == np.bool_ else pa.py_buffer(values)
    validity = None if null is None else _packed(~null)
    return pa.Array.from_buffers(kind, len(values), [validity, data])


def from_python(values: Sequence[Any]) -> pa.Array:
    """Convert (n,) values, None for null, with the type that pyarrow infers, but that instants are of UTC."""
    kinds = {type(v) for v in values if v is not None}
    null = np.array([v is None for v in values], np.bool_)
    if kinds == {str}:
        return strings(["" if v is None else v for v in values], null)
    if kinds == {datetime} and all(v is None or v.tzinfo is not None for v in values):
        ticks = [0 if v is None else (v - EPOCH) // MICROSECOND for v in values]
        return as_arrow(np.array(ticks, np.int64), null).view(pa.timestamp("us", "UTC"))
    if kinds in ({float}, {int}):
        (kind,) = kinds
        numbers = np.array([0 if v is None else v for v in values], np.int64 if kind is int else np.float64)
        return as_arrow(numbers, null)
    return pa.array(values)


def strings(values: Sequence[str], null: npt.NDArray[np.bool_] | None = None) -> pa.StringArray:
    """Convert (n,) strings; ``null``, (n,) bool, says which are null."""
    encoded = [v.encode() for v in values]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    data = pa.py_buffer(b"".join(encoded))
    return pa.StringArray.from_buffers(
        len(values), pa.py_buffer(ends), data, None if null is None else _packed(~null)
    )


def as_scalar(value: float | str | bool, kind: pa.DataType) -> pa.Scalar:
    """Return a value of a type that has it: string, bool, number, or timestamp as so many of its units since 1970."""
    if pa.types.is_string(kind):
        return strings([str(value)])[0]
    if pa.types.is_timestamp(kind):
        return as_arrow(np.array([value], np.int64)).view(kind)[0]
    return as_arrow(np.array([value], kind.to_pandas_dtype()))[0]


def as_table(source: Any) -> pa.Table:
    """Return a table of another library, by the Arrow C stream interface."""
    return pa.RecordBatchReader.from_stream(source).read_all()
