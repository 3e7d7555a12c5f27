"""A record of what recent reads took, by their size: what is usual."""

from __future__ import annotations

from collections import defaultdict, deque

__all__ = ["FEW", "KEPT", "TAIL", "Latencies"]

KEPT = 128
"""The number of reads remembered of each size:
enough for a 95th percentile, few enough to follow a network that changes."""
FEW = 8
"""The number of reads below which those of a size tell nothing."""
TAIL = 8.0
"""The multiple of the median beyond which no read counts as usual. Among few reads the high quantile is the
longest, and one that hung would make hanging usual."""


class Latencies:
    """A record of the durations of reads by size, in octaves of bytes:
    a small read says little of a large one. For one thread at a time.
    """

    def __init__(self) -> None:
        self._recent: defaultdict[int, deque[float]] = defaultdict(lambda: deque(maxlen=KEPT))

    def add(self, n_bytes: int, seconds: float) -> None:
        """Remember a read."""
        self._recent[n_bytes.bit_length()].append(seconds)

    def usual_s(self, n_bytes: int, q: float) -> float | None:
        """Return a quantile of the reads of about this size, or of any while those are few; None while all are too few to tell.

        It is at most :data:`TAIL` times their median.
        """
        recent = list(self._recent[n_bytes.bit_length()])
        if len(recent) < FEW:
            recent = [s for group in self._recent.values() for s in group]
        return min(_quantile(recent, q), TAIL * _quantile(recent, 0.5)) if len(recent) >= FEW else None

    def all_s(self) -> tuple[float, float]:
        """Return the median and 99th percentile of all reads remembered; zeros where there are none."""
        recent = [s for group in self._recent.values() for s in group]
        return (_quantile(recent, 0.5), _quantile(recent, 0.99)) if recent else (0.0, 0.0)


def _quantile(values: list[float], q: float) -> float:
    """Return a quantile by nearest rank: for so few values, numpy takes longer to start than to count."""
    return sorted(values)[min(int(q * len(values)), len(values) - 1)]
