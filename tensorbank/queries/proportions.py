"""Choose the source of each place, so that every stretch of places has the sources in proportion.
Pure arithmetic.

A source of share 0.3 gets 3 of any 10 places, or 2, or 4: place ``x`` of two sources goes to the first where ``floor((x + 1) a)``
exceeds ``floor(x a)``, ``a`` being its share (a Beatty sequence). More sources are halved, and each half again. How many places a
source has had before place ``x`` is then a formula, so that a run can begin anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tensorbank.arguments import numbers_of

__all__ = ["Proportions"]

Int64 = npt.NDArray[np.int64]

UNITS = 1 << 22
"""The number of units, about, that shares are counted in: products with 2 ** 40 places fit 63 bits."""


@dataclass(frozen=True, slots=True)
class Proportions:
    """The shares of sources in whole units.

    Parameters
    ----------
    units
        Units of each source, positive.
    seed
        Decides where the pattern begins.
    """

    units: tuple[int, ...]
    seed: int

    @classmethod
    def of(cls, weights: Sequence[float], seed: int) -> Proportions:
        """Make the shares from weights.

        Raises
        ------
        InvalidInputError
            A weight is no number, not positive or not finite.
        """
        values = np.array(numbers_of("weights", weights, above=0))
        values /= values.max()  # so that no sum overflows
        units = np.maximum(np.rint(values / values.sum() * UNITS), 1).astype(np.int64)
        return cls(tuple(units.tolist()), seed)

    def assign(self, places: Int64) -> tuple[Int64, Int64]:
        """Return the source of each place, (m,) int64, and how many places it has had before, (m,) int64."""
        source = np.zeros(len(places), np.int64)
        before = np.zeros(len(places), np.int64)
        self._descend(places, np.arange(len(places)), 0, len(self.units), source, before)
        return source, before

    def counts(self, place: int) -> tuple[int, ...]:
        """Return how many of the first ``place`` places each source has."""
        return tuple(self._counts(place, 0, len(self.units)))

    def places_until(self, source: int, n: int) -> int:
        """Return the smallest number of places of which a source has ``n``."""
        low, high = 0, max(n, 1)
        while self.counts(high)[source] < n:
            low, high = high, 2 * high
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self.counts(middle)[source] < n else (low, middle)
        return low

    def _descend(self, places: Int64, at: Int64, low: int, high: int, source: Int64, before: Int64) -> None:
        """Descend with places as the sources ``[low, high)`` count them; ``at`` says where results go."""
        if high - low == 1:
            source[at], before[at] = low, places
            return
        middle = (low + high) // 2
        units, total, phase = self._split(low, middle, high)
        first = (places * units + phase) // total
        goes = ((places + 1) * units + phase) // total > first
        self._descend(first[goes], at[goes], low, middle, source, before)
        self._descend((places - first)[~goes], at[~goes], middle, high, source, before)

    def _counts(self, place: int, low: int, high: int) -> list[int]:
        if high - low == 1:
            return [place]
        middle = (low + high) // 2
        units, total, phase = self._split(low, middle, high)
        first = (place * units + phase) // total
        return self._counts(first, low, middle) + self._counts(place - first, middle, high)

    def _split(self, low: int, middle: int, high: int) -> tuple[int, int, int]:
        """Return the units of the first half, of both, and where between two places the pattern begins."""
        units, total = sum(self.units[low:middle]), sum(self.units[low:high])
        phase = int(np.random.SeedSequence([self.seed, low, high]).generate_state(1)[0]) % total
        return units, total, phase
