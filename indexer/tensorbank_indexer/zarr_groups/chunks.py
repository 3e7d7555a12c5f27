"""Chunks of a zarr array, from stored bytes to numbers."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from numcodecs import blosc

from tensorbank.errors import ErrorKind, FormatError, IntegrityError
from tensorbank_indexer.zarr_groups.array_spec import MAX_TEXT_BYTES, ArraySpec, Sharding
from tensorbank_indexer.zarr_groups.blosc_blocks import decode_range
from tensorbank_indexer.zarr_groups.decoders import DECODE_ERRORS, decode_texts, decode_within

__all__ = ["check_grid", "decode_chunk", "decode_row", "decode_small", "filled", "grid", "native"]

Array = npt.NDArray[Any]
MAX_CHUNKS = 100_000
"""The most chunks that an array may have: each missing one costs a look into the directory."""
MISSING = 2**64 - 1
"""The offset and length of a chunk that a shard does not have."""


def decode_chunk(spec: ArraySpec, data: bytes | memoryview, index: tuple[int, ...]) -> Array:
    """Return the chunk at ``index``, of shape ``spec.chunks``, or what of it lies in the array if only that was stored.

    Raises
    ------
    IntegrityError
        A codec refuses the bytes, or they are not as many as the shape needs.
    """
    return _decode(spec, data, spec.clipped(index))


def decode_row(spec: ArraySpec, data: memoryview, index: tuple[int, ...], row: int) -> Array | None:
    """Decode position ``row`` on the first axis of a chunk, from its Blosc blocks alone; None if the chunk has to be decoded
    as a whole.

    Raises
    ------
    IntegrityError
        The chunk is damaged.
    """
    if not spec.is_c_order or not _is_blosc(spec) or len(data) < 16:
        return None
    shape = _chunk_shape(spec, int.from_bytes(data[4:8], "little"), spec.clipped(index))
    row_bytes = math.prod(shape[1:]) * spec.dtype.itemsize
    return native(
        decode_range(data, row * row_bytes, (row + 1) * row_bytes).view(spec.dtype).reshape(shape[1:])
    )


def _decode(spec: ArraySpec, data: bytes | memoryview, clipped: tuple[int, ...]) -> Array:
    if spec.has_texts:
        return _texts(spec, data, clipped)
    if spec.sharding is not None:
        return _from_shard(spec, spec.sharding, data)
    if _is_blosc(spec) and len(data) >= 16:
        n_bytes, stored_bytes = int.from_bytes(data[4:8], "little"), int.from_bytes(data[12:16], "little")
        if stored_bytes > len(data):
            raise IntegrityError(f"a chunk has {len(data)} of {stored_bytes} bytes.")
        shape = _chunk_shape(spec, n_bytes, clipped)
        out = np.empty(math.prod(shape), spec.dtype)
        try:
            blosc.decompress(data, out.view(np.uint8))
        except DECODE_ERRORS as error:
            raise IntegrityError(f"a chunk cannot be decoded: {error}") from error
        return _in_axes(spec, out, shape)
    decoded = decode_within(spec.decoders, data, spec.sizes.chunk_bytes)
    if isinstance(decoded, np.ndarray):
        decoded = decoded.reshape(-1, order="A")
    raw = np.frombuffer(decoded, np.uint8)
    return _in_axes(spec, raw, _chunk_shape(spec, raw.nbytes, clipped))


def _in_axes(spec: ArraySpec, raw: Array, shape: tuple[int, ...]) -> Array:
    """Return a chunk of this shape from its bytes, whose axes may lie in another order."""
    array = raw.view(spec.dtype)
    if spec.is_c_order:
        return array.reshape(shape)
    return array.reshape([shape[axis] for axis in spec.axes]).transpose(np.argsort(spec.axes))


def _from_shard(spec: ArraySpec, sharding: Sharding, data: bytes | memoryview) -> Array:
    """Return a chunk that is a shard: an index of offsets and lengths, and chunks in any order and with any gaps."""
    inner = sharding.inner
    check_grid("a shard", inner)
    shard = memoryview(decode_within(spec.decoders, data, sharding.stored_bytes)).cast("B")
    n_bytes = sharding.stored_index_bytes
    if len(shard) < n_bytes:
        raise IntegrityError(f"a shard has {len(shard)} bytes, its index alone {n_bytes}.")
    stored = shard[:n_bytes] if sharding.index_at_start else shard[len(shard) - n_bytes :]
    index = np.frombuffer(
        decode_within(sharding.index_decoders, stored, sharding.index_bytes), sharding.index_order
    ).reshape(-1, 2)
    array = filled(inner, inner.shape)
    for (offset, length), (place, window) in zip(index.tolist(), grid(inner), strict=True):
        if offset == length == MISSING:
            continue
        if offset + length > len(shard) or length > inner.sizes.stored_bytes:
            raise IntegrityError(f"chunk {place} of a shard is said to have {length} bytes from {offset} on.")
        array[window] = _decode(inner, shard[offset : offset + length], inner.clipped(place))
    return array if spec.is_c_order else array.transpose(np.argsort(spec.axes))


def _texts(spec: ArraySpec, data: bytes | memoryview, clipped: tuple[int, ...]) -> Array:
    # Texts have any length: only the number of them is known. Arrays of them are small, names and ids.
    decoded = decode_within(spec.decoders, data, max(spec.sizes.chunk_bytes, MAX_TEXT_BYTES))
    count = int.from_bytes(memoryview(decoded).cast("B")[:4], "little")
    shape = next((s for s in (spec.chunks, clipped) if math.prod(s) == count), None)
    if shape is None:
        raise IntegrityError(f"a chunk has {count} texts instead of {math.prod(spec.chunks)}.")
    array = np.empty(count, object)
    array[:] = decode_texts(decoded, count)
    return array.reshape([shape[axis] for axis in spec.axes]).transpose(np.argsort(spec.axes))


@lru_cache(maxsize=2048)
def decode_small(spec: ArraySpec, data: bytes, clipped: tuple[int, ...]) -> Array:
    """Return a chunk of which ``clipped`` lies in the array, as :func:`decode_chunk`; read-only and kept for the
    next call.
    """
    array = _decode(spec, data, clipped)
    array.flags.writeable = False
    return array


def _is_blosc(spec: ArraySpec) -> bool:
    return (
        len(spec.decoders) == 1 and spec.decoders[0].is_blosc and spec.sharding is None and not spec.has_texts
    )


def _chunk_shape(spec: ArraySpec, n_bytes: int, clipped: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a stored chunk: Zarr stores chunks at the edge in full; some writers store only what lies in the
    array.
    """
    for shape in (spec.chunks, clipped):
        if math.prod(shape) * spec.dtype.itemsize == n_bytes:
            return shape
    raise IntegrityError(
        f"a chunk has {n_bytes} bytes instead of {math.prod(spec.chunks) * spec.dtype.itemsize}."
    )


def check_grid(name: str, spec: ArraySpec) -> None:
    """Refuse an array with more chunks than any real one has.

    Raises
    ------
    FormatError
        It has more than ``MAX_CHUNKS`` (kind ``over-limit``).
    """
    if spec.sizes.n_chunks > MAX_CHUNKS:
        raise FormatError(
            f"{name} has {spec.sizes.n_chunks} chunks, more than {MAX_CHUNKS}.", kind=ErrorKind.OVER_LIMIT
        )


def grid(spec: ArraySpec, first: int | None = None) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
    """Yield the index and window of every chunk, or of those with this index on the first axis."""
    counts = [range(-(-size // chunk)) for size, chunk in zip(spec.shape, spec.chunks, strict=True)]
    if first is not None:
        counts[0] = range(first, first + 1)
    for index in itertools.product(*counts):
        yield (
            index,
            tuple(slice(i * chunk, (i + 1) * chunk) for i, chunk in zip(index, spec.chunks, strict=True)),
        )


def filled(spec: ArraySpec, shape: tuple[int, ...]) -> Array:
    """Return an array of fill values."""
    if spec.fill_value is None:
        return np.full(shape, "", object) if spec.dtype.kind == "O" else np.zeros(shape, spec.dtype)
    return np.full(shape, spec.fill_value, spec.dtype)


def native(array: Array) -> Array:
    """Return the array in the machine's byte order.

    Raises
    ------
    IntegrityError
        It holds texts of numbers that are no characters.
    """
    array = array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    if array.dtype.kind == "U" and array.size:
        points = np.ascontiguousarray(array).reshape(-1).view(np.uint32)
        # numpy does not check such numbers; it fails when the text is used.
        if points.max() > sys.maxunicode:
            raise IntegrityError(f"a text holds the number {points.max()}, which is no character.")
    return array
