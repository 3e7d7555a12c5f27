"""One step of decoding a chunk: the inverse of a compressor, a filter or a checksum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Buffer", "Decoder"]

Buffer = Any
"""The bytes, a memoryview or an array, as codecs take and give them."""


@dataclass(frozen=True, slots=True)
class Decoder:
    """One step of taking a stored chunk back to raw bytes.

    ``decode(data, max_bytes)`` may give up to ``max_bytes + 1`` bytes, or refuse. ``max_stored`` tells how many bytes the
    encoder could have made of so many, at most.
    """

    name: str
    decode: Callable[[Buffer, int], Buffer]
    max_stored: Callable[[int], int]

    @property
    def is_blosc(self) -> bool:
        """True if chunks are Blosc buffers, whose blocks can be decoded one by one."""
        return self.name == "blosc"
