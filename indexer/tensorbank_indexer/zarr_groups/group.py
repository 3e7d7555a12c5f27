"""Arrays of a zarr group (version 2 or 3) in a zip archive."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy.typing as npt

from tensorbank.errors import ErrorKind, FormatError, IntegrityError, NotFoundError
from tensorbank_indexer.containers import Allowance, ZipArchive
from tensorbank_indexer.zarr_groups.array_spec import ArraySpec
from tensorbank_indexer.zarr_groups.chunks import check_grid, decode_chunk, decode_small, filled, grid, native
from tensorbank_indexer.zarr_groups.documents import parse_attributes, parse_consolidated, parse_v2, parse_v3

__all__ = ["ZarrGroup"]

Array = npt.NDArray[Any]
MAX_CACHED_BYTES = 8192
"""The size in bytes up to which chunks (coordinates, names, ids) are decoded once:
they recur in the modalities of a sample."""
MAX_DOCUMENT_BYTES = 64 << 10
"""The size in bytes up to which documents are kept parsed."""


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

    def attributes(self) -> Mapping[str, Any]:
        """Return the attributes of the group itself; none where there are none.

        Raises
        ------
        FormatError
            They are no JSON object.
        """
        key = ".zattrs" if self.version == 2 else "zarr.json"
        if key not in self.archive:
            return {}
        return parse_attributes(
            bytes(self.archive.read(key, max_bytes=self.allowance.limits.max_metadata_bytes))
        )

    def __contains__(self, name: object) -> bool:
        return name in self.arrays

    def spec(self, name: str) -> ArraySpec:
        """Return the spec of an array.

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
        """Tell whether the array has metadata of its own that say something else than the consolidated ones."""
        key = f"{name}/.zarray" if self.version == 2 else f"{name}/zarr.json"
        if key not in self.archive:
            return False
        document = bytes(self.archive.read(key, max_bytes=self.allowance.limits.max_metadata_bytes))
        own = (_own_spec if len(document) <= MAX_DOCUMENT_BYTES else _parse_own)(self.version, document)
        said = self.arrays[name]
        if isinstance(said, FormatError):
            return False  # neither can be used, or the consolidated ones are what is wrong with it
        return isinstance(own, FormatError) or own != said

    def read_small(self, name: str) -> Array:
        """Return a whole array of names, ids, times or coordinates, as :meth:`read`, but of bounded size."""
        spec = self.spec(name)
        n_bytes = max(spec.sizes.array_bytes, spec.sizes.chunk_bytes)
        if n_bytes > self.allowance.limits.max_metadata_bytes:
            raise FormatError(
                f"{name}/ has {n_bytes} bytes, more than the "
                f"{self.allowance.limits.max_metadata_bytes} of coordinates, names and ids.",
                kind=ErrorKind.OVER_LIMIT,
            )
        return self.read(name)

    def read(self, name: str) -> Array:
        """Return a whole array, in the stored dtype and the machine's byte order; missing chunks are the fill value.

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
            return native(chunk if chunk is not None else filled(spec, spec.shape))
        out = filled(spec, spec.shape)
        for index, window in grid(spec):
            chunk = self._chunk(name, spec, index)
            if chunk is not None:
                part = tuple(
                    slice(0, min(w.stop, size) - w.start) for w, size in zip(window, spec.shape, strict=True)
                )
                out[window] = chunk[part]
        return native(out)

    def stored(self, name: str, index: tuple[int, ...]) -> memoryview | None:
        """Return a chunk as it is stored, CRC-32 checked; None if it is missing.

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
                return decode_small(spec, bytes(data), clipped)
            return decode_chunk(spec, data, index)
        except IntegrityError as error:
            raise IntegrityError(f"{name}/{spec.chunk_key(index)}: {error}") from error

    def row_chunks(self, name: str, row: int) -> list[tuple[tuple[int, ...], tuple[slice, ...]]]:
        """Return the chunks that hold index ``row`` of the first axis: their index, and their place on the other axes."""
        spec = self.spec(name)
        self._check_chunks(name, spec)
        return [(index, window[1:]) for index, window in grid(spec, first=row // spec.chunks[0])]

    def _check_chunks(self, name: str, spec: ArraySpec) -> None:
        self.allowance.check(f"a chunk of {name}/", spec.sizes.chunk_bytes)
        check_grid(f"{name}/", spec)


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
