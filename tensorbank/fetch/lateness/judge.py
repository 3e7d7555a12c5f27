"""Tell which reads are late, by what the recent ones took. Pure but for its memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Literal

from tensorbank.fetch.lateness.allowance import Allowance
from tensorbank.fetch.lateness.latencies import Latencies

__all__ = ["MIN_LATE_S", "Lateness", "Verdict", "by_rate_s"]

HEDGE_QUANTILE = 0.95
HEDGE_FACTOR = 2.0
"""The multiple of that percentile after which a read is late."""
SOON_FACTOR = 1.0
"""The multiple where second requests came sooner of late: sound reads beyond that percentile are asked for twice."""
MIN_LATE_S = 0.05
"""Seconds before which no read is late: shorter ones are those of a thread that waits for its turn."""
STALL_FACTOR = 3.0
"""The multiple of the hedging percentile after which, and at least ``stall_s`` after it was asked for last,
a read is late beyond doubt."""
FIRST_STALL_S = 1.0
"""Seconds after which a read counts as stalled while too few reads are known to tell what is late, beside those that its
bytes take at ``SLOW_BYTES_S``."""
SLOW_BYTES_S = 1e6
"""Bytes a second of a connection that is slow, but does not hang: 16 reads at once over a line of 16 MB/s. Asking for all of
them again would make it slower still."""
RECENT = 32
"""The number of recent answers that tell how fast they come."""

Verdict = Literal["hedge", "stall"]
"""The reason to ask for a range again."""


class Lateness:
    """A judge of reads under way. For one thread at a time.

    Parameters
    ----------
    max_hedge_share
        Second requests as a share of all answers, beside those that :class:`Allowance` adds.
    stall_s
        Seconds before which no read counts as stalled, once enough are known.
    """

    def __init__(self, max_hedge_share: float, stall_s: float) -> None:
        self._allowance = Allowance(max_hedge_share)
        self._stall_s = stall_s
        self._latencies = Latencies()
        self._answers_at_s: deque[float] = deque(maxlen=RECENT)

    def learn(
        self, n_bytes: int, seconds: float, now_s: float, *, late_s: float = 0.0, is_first: bool = True
    ) -> None:
        """Learn of an answer.

        Parameters
        ----------
        seconds
            Seconds that the request took which was answered.
        late_s
            Seconds that the read had waited, in all, each time that it was asked for again; 0 if it was asked for once.
        is_first
            True if the first of its requests was answered, False if one beside it was.
        """
        if late_s:
            self._allowance.decided(came_sooner=not is_first and seconds <= late_s)
        else:
            self._allowance.unneeded()
        self._latencies.add(n_bytes, seconds)
        self._answers_at_s.append(now_s)

    def forget_rate(self) -> None:
        """Forget when answers came: after a pause of the consumer that says nothing of how fast they come."""
        self._answers_at_s.clear()

    def percentiles_s(self) -> tuple[float, float]:
        """Return the median and 99th percentile of the seconds of recent reads."""
        return self._latencies.all_s()

    def verdict(
        self,
        n_bytes: int,
        waited_s: float,
        now_s: float,
        *,
        is_hedged: bool,
        n_running: int,
    ) -> Verdict | None:
        """Tell whether to ask for a range again beside the request under way: as a hedge, or because the read has stalled.
        Either is counted as asked for, and is only told if the allowance pays for it.

        Parameters
        ----------
        n_bytes
            Size of the read.
        waited_s, now_s
            Seconds since it was asked for last, or since a pause ended, and the time of the clock of :meth:`learn`.
        is_hedged
            True if it was asked for again before.
        n_running
            Reads under way that were asked for once: late ones would let what is usual seem longer the more of them there are.
        """
        verdict = self._reason(n_bytes, waited_s, now_s, n_running)
        if verdict is None:
            return None
        is_paid = self._allowance.spend(waited_s, now_s, is_stalled=verdict == "stall", is_again=is_hedged)
        return verdict if is_paid else None

    def _reason(self, n_bytes: int, waited_s: float, now_s: float, n_running: int) -> Verdict | None:
        """Tell how late a read is."""
        if waited_s < MIN_LATE_S:
            return None
        usual_s = self._usual_s(n_bytes, n_running, now_s)
        if usual_s is None:
            return "stall" if waited_s >= _first_stall_s(n_bytes) else None
        if waited_s >= max(self._stall_s, STALL_FACTOR * usual_s):
            return "stall"
        factor = SOON_FACTOR if self._allowance.is_ample else HEDGE_FACTOR
        return "hedge" if waited_s >= factor * usual_s else None

    def _usual_s(self, n_bytes: int, n_running: int, now_s: float) -> float | None:
        """Return the seconds that a read takes that is not late; None while too few are known.

        By reads of its size, and, where answers wait for a busy processor, by the rate of answers.
        """
        usual_s = self._latencies.usual_s(n_bytes, HEDGE_QUANTILE)
        if usual_s is None or len(self._answers_at_s) < 2:
            return usual_s
        found_s = by_rate_s(self._answers_at_s, n_running, now_s)
        return max(usual_s, min(found_s, _first_stall_s(n_bytes) / STALL_FACTOR))


def by_rate_s(answers_at_s: Sequence[float], n_running: int, now_s: float) -> float:
    """Return the seconds that a read under way takes by Little's law:
    ``n / rate``, the rate being that of the recent answers.

    Silence since the last of them counts for no longer than they took to come: with all others behind them, the reads that are
    left may be the late ones, and must not pass for usual the longer they take.

    Parameters
    ----------
    answers_at_s
        Times at which answers came, ascending, at least two.
    n_running
        Reads under way.
    """
    span_s = answers_at_s[-1] - answers_at_s[0]
    silent_s = min(now_s - answers_at_s[-1], span_s)
    return n_running * (span_s + silent_s) / (len(answers_at_s) - 1)


def _first_stall_s(n_bytes: int) -> float:
    """Return the seconds after which a read of some size counts as stalled, whatever is known."""
    return FIRST_STALL_S + n_bytes / SLOW_BYTES_S
