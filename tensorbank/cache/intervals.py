"""Arithmetic of the bytes that somebody wants of one object. Pure; intervals are half-open."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import pairwise

__all__ = ["Interval", "disjoint", "touching"]

Interval = tuple[int, int]
"""Bytes ``[start, end)``."""


def disjoint(spans: Iterable[Interval]) -> list[Interval]:
    """Return intervals of the same bytes that do not overlap, by start, cut wherever a span begins or ends.
    Pure.
    """
    found = sorted({span for span in spans if span[0] < span[1]})
    if all(a[1] <= b[0] for a, b in pairwise(found)):
        return found
    edges = sorted({edge for span in found for edge in span})
    covered: list[Interval] = []
    open_ends: list[int] = []
    starts = deque(found)
    for a, b in pairwise(edges):
        while starts and starts[0][0] == a:
            heapq.heappush(open_ends, starts.popleft()[1])
        while open_ends and open_ends[0] <= a:
            heapq.heappop(open_ends)
        if open_ends:
            covered.append((a, b))
    return covered


def touching(spans: Sequence[Interval]) -> list[list[Interval]]:
    """Return the runs of spans of which each begins where the one before ends."""
    runs: list[list[Interval]] = []
    for span in spans:
        if runs and runs[-1][-1][1] == span[0]:
            runs[-1].append(span)
        else:
            runs.append([span])
    return runs
