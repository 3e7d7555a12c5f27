"""An array of a zarr group as its metadata describe it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from tensorbank_indexer.zarr_groups.decoding_step import Decoder

__all__ = ["MAX_TEXT_BYTES", "ArraySpec", "Sharding", "Sizes", "sizes_of"]

TEXT_BYTES = 16
"""The bytes that a text of variable length is counted with."""
MAX_TEXT_BYTES = 16 << 20
"""The most decoded bytes of a chunk of texts."""
INDEX_ENTRY_BYTES = 16
"""The bytes of an entry in the index of a shard: offset and length of a chunk."""


class Sizes(NamedTuple):
    """The memory that an array takes, kept since it is asked for with each read: raw bytes of the array and of a chunk, most
    bytes of a stored chunk, and chunks of the grid, stored or not.
    """

    array_bytes: int
    chunk_bytes: int
    stored_bytes: int
    n_chunks: int


@dataclass(frozen=True, slots=True)
class Sharding:
    """The make-up of chunks of smaller ones (zarr's codec ``sharding_indexed``).

    ``inner`` describes a shard as an array of them; the axes of its shape lie as in the decoded bytes. The index of
    all of them lies at the end of the shard or at its start.
    """

    inner: ArraySpec
    index_decoders: tuple[Decoder, ...]
    index_order: str
    index_at_start: bool

    @property
    def index_bytes(self) -> int:
        """The size of the index, decoded."""
        return INDEX_ENTRY_BYTES * self.inner.sizes.n_chunks

    @property
    def stored_index_bytes(self) -> int:
        """The size of the index as it is stored: its codecs may only add a checksum."""
        size = self.index_bytes
        for decoder in reversed(self.index_decoders):
            size = decoder.max_stored(size)
        return size

    @property
    def stored_bytes(self) -> int:
        """The most bytes of a shard."""
        return self.stored_index_bytes + self.inner.sizes.n_chunks * self.inner.sizes.stored_bytes


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """The shape, chunks and codecs of an array.

    ``decoders`` are applied in this order to a stored chunk; ``axes`` is the order in which its axes lie in the
    decoded bytes, slowest first: (0, 1, 2) is order C. ``fill_value`` is None where the metadata have none, which
    reads as zeros. ``missing`` is the fill value where it says that pixels of this value are missing, as xarray takes
    it in version 2; version 3 has an attribute for that. With ``sharding`` what ``decoders`` leave of a chunk is a
    shard of smaller ones. Specs are equal if their ``token``, the metadata without attributes, is.
    """

    token: str
    shape: tuple[int, ...] = field(compare=False)
    chunks: tuple[int, ...] = field(compare=False)
    dtype: np.dtype[Any] = field(compare=False)
    fill_value: Any = field(compare=False)
    axes: tuple[int, ...] = field(compare=False)
    decoders: tuple[Decoder, ...] = field(compare=False)
    dims: tuple[str, ...] = field(compare=False)
    attrs: Mapping[str, Any] = field(compare=False)
    sizes: Sizes = field(compare=False)
    missing: Any = field(default=None, compare=False)
    sharding: Sharding | None = field(default=None, compare=False)
    key_prefix: str = field(default="", compare=False)
    separator: str = field(default=".", compare=False)

    @property
    def is_single_chunk(self) -> bool:
        """True if the first chunk holds the array and nothing else."""
        return self.chunks == self.shape

    @property
    def is_c_order(self) -> bool:
        """True if the last axis varies fastest in a decoded chunk."""
        return self.axes == tuple(range(len(self.axes)))

    @property
    def has_texts(self) -> bool:
        """True if the elements are texts of variable length."""
        return self.dtype.kind == "O"

    def clipped(self, index: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the part of a chunk that lies in the array."""
        if self.chunks == self.shape:
            return self.chunks
        return tuple(
            min(chunk, size - i * chunk)
            for i, chunk, size in zip(index, self.chunks, self.shape, strict=True)
        )

    def chunk_key(self, index: tuple[int, ...]) -> str:
        """Return the key of a chunk below its array: ``0.0`` and ``0`` for 0-d in version 2, ``c/0/0`` and ``c`` in version
        3.
        """
        numbers = self.separator.join(map(str, index))
        if self.key_prefix:
            return f"{self.key_prefix}{self.separator}{numbers}" if index else self.key_prefix
        return numbers or "0"


def sizes_of(
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    dtype: np.dtype[Any],
    decoders: tuple[Decoder, ...],
    sharding: Sharding | None = None,
) -> Sizes:
    """Return the sizes of an array with these properties."""
    item_bytes = TEXT_BYTES if dtype.kind == "O" else dtype.itemsize
    chunk_bytes = math.prod(chunks) * item_bytes
    # Texts have any length: only the number of them is known.
    stored_bytes = max(chunk_bytes, MAX_TEXT_BYTES) if dtype.kind == "O" else chunk_bytes
    if sharding is not None:
        stored_bytes = sharding.stored_bytes
    for decoder in reversed(decoders):
        stored_bytes = decoder.max_stored(stored_bytes)
    n_chunks = math.prod(-(-size // chunk) for size, chunk in zip(shape, chunks, strict=True))
    return Sizes(math.prod(shape) * item_bytes, chunk_bytes, stored_bytes, n_chunks)
