"""How many reads to keep under way, from what the recent ones took. Pure but for its memory.

By Little's law ``rate x latency`` reads are under way at any time. While the network has room, twice as many bring twice the
rate at the same latency; once it is full they only wait longer. So the depth is kept at twice the product of the best rate and
the best latency of the recent past: it doubles until that stops to pay, and stays there (the idea of BBR: Cardwell et al.,
"BBR: Congestion-Based Congestion Control", ACM Queue 2016).
"""

from __future__ import annotations

import math
from collections import deque

__all__ = ["MAX_DEPTH", "MIN_DEPTH", "Depth"]

GAIN = 2.0
MIN_DEPTH = 8
FIRST_DEPTH = 16
MAX_DEPTH = 128
"""Threads, each waiting for a read: enough for 30 ms and 500 MB/s in reads of 128 KiB."""
ROUND_S = 0.05
"""Long enough to hold several reads, short enough to find the depth within the first batches."""
N_ROUNDS = 20
"""Rounds remembered: a second at least, so that a network that changes is followed."""


class Depth:
    """Follows the reads of one run. For one thread at a time.

    Parameters
    ----------
    fixed
        Keep this depth, whatever is measured.
    """

    def __init__(self, fixed: int | None = None) -> None:
        self._fixed = fixed
        self._n = fixed or FIRST_DEPTH
        self._rounds: deque[tuple[float, float]] = deque(maxlen=N_ROUNDS)
        self._begun: float | None = None
        self._count = 0
        self._sum_s = 0.0

    @property
    def n(self) -> int:
        """Reads to keep under way."""
        return self._n

    def add(self, seconds: float, now_s: float) -> None:
        """Learn of a read that took ``seconds`` and ended at ``now_s`` of a monotonic clock."""
        if self._fixed is not None:
            return
        if self._begun is None:
            self._begun = now_s
            return
        self._count += 1
        self._sum_s += seconds
        elapsed_s = now_s - self._begun
        if elapsed_s < ROUND_S or self._count < self._n // 2:
            return
        self._rounds.append((self._count / elapsed_s, self._sum_s / self._count))
        self._begun, self._count, self._sum_s = now_s, 0, 0.0
        self._n = depth(max(rate for rate, _ in self._rounds), min(s for _, s in self._rounds))


def depth(reads_per_s: float, latency_s: float) -> int:
    """Reads to keep under way for a rate and a latency that are the best of late."""
    return min(max(math.ceil(GAIN * reads_per_s * latency_s), MIN_DEPTH), MAX_DEPTH)
