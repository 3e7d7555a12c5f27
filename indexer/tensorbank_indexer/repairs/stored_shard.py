"""A shard as it lies in the store, whole or damaged, and what its rows say that it should hold."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tensorbank.errors import IntegrityError
from tensorbank.layout import place_of_key
from tensorbank.reading import crc32c, decode_run
from tensorbank.schema import Modality

__all__ = ["StoredShard"]

MISSING = np.uint64(2**64 - 1)
_CRC = struct.Struct("<I")


class StoredShard:
    """The bytes of one shard, whose damaged blocks are put back in their places.

    Parameters
    ----------
    data
        What the store has of it; empty if it is gone.
    refs
        Addresses of all its samples.
    n_slots
        Samples that it has room for.
    """

    def __init__(
        self, key: str, data: bytes, modality: Modality, refs: Sequence[Mapping[str, Any]], n_slots: int
    ) -> None:
        self.key = key
        self.modality = modality
        self.refs = refs
        self.n_slots = n_slots
        n_index = 16 * modality.n_blocks * n_slots + _CRC.size
        end = max(ref["offset"] + ref["length"] for ref in refs)
        start = len(data) - n_index
        tail = data[start:] if start >= end else b""
        self._index = tail if tail and tail[-_CRC.size :] == _CRC.pack(crc32c(tail[: -_CRC.size])) else b""
        self._body = bytearray(data[:start] if self._index else data[:end].ljust(end, b"\0"))

    def is_sound(self, ref: Mapping[str, Any]) -> bool:
        """Tell whether the blocks of a sample are there, and have their checksums."""
        data = memoryview(bytes(self._body[ref["offset"] : ref["offset"] + ref["length"]]))
        shape = (self.modality.height, self.modality.width)
        n_blocks = sum(1 for size in ref["block_bytes"] if size)
        try:
            decode_run(data, [np.empty(shape, self.modality.dtype) for _ in range(n_blocks)])
        except IntegrityError:
            return False
        return True

    def put_back(self, ref: Mapping[str, Any], blocks: Sequence[bytes]) -> None:
        """Put the blocks of a sample in their place; they have the lengths that its address says."""
        self._body[ref["offset"] : ref["offset"] + ref["length"]] = b"".join(blocks)

    def whole(self) -> bytes:
        """Return the object: blocks, and the index that its samples make."""
        index = np.full((self.n_slots, self.modality.n_blocks, 2), MISSING, np.uint64)
        if self._index:
            index[:] = np.frombuffer(self._index[: -_CRC.size], "<u8").reshape(index.shape)
        for ref in self.refs:
            sizes = np.array(ref["block_bytes"], np.uint64)
            ends = np.uint64(ref["offset"]) + np.cumsum(sizes, dtype=np.uint64)
            pairs = np.stack([ends - sizes, sizes], axis=1)
            pairs[sizes == 0] = MISSING
            index[ref["row"] - place_of_key(self.key)[1] * self.n_slots] = pairs
        data = index.astype("<u8").tobytes()
        return bytes(self._body) + data + _CRC.pack(crc32c(data))
