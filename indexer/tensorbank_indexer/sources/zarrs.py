"""Arrays of a zarr group (version 2 or 3) in a zip archive."""

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

from tensorbank.errors import FormatError, IntegrityError, NotFoundError
from tensorbank_indexer.sources.array_spec import (
    MAX_TEXT_BYTES,
    ArraySpec,
    parse_consolidated,
    parse_v2,
    parse_v3,
)
from tensorbank_indexer.sources.blosc_blocks import decode_range
from tensorbank_indexer.sources.decoders import DECODE_ERRORS, decode_texts, decode_within
from tensorbank_indexer.sources.limits import Allowance
from tensorbank_indexer.sources.zip import ZipArchive

__all__ = ["ZarrGroup", "decode_chunk", "decode_row"]

Array = npt.NDArray[Any]
MAX_CACHED_BYTES = 8192
"""Chunks up to this size (coordinates, names, ids) recur in the modalities of a sample: they are decoded
once."""
MAX_DOCUMENT_BYTES = 64 << 10
"""Documents up to this size are kept parsed."""
MAX_CHUNKS = 100_000
"""More chunks than this an array may not have: each missing one costs a look into the directory."""


class ZarrGroup:
    """The arrays of one group. Chunks are decoded when asked for; what is returned may be read-only.

    ``allowance`` is what decoding may cost. It may be set anew when another sample of the group is read.

    Raises
    ------
    FormatError
        The archive holds no zarr group, or its metadata cannot be used.
    IntegrityError
        The metadata are damaged.
    """

    def __init__(self, archive: ZipArchive, allowance: Allowance | None = None) -> None:
        self.archive = archive
        self.allowance = allowance or Allowance()
        self.version, self.arrays = _arrays(archive, self.allowance.limits.max_metadata_bytes)

    def __contains__(self, name: object) -> bool:
        return name in self.arrays

    def spec(self, name: str) -> ArraySpec:
        """Spec of an array.

        Raises
        ------
        NotFoundError
            There is no such array.
        FormatError
            Its metadata cannot be used.
        """
        try:
            found = self.arrays[name]
        except KeyError:
            raise NotFoundError(
                f"There is no array {name!r}, only {', '.join(sorted(self.arrays)[:20])}."
            ) from None
        if isinstance(found, FormatError):
            raise FormatError(f"{name}/: {found}", kind=found.kind)
        return found

    def differs(self, name: str) -> bool:
        """Whether the array has metadata of its own beside the consolidated ones that say something else."""
        key = f"{name}/.zarray" if self.version == 2 else f"{name}/zarr.json"
        if key not in self.archive:
            return False
        document = bytes(self.archive.read(key, max_bytes=self.allowance.limits.max_metadata_bytes))
        own = (_own_spec if len(document) <= MAX_DOCUMENT_BYTES else _parse_own)(self.version, document)
        return isinstance(own, FormatError) or own != self.spec(name)

    def read_small(self, name: str) -> Array:
        """A whole array of names, ids, times or coordinates, as :meth:`read`, but of bounded size."""
        spec = self.spec(name)
        n_bytes = max(spec.sizes.array_bytes, spec.sizes.chunk_bytes)
        if n_bytes > self.allowance.limits.max_metadata_bytes:
            raise FormatError(
                f"{name}/ has {n_bytes} bytes, more than the "
                f"{self.allowance.limits.max_metadata_bytes} of coordinates, names and ids.",
                kind="over-limit",
            )
        return self.read(name)

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
        self.allowance.take(f"{name}/", spec.sizes.array_bytes)
        self._check_chunks(name, spec)
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
        """A chunk as it is stored, CRC-32 checked; None if it is missing.

        Raises
        ------
        FormatError
            It is larger than any codec would make it, encrypted, or compressed in an unknown way.
        IntegrityError
            Its CRC-32 does not match.
        """
        spec = self.spec(name)
        key = f"{name}/{spec.chunk_key(index)}"
        if key not in self.archive:
            return None
        self.allowance.check_time()
        return self.archive.read(key, max_bytes=spec.sizes.stored_bytes)

    def _chunk(self, name: str, spec: ArraySpec, index: tuple[int, ...]) -> Array | None:
        data = self.stored(name, index)
        if data is None:
            return None
        clipped = spec.clipped(index)
        try:
            if len(data) <= MAX_CACHED_BYTES and spec.sizes.chunk_bytes <= MAX_CACHED_BYTES:
                return _decode_small(spec, bytes(data), clipped)
            return _decode(spec, data, clipped)
        except IntegrityError as error:
            raise IntegrityError(f"{name}/{spec.chunk_key(index)}: {error}") from error

    def row_chunks(self, name: str, row: int) -> list[tuple[tuple[int, ...], tuple[slice, ...]]]:
        """Chunks that hold index ``row`` of the first axis: their index, and their place on the other
        axes."""
        spec = self.spec(name)
        self._check_chunks(name, spec)
        return [(index, window[1:]) for index, window in _grid(spec, first=row // spec.chunks[0])]

    def _check_chunks(self, name: str, spec: ArraySpec) -> None:
        self.allowance.check(f"a chunk of {name}/", spec.sizes.chunk_bytes)
        if spec.sizes.n_chunks > MAX_CHUNKS:
            raise FormatError(
                f"{name}/ has {spec.sizes.n_chunks} chunks, more than {MAX_CHUNKS}.", kind="over-limit"
            )


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
    if not spec.is_c_order or not _is_blosc(spec) or len(data) < 16:
        return None
    shape = _chunk_shape(spec, int.from_bytes(data[4:8], "little"), spec.clipped(index))
    row_bytes = math.prod(shape[1:]) * spec.dtype.itemsize
    return _native(
        decode_range(data, row * row_bytes, (row + 1) * row_bytes).view(spec.dtype).reshape(shape[1:])
    )


def _decode(spec: ArraySpec, data: bytes | memoryview, clipped: tuple[int, ...]) -> Array:
    if spec.has_texts:
        return _texts(spec, data, clipped)
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
    """A chunk of this shape from its bytes, whose axes may lie in another order."""
    array = raw.view(spec.dtype)
    if spec.is_c_order:
        return array.reshape(shape)
    return array.reshape([shape[axis] for axis in spec.axes]).transpose(np.argsort(spec.axes))


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
def _decode_small(spec: ArraySpec, data: bytes, clipped: tuple[int, ...]) -> Array:
    array = _decode(spec, data, clipped)
    array.flags.writeable = False
    return array


def _is_blosc(spec: ArraySpec) -> bool:
    return len(spec.decoders) == 1 and spec.decoders[0].is_blosc and not spec.has_texts


def _chunk_shape(spec: ArraySpec, n_bytes: int, clipped: tuple[int, ...]) -> tuple[int, ...]:
    """Zarr stores chunks at the edge in full; some writers store only what lies in the array."""
    for shape in (spec.chunks, clipped):
        if math.prod(shape) * spec.dtype.itemsize == n_bytes:
            return shape
    raise IntegrityError(
        f"a chunk has {n_bytes} bytes instead of {math.prod(spec.chunks) * spec.dtype.itemsize}."
    )


def _arrays(archive: ZipArchive, max_bytes: int) -> tuple[int, dict[str, ArraySpec | FormatError]]:
    def document(key: str, otherwise: bytes = b"") -> bytes:
        return bytes(archive.read(key, max_bytes=max_bytes)) if key in archive else otherwise

    if "zarr.json" in archive:
        found = parse_consolidated(document("zarr.json"))
        if found is not None:
            return 3, dict(found)
        names = [n.removesuffix("/zarr.json") for n in archive.names if n.endswith("/zarr.json")]
        documents = {name: document(f"{name}/zarr.json") for name in names}
        return 3, {name: parse_v3(content) for name, content in documents.items() if b'"array"' in content}
    if ".zmetadata" in archive:
        return 2, dict(parse_consolidated(document(".zmetadata")) or {})
    names = [n.removesuffix("/.zarray") for n in archive.names if n.endswith("/.zarray")]
    if not names:
        raise FormatError(
            "The zip archive holds no zarr group: neither .zmetadata, .zarray nor zarr.json are in it."
        )
    return 2, {
        name: parse_v2(document(f"{name}/.zarray"), document(f"{name}/.zattrs", b"{}")) for name in names
    }


def _parse_own(version: int, document: bytes) -> ArraySpec | FormatError:
    return parse_v2(document, b"{}") if version == 2 else parse_v3(document)


_own_spec = lru_cache(maxsize=1024)(_parse_own)


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
    array = array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    if array.dtype.kind == "U" and array.size:
        points = np.ascontiguousarray(array).reshape(-1).view(np.uint32)
        # numpy makes no text of such numbers, it fails when somebody looks at them.
        if points.max() > sys.maxunicode:
            raise IntegrityError(f"a text holds the number {points.max()}, which is no character.")
    return array
