"""Decide how many late reads may be asked for a second time, by what earlier second requests brought. Pure but for its memory.

A store that is slow as a whole only gets slower by being asked for everything twice, so second requests are a small share of all.
A store of which single answers are late is another matter: asking again helps, and harms nobody. The two differ in what second
requests bring. One that is answered in less time than the first was waited for in vain shows that a single answer was late, and
pays for more than one further second request, so that their number grows until all late reads have one. One that comes no sooner
than that takes some of this credit away, and so, bit by bit, does every answer that needed none.

Where nothing is known yet, or no longer, a read that is late beyond doubt is a trial: it is asked for again whatever the share,
and the next one no sooner than after as long as this one had waited, or twice the last such pause while nothing is answered. So a
store that falls silent sees one request more each time that its silence has doubled.
"""

from __future__ import annotations

import math
from typing import Literal

__all__ = ["MAX_CREDIT", "WON_CREDIT", "Allowance"]

WON_CREDIT = 3.0
"""The second requests that one pays for which came sooner than the first: more than are needed with one late answer in two."""
LOST_CREDIT = 2.0
"""The second requests that one takes away, beside itself, which came no sooner."""
MAX_CREDIT = 32.0
"""The most second requests that are paid for in advance: with one late answer in four, those of the most reads under way."""
AMPLE_CREDIT = 16.0
"""The credit from which on reads are asked for again sooner: what may turn out to be unneeded leaves enough for the late ones."""
UNNEEDED_FACTOR = 1 - 1 / 256
"""The part of the credit that is left after an answer that needed no second request."""

Payer = Literal["share", "credit", "trial"]
"""The source that a second request is paid from."""


class Allowance:
    """An account of second requests. For one thread at a time.

    Parameters
    ----------
    max_share
        Second requests that nothing speaks for, as a share of all answers. With 0, only reads that are late beyond doubt are
        asked for again.
    """

    def __init__(self, max_share: float) -> None:
        self._max_share = max_share
        self._n_answers = 0
        self._n_shared = 0
        self._credit = 0.0
        self._trial_from_s = -math.inf
        self._trial_pause_s = 0.0

    @property
    def is_ample(self) -> bool:
        """True if earlier second requests speak for asking again sooner than otherwise."""
        return self._max_share > 0 and self._credit >= AMPLE_CREDIT

    def unneeded(self) -> None:
        """Count an answer to a read that was asked for once."""
        self._answered()
        self._credit *= UNNEEDED_FACTOR

    def decided(self, *, came_sooner: bool) -> None:
        """Count the answer to a read that was asked for more than once.

        Parameters
        ----------
        came_sooner
            True if a later request was answered in less time than those before it were waited for.
        """
        self._answered()
        if came_sooner:
            self._credit = min(self._credit + WON_CREDIT, MAX_CREDIT)
        else:
            self._credit = max(self._credit - LOST_CREDIT, 0.0)

    def spend(self, waited_s: float, now_s: float, *, is_stalled: bool, is_again: bool) -> Payer | None:
        """Pay for a second request; None if there is nothing to pay it from.

        Parameters
        ----------
        waited_s, now_s
            Seconds that the read has waited, and the time.
        is_stalled
            True if it is late beyond doubt.
        is_again
            True if the read has been asked for again before: then the share is not for it, unless it is late beyond doubt.
        """
        may_share = is_stalled or not is_again
        if may_share and self._n_shared + 1 <= self._max_share * (self._n_answers + 1):
            self._n_shared += 1
            return "share"
        if self._credit >= 1 and (is_stalled or self._max_share):
            self._credit -= 1
            return "credit"
        if is_stalled and now_s >= self._trial_from_s:
            self._trial_pause_s = max(waited_s, 2 * self._trial_pause_s)
            self._trial_from_s = now_s + self._trial_pause_s
            return "trial"
        return None

    def _answered(self) -> None:
        """Count an answer: the store is not silent."""
        self._n_answers += 1
        self._trial_pause_s = 0.0
