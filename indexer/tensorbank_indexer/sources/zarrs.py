"""Arrays of a zarr group (version 2 or 3) in a zip archive."""

from __future__ import annotations

import itertools
import lzma
import math
import zlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Literal

import numcodecs
import numpy as np
import numpy.typing as npt

from tensorbank.errors import FormatError, IntegrityError, NotFoundError
from tensorbank_indexer.sources.array_spec import ArraySpec, parse_consolidated, parse_v2, parse_v3
from tensorbank_indexer.sources.blosc_blocks import decode_range
from tensorbank_indexer.sources.zip import ZipArchive

__all__ = ["ZarrGroup", "decode_chunk", "decode_row"]

Array = npt.NDArray[Any]
MAX_CACHED_BYTES = 8192
"""Chunks up to this size (coordinates, names, ids) recur in the modalities of a sample: they are decoded
once."""
DECODE_ERRORS = (RuntimeError, ValueError, TypeError, EOFError, OSError, zlib.error, lzma.LZMAError)
"""What codecs raise on bytes that they did not write."""


class ZarrGroup:
    """The arrays of one group. Chunks are decoded when asked for; what is returned may be read-only.

    Raises
    ------
    FormatError
        The archive holds no zarr group, or its metadata cannot be used.
    IntegrityError
        The metadata are damaged.
    """

    def __init__(self, archive: ZipArchive) -> None:
        self.archive = archive
        self.version, self.arrays = _arrays(archive)

    def __contains__(self, name: object) -> bool:
        return name in self.arrays

    def spec(self, name: str) -> ArraySpec:
        """Spec of an array.

        Raises
        ------
        NotFoundError
            There is no such array.
        """
        try:
            return self.arrays[name]
        except KeyError:
            raise NotFoundError(
                f"There is no array {name!r}, only {', '.join(sorted(self.arrays))}."
            ) from None

    def read(self, name: str) -> Array:
        """A whole array, in the stored dtype and the machine's byte order; missing chunks are the fill value.

        Raises
        ------
        NotFoundError
            There is no such array.
        IntegrityError
            A chunk is damaged.
        FormatError
            A chunk is encrypted or compressed in an unknown way.
        """
        spec = self.spec(name)
        if spec.is_single_chunk:
            chunk = self._chunk(name, spec, (0,) * len(spec.shape))
            return _native(chunk if chunk is not None else _filled(spec, spec.shape))
        out = _filled(spec, spec.shape)
        for index, window in _grid(spec):
            chunk = self._chunk(name, spec, index)
            if chunk is not None:
                part = tuple(
                    slice(0, min(w.stop, size) - w.start) for w, size in zip(window, spec.shape, strict=True)
                )
                out[window] = chunk[part]
        return _native(out)

    def stored(self, name: str, index: tuple[int, ...]) -> memoryview | None:
        """A chunk as it is stored, CRC-32 checked; None if it is missing."""
        key = f"{name}/{self.spec(name).chunk_key(index)}"
        return self.archive.read(key) if key in self.archive else None

    def _chunk(self, name: str, spec: ArraySpec, index: tuple[int, ...]) -> Array | None:
        data = self.stored(name, index)
        if data is None:
            return None
        clipped = spec.clipped(index)
        try:
            if (
                len(data) <= MAX_CACHED_BYTES
                and math.prod(spec.chunks) * spec.dtype.itemsize <= MAX_CACHED_BYTES
            ):
                return _decode_small(spec, bytes(data), clipped)
            return _decode(spec, data, clipped)
        except IntegrityError as error:
            raise IntegrityError(f"{name}/{spec.chunk_key(index)}: {error}") from error

    def row_chunks(self, name: str, row: int) -> list[tuple[tuple[int, ...], tuple[slice, ...]]]:
        """Chunks that hold index ``row`` of the first axis: their index, and their place on the other
        axes."""
        spec = self.spec(name)
        return [(index, window[1:]) for index, window in _grid(spec, first=row // spec.chunks[0])]


def decode_chunk(spec: ArraySpec, data: bytes | memoryview, index: tuple[int, ...]) -> Array:
    """The chunk at ``index``, of shape ``spec.chunks``, or what of it lies in the array if only that was
    stored.

    Raises
    ------
    IntegrityError
        A codec refuses the bytes, or they are not as many as the shape needs.
    """
    return _decode(spec, data, spec.clipped(index))


def decode_row(spec: ArraySpec, data: memoryview, index: tuple[int, ...], row: int) -> Array | None:
    """Position ``row`` on the first axis of a chunk, from its Blosc blocks alone; None if the chunk has to be
    decoded as a whole.

    Raises
    ------
    IntegrityError
        The chunk is damaged.
    """
    if spec.order != "C" or not _is_blosc(spec):
        return None
    shape = _chunk_shape(spec, int.from_bytes(data[4:8], "little"), spec.clipped(index))
    row_bytes = math.prod(shape[1:]) * spec.dtype.itemsize
    return _native(
        decode_range(data, row * row_bytes, (row + 1) * row_bytes).view(spec.dtype).reshape(shape[1:])
    )


def _decode(spec: ArraySpec, data: bytes | memoryview, clipped: tuple[int, ...]) -> Array:
    memory_order: Literal["C", "F"] = "F" if spec.order == "F" else "C"
    try:
        if _is_blosc(spec):
            n_bytes, stored_bytes = int.from_bytes(data[4:8], "little"), int.from_bytes(data[12:16], "little")
            if stored_bytes > len(data):
                raise IntegrityError(f"a chunk has {len(data)} of {stored_bytes} bytes.")
            out = np.empty(_chunk_shape(spec, n_bytes, clipped), spec.dtype, order=memory_order)
            spec.decoders[0].decode(data, out=out.reshape(-1, order="A").view(np.uint8))
            return out
        decoded: Any = data
        for decoder in spec.decoders:
            decoded = decoder.decode(decoded)
        if spec.dtype.kind == "O":
            return np.asarray(decoded, dtype=object).reshape(spec.chunks)
        raw = (
            decoded.reshape(-1, order="A").view(np.uint8)
            if isinstance(decoded, np.ndarray)
            else np.frombuffer(decoded, np.uint8)
        )
        return raw.view(spec.dtype).reshape(_chunk_shape(spec, raw.nbytes, clipped), order=memory_order)
    except DECODE_ERRORS as error:
        raise IntegrityError(f"a chunk cannot be decoded: {error}") from error


@lru_cache(maxsize=2048)
def _decode_small(spec: ArraySpec, data: bytes, clipped: tuple[int, ...]) -> Array:
    array = _decode(spec, data, clipped)
    array.flags.writeable = False
    return array


def _is_blosc(spec: ArraySpec) -> bool:
    return (
        len(spec.decoders) == 1 and isinstance(spec.decoders[0], numcodecs.Blosc) and spec.dtype.kind != "O"
    )


def _chunk_shape(spec: ArraySpec, n_bytes: int, clipped: tuple[int, ...]) -> tuple[int, ...]:
    """Zarr stores chunks at the edge in full; some writers store only what lies in the array."""
    for shape in (spec.chunks, clipped):
        if math.prod(shape) * spec.dtype.itemsize == n_bytes:
            return shape
    raise IntegrityError(
        f"a chunk has {n_bytes} bytes instead of {math.prod(spec.chunks) * spec.dtype.itemsize}."
    )


def _arrays(archive: ZipArchive) -> tuple[int, dict[str, ArraySpec]]:
    if "zarr.json" in archive:
        found = parse_consolidated(bytes(archive.read("zarr.json")))
        if found is not None:
            return 3, dict(found)
        names = [n.removesuffix("/zarr.json") for n in archive.names if n.endswith("/zarr.json")]
        documents = {name: bytes(archive.read(f"{name}/zarr.json")) for name in names}
        return 3, {name: parse_v3(document) for name, document in documents.items() if b'"array"' in document}
    if ".zmetadata" in archive:
        return 2, dict(parse_consolidated(bytes(archive.read(".zmetadata"))) or {})
    names = [n.removesuffix("/.zarray") for n in archive.names if n.endswith("/.zarray")]
    if not names:
        raise FormatError(
            "The zip archive holds no zarr group: neither .zmetadata, .zarray nor zarr.json are in it."
        )
    empty = b"{}"
    return 2, {
        name: parse_v2(
            bytes(archive.read(f"{name}/.zarray")),
            bytes(archive.read(f"{name}/.zattrs")) if f"{name}/.zattrs" in archive else empty,
        )
        for name in names
    }


def _grid(spec: ArraySpec, first: int | None = None) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
    """Index and window of every chunk, or of those with this index on the first axis."""
    counts = [range(-(-size // chunk)) for size, chunk in zip(spec.shape, spec.chunks, strict=True)]
    if first is not None:
        counts[0] = range(first, first + 1)
    for index in itertools.product(*counts):
        yield (
            index,
            tuple(slice(i * chunk, (i + 1) * chunk) for i, chunk in zip(index, spec.chunks, strict=True)),
        )


def _filled(spec: ArraySpec, shape: tuple[int, ...]) -> Array:
    if spec.fill_value is None:
        return np.full(shape, "", object) if spec.dtype.kind == "O" else np.zeros(shape, spec.dtype)
    return np.full(shape, spec.fill_value, spec.dtype)


def _native(array: Array) -> Array:
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
