"""A digest of the values of an Arrow table: the same for every way of laying them out in memory. Pure."""

from __future__ import annotations

from hashlib import sha256
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tensorbank.arrow_numpy import as_numpy

__all__ = ["table_digest"]

ENTRY = np.uint64
"""The type of the number that stands for an entry of a dictionary:
wide enough to tell a table's shards apart."""


class _Hash(Protocol):
    def update(self, data: Any, /) -> None: ...


def table_digest(table: pa.Table) -> bytes:
    """Return the digest of names, types and values, row by row in their order.

    Chunks, offsets, dictionaries and what lies below a null have no part in it.
    """
    digest = sha256()
    digest.update(f"{table.num_rows}".encode())
    for field, column in zip(table.schema, table.columns, strict=True):
        digest.update(repr((field.name, str(_plain(field.type)))).encode())
        _add(digest, _one_array(column))
    return digest.digest()


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.unify_dictionaries()
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _add(digest: _Hash, array: pa.Array) -> None:
    kind = array.type
    valid = np.ones(len(array), np.bool_) if not array.null_count else as_numpy(array.is_valid())
    digest.update(np.packbits(valid))
    if pa.types.is_null(kind):
        return
    if pa.types.is_dictionary(kind):
        _add_dictionary(digest, array)
    elif pa.types.is_struct(kind):
        for field, child in zip(kind, array.flatten(), strict=True):
            digest.update(field.name.encode() + b"\0")
            _add(digest, child)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        digest.update(_sizes(array))
        _add(digest, array.flatten())
    elif pa.types.is_primitive(kind) and not (pa.types.is_decimal(kind) or pa.types.is_interval(kind)):
        digest.update(_numbers(array))
    elif pa.types.is_string(kind) or pa.types.is_binary(kind):
        _add_texts(digest, array, valid)
    else:
        for value in array.to_pylist():
            digest.update(repr(value).encode() + b"\0")


def _add_dictionary(digest: _Hash, array: pa.DictionaryArray) -> None:
    """Add a digest of each row's entry in place of the entry: entries are long and few."""
    texts = [repr(entry).encode() for entry in array.dictionary.to_pylist()]
    known = b"".join(sha256(text).digest()[: np.dtype(ENTRY).itemsize] for text in texts)
    entries = np.append(np.frombuffer(known, ENTRY), ENTRY(0))
    digest.update(entries[as_numpy(array.indices, -1)])


def _numbers(array: pa.Array) -> Any:
    """Return the values as their bytes, zero where there is none."""
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.uint8())
    elif pa.types.is_temporal(array.type):
        array = array.view(pa.int32() if array.type.bit_width == 32 else pa.int64())
    values = as_numpy(array, 0) if array.null_count else as_numpy(array)
    return np.ascontiguousarray(values)


def _sizes(array: pa.Array) -> Any:
    return as_numpy(pc.list_value_length(array), 0).astype(np.int64)


def _add_texts(digest: _Hash, array: pa.Array, valid: npt.NDArray[np.bool_]) -> None:
    if not len(array):
        return
    _, ends, data = array.buffers()
    edges = np.frombuffer(ends, np.int32)[array.offset : array.offset + len(array) + 1]
    sizes = np.diff(edges)
    if array.null_count and sizes[~valid].any():  # text below a null
        _add_texts(digest, array.drop_null(), valid[valid])
        return
    digest.update(sizes[valid] if array.null_count else sizes)
    if data is not None:
        digest.update(memoryview(data)[int(edges[0]) : int(edges[-1])])
