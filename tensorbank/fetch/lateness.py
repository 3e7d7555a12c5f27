"""Tell which reads are late, by what the recent ones took."""

from __future__ import annotations

import time
from collections import deque
from typing import Literal

from tensorbank.fetch.latencies import Latencies, by_rate_s
from tensorbank.fetch.races import Race

__all__ = ["Lateness"]

HEDGE_QUANTILE = 0.95
HEDGE_FACTOR = 2.0
"""The multiple of that percentile after which a read is late."""
MIN_LATE_S = 0.05
"""Seconds before which no read is late: shorter ones are those of a thread that waits for its turn."""
STALL_FACTOR = 3.0
"""The multiple of the hedging percentile after which, and at least ``stall_s`` after it was asked for last,
a read is late beyond doubt."""
FIRST_STALL_S = 1.0
"""Seconds after which a read counts as stalled while too few reads are known to tell what is late."""
RECENT = 32
"""The number of recent answers that tell how fast they come."""


class Lateness:
    """A judge of reads under way. For one thread at a time.

    Parameters
    ----------
    max_hedge_share
        Hedges as a share of all answered requests, at most.
    stall_s
        Seconds before which no read counts as stalled, once enough are known.
    """

    def __init__(self, max_hedge_share: float, stall_s: float) -> None:
        self._max_hedge_share = max_hedge_share
        self._stall_s = stall_s
        self._latencies = Latencies()
        self._answers_at_s: deque[float] = deque(maxlen=RECENT)

    def learn(self, n_bytes: int, seconds: float, now_s: float) -> None:
        """Learn of an answer."""
        self._latencies.add(n_bytes, seconds)
        self._answers_at_s.append(now_s)

    def forget_rate(self) -> None:
        """Forget when answers came: after a pause of the consumer that says nothing of how fast they come."""
        self._answers_at_s.clear()

    def percentiles_s(self) -> tuple[float, float]:
        """Return the median and 99th percentile of the seconds of recent reads."""
        return self._latencies.all_s()

    def verdict(
        self, race: Race, n_running: int, n_hedges: int, n_answers: int
    ) -> Literal["hedge", "stall"] | None:
        """Tell whether to ask for a range again beside the request under way: once as a hedge, if the share of hedges allows it,
        or, whatever the share, because the read has stalled.

        Parameters
        ----------
        n_running
            Reads under way.
        n_hedges, n_answers
            Hedges so far, and requests that were answered.
        """
        waited_s = time.perf_counter() - max(race.asked_s, race.resumes_s)
        if waited_s < MIN_LATE_S:
            return None
        usual_s = self._usual_s(race.wanted.range.n_bytes, n_running)
        if usual_s is None:
            return "stall" if waited_s >= FIRST_STALL_S else None
        if waited_s >= max(self._stall_s, STALL_FACTOR * usual_s):
            return "stall"
        if race.is_hedged or waited_s < HEDGE_FACTOR * usual_s:
            return None
        return "hedge" if n_hedges + 1 <= self._max_hedge_share * (n_answers + 1) else None

    def _usual_s(self, n_bytes: int, n_running: int) -> float | None:
        """Return the seconds that a read takes that is not late; None while too few are known.

        By reads of its size, and, where answers wait for a busy processor, by the rate of answers.
        """
        usual_s = self._latencies.usual_s(n_bytes, HEDGE_QUANTILE)
        if usual_s is None or len(self._answers_at_s) < 2:
            return usual_s
        found_s = by_rate_s(self._answers_at_s, n_running, time.perf_counter())
        return max(usual_s, min(found_s, FIRST_STALL_S / STALL_FACTOR))
