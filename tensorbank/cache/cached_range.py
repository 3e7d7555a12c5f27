"""A range of an object that is kept in a segment, and which ranges hold what somebody wants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tensorbank.cache.intervals import Interval

__all__ = ["CachedRange", "match"]


@dataclass(frozen=True, slots=True)
class CachedRange:
    """The bytes ``[start, end)`` of an object that lie in a segment from ``position`` on."""

    start: int
    end: int
    segment: int
    file: str
    position: int
    checksum: int

    @property
    def n_bytes(self) -> int:
        """The bytes that are kept."""
        return self.end - self.start


def match(
    spans: Sequence[Interval], ranges: Sequence[CachedRange]
) -> tuple[list[CachedRange], list[Interval]]:
    """Find the ranges that hold bytes of the spans, and the intervals that no range holds.
    All disjoint and by start. Pure.
    """
    used: list[CachedRange] = []
    missing: list[Interval] = []
    i = 0
    for start, end in spans:
        while i < len(ranges) and ranges[i].end <= start:
            i += 1
        j = i
        while j < len(ranges) and ranges[j].start < end:
            cached = ranges[j]
            if start < cached.start:
                missing.append((start, cached.start))
            if not used or used[-1] is not cached:
                used.append(cached)
            start = cached.end
            j += 1
        if start < end:
            missing.append((start, end))
    return used, missing
