"""A histogram of durations, of fixed size whatever their number."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["BINS_PER_OCTAVE", "N_BINS", "Durations", "bin_of", "edge_s"]

BINS_PER_OCTAVE = 8
"""The number of bins from a time to its double: a bin is 9 % wide, so that a quantile is known to 5 %."""
FIRST_OCTAVE, LAST_OCTAVE = -20, 10
"""The ends of the histogram, as powers of two of a second: a microsecond and a quarter of an hour."""
N_BINS = (LAST_OCTAVE - FIRST_OCTAVE) * BINS_PER_OCTAVE + 2
"""The number of bins, with one more on either side for shorter and longer times."""


def bin_of(seconds: float) -> int:
    """Return the number of the bin that a duration falls into."""
    if seconds < 2.0**FIRST_OCTAVE:
        return 0
    return min(math.floor((math.log2(seconds) - FIRST_OCTAVE) * BINS_PER_OCTAVE) + 1, N_BINS - 1)


def edge_s(number: int) -> float:
    """Return the upper edge of a bin in seconds; infinity for the last bin."""
    if number >= N_BINS - 1:
        return math.inf
    return float(2.0 ** (FIRST_OCTAVE + number / BINS_PER_OCTAVE))


@dataclass(frozen=True, slots=True)
class Durations:
    """A histogram of durations.

    Parameters
    ----------
    counts
        Number of durations in each bin, (N_BINS,).
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
        """Return the lower order statistic at ``q`` in [0, 1], in seconds, to 5 %.

        It is 0 without durations, and below a microsecond.
        """
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
        """Return upper edges in seconds and the counts up to them, octave by octave; the last edge is infinite."""
        upto, total = [], 0
        for number, count in enumerate(self.counts):
            total += count
            if number % BINS_PER_OCTAVE == 0 or number == N_BINS - 1:
                upto.append((edge_s(number), total))
        return tuple(upto)
