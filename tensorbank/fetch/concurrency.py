"""Decide how many reads to keep under way, from what the recent ones took. Pure but for its memory.

By Little's law ``rate x latency`` reads are under way at any time. While the network has room, twice as many bring twice the
rate at the same latency; once it is full they only wait longer. So the depth is kept at twice the product of the best rate and
the best latency: it doubles until that stops to pay. With a queue in the network its latency cannot be seen, so every few
seconds the depth goes down for a moment. Both ideas are BBR's (Cardwell et al., "BBR: Congestion-Based Congestion Control",
ACM Queue 2016), and so is the time over which a rate is measured: not less than a read takes. Reads that were asked for together
end together, and the rate of such a burst is not the network's.

A thread that is held by a late request, until a second one has begun, is missing from the others. So the mean of that time counts
as well, by the same law.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Literal

__all__ = ["MAX_DEPTH", "MIN_DEPTH", "Concurrency"]

GAIN = 2.0
MIN_DEPTH = 8
FIRST_DEPTH = 32
"""The threads before anything is measured: with fewer, the first batches of a store 30 ms away wait for each other."""
MAX_DEPTH = 128
"""The most threads, each waiting for a read: enough for 30 ms and 500 MB/s in reads of 128 KiB."""
ROUND_S = 0.05
"""Seconds of a round: long enough to hold several reads,
short enough to find the depth within the first batches."""
N_ROUNDS = 20
"""The number of rounds whose best rate counts: a second at least."""
PROBE_EVERY_S = 10.0
LATE_WEIGHT = 0.25
"""The weight of the newest round in the mean of the seconds that late requests hold the thread of a read."""


class Concurrency:
    """A controller that follows the reads of one run. For one thread at a time.

    Parameters
    ----------
    fixed
        Keep this depth, whatever is measured.
    """

    def __init__(self, fixed: int | None = None) -> None:
        self._fixed = fixed
        self._n = fixed or FIRST_DEPTH
        self._rates: deque[float] = deque(maxlen=N_ROUNDS)
        self._latency_s = math.inf
        self._probed_s = self._begun_s = -math.inf
        self._phase: Literal["keep", "drain", "probe"] = "keep"
        self._n_round = self._n // 2
        self._count = 0
        self._sum_s = self._sum_late_s = 0.0
        self._late_s = 0.0
        self._ends_s: deque[float] = deque()

    @property
    def n(self) -> int:
        """The number of reads to keep under way."""
        return self._n

    def add(self, seconds: float, now_s: float, *, late_s: float = 0.0) -> None:
        """Learn of a read that took ``seconds`` and ended at ``now_s`` of a monotonic clock.

        Parameters
        ----------
        late_s
            Seconds that its thread was held, beside these, by requests that were late.
        """
        if self._fixed is not None:
            return
        self._ends_s.append(now_s)
        if self._begun_s == -math.inf:
            self._begun_s = self._probed_s = now_s
            return
        self._count += 1
        self._sum_s += seconds
        self._sum_late_s += late_s
        elapsed_s = now_s - self._begun_s
        if self._count >= self._n_round and (elapsed_s >= ROUND_S or self._phase != "keep"):
            latency_s = self._sum_s / self._count
            self._late_s += LATE_WEIGHT * (self._sum_late_s / self._count - self._late_s)
            self._end_of_round(self._rate(max(elapsed_s, latency_s, 1e-9), now_s), latency_s, now_s)
            self._begun_s, self._count, self._sum_s, self._sum_late_s = now_s, 0, 0.0, 0.0

    def _rate(self, window_s: float, now_s: float) -> float:
        """Return the reads a second that ended in a window of time, and forget those before."""
        ends_s = self._ends_s
        while ends_s[0] <= now_s - window_s:
            ends_s.popleft()
        return len(ends_s) / window_s

    def _end_of_round(self, rate: float, latency_s: float, now_s: float) -> None:
        if self._phase == "drain":  # what was under way at the full depth has come
            self._phase = "probe"
            self._n_round = MIN_DEPTH
            return
        if self._phase == "probe":
            self._phase = "keep"
            self._latency_s, self._probed_s = latency_s, now_s
        else:
            self._rates.append(rate)
            self._latency_s = min(self._latency_s, latency_s)
            if now_s - self._probed_s >= PROBE_EVERY_S:
                self._phase = "drain"
                self._n, self._n_round = MIN_DEPTH, self._n
                return
        self._n = depth(max(self._rates), self._latency_s, self._late_s)
        self._n_round = self._n // 2


def depth(reads_per_s: float, latency_s: float, late_s: float = 0.0) -> int:
    """Return the number of reads to keep under way for a rate and a latency that are the best of late, and for the mean of the
    seconds that late requests hold a thread: those threads are missing from the others.
    """
    return min(max(math.ceil(reads_per_s * (GAIN * latency_s + late_s)), MIN_DEPTH), MAX_DEPTH)
