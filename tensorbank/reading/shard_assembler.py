"""The shard assembler: encoded blocks in, one Zarr v3 ``sharding_indexed`` object out.

zarr-python scatters the blocks of a sample over a shard in Morton order; here they lie side by side, so a whole sample is one
range and neighbouring bands are a sub-range. Any reader opens it: the specification leaves the physical order free.
Format: inner chunks, then one pair of little-endian u64 (offset, length) an inner chunk in C order, then crc32c of the
pairs; a missing chunk is 2**64 - 1 twice, and reads as the fill value.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from tensorbank.errors import InvalidInputError
from tensorbank.reading.codec import crc32c

__all__ = ["ShardAssembler"]

MISSING = np.uint64(2**64 - 1)
"""The offset and length of a missing chunk."""


class ShardAssembler:
    """A buffer that collects the blocks of one modality of one shard in memory.

    Parameters
    ----------
    n_slots
        Samples that the shard has room for.
    n_blocks
        Blocks a sample, dates by bands.
    """

    def __init__(self, n_slots: int, n_blocks: int) -> None:
        self._index = np.full((n_slots, n_blocks, 2), MISSING, np.uint64)
        self._chunks: list[bytes] = []
        self._end = 0

    @property
    def n_bytes(self) -> int:
        """The number of bytes of blocks so far."""
        return self._end

    @property
    def empty(self) -> bool:
        """True if no sample has been added."""
        return self._end == 0

    def add(self, slot: int, blocks: Sequence[bytes]) -> tuple[int, int]:
        """Append one sample's blocks in stored order; return its bytes ``[offset, end)`` in the shard.

        A block without bytes is one that the sample does not have; the first must have some.

        Raises
        ------
        InvalidInputError
            The slot is taken, or the number of blocks is not that of the array.
        """
        if len(blocks) != self._index.shape[1] or self._index[slot, 0, 0] != MISSING:
            raise InvalidInputError(
                f"slot {slot} takes {self._index.shape[1]} blocks once, got {len(blocks)}"
            )
        lengths = np.array([len(b) for b in blocks], np.uint64)
        ends = np.cumsum(lengths) + np.uint64(self._end)
        there = lengths > 0
        self._index[slot, there, 0] = (ends - lengths)[there]
        self._index[slot, there, 1] = lengths[there]
        self._chunks.extend(blocks)
        start, self._end = self._end, int(ends[-1])
        return start, self._end

    def finish(self) -> list[bytes]:
        """Return the object as consecutive buffers, index last; the assembler is spent."""
        index = self._index.astype("<u8").tobytes()
        chunks, self._chunks = self._chunks, []
        return [*chunks, index + struct.pack("<I", crc32c(index))]
