"""A histogram of durations, of fixed size whatever their number."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["BINS_PER_OCTAVE", "N_BINS", "Durations", "bin_of", "edge_s"]

BINS_PER_OCTAVE = 8
"""A bin is 9 % wide, so a quantile is known to 5 %."""
FIRST_OCTAVE, LAST_OCTAVE = -20, 10
"""The range of the histogram, in powers of two of a second: from a microsecond to a quarter of an hour."""
N_BINS = (LAST_OCTAVE - FIRST_OCTAVE) * BINS_PER_OCTAVE + 2
"""The number of bins; one more on either side takes what is shorter or longer."""


def bin_of(seconds: float) -> int:
    """Number of the bin that a duration falls into."""
    if seconds < 2.0**FIRST_OCTAVE:
        return 0
    return min(math.floor((math.log2(seconds) - FIRST_OCTAVE) * BINS_PER_OCTAVE) + 1, N_BINS - 1)


def edge_s(number: int) -> float:
    """Upper edge of a bin, in seconds; infinity for the last."""
    if number >= N_BINS - 1:
        return math.inf
    return float(2.0 ** (FIRST_OCTAVE + number / BINS_PER_OCTAVE))


@dataclass(frozen=True, slots=True)
class Durations:
    """A histogram of durations.

    Parameters
    ----------
    counts
        (N_BINS,) how many fell into each bin.
    sum_s
        Sum of the durations in seconds.
    """

    counts: tuple[int, ...] = (0,) * N_BINS
    sum_s: float = 0.0

    @property
    def n(self) -> int:
        """The number of durations."""
        return sum(self.counts)

    def quantile_s(self, q: float) -> float:
        """The lower order statistic at ``q`` in [0, 1], to 5 %; 0 of nothing, and of what is below a microsecond."""
        rank = math.floor(q * (self.n - 1)) + 1
        upto = 0
        for number, count in enumerate(self.counts):
            upto += count
            if count and upto >= rank:
                if number == 0:
                    return 0.0
                low, high = edge_s(number - 1), edge_s(number)
                return low if math.isinf(high) else math.sqrt(low * high)
        return 0.0

    def cumulative(self) -> tuple[tuple[float, int], ...]:
        """Upper edge in seconds and count up to it, octave by octave; the last edge is infinite."""
        upto, total = [], 0
        for number, count in enumerate(self.counts):
            total += count
            if number % BINS_PER_OCTAVE == 0 or number == N_BINS - 1:
                upto.append((edge_s(number), total))
        return tuple(upto)
