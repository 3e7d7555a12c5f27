"""Mergeable statistics of pixels.

Everything is computed from stored values in float64. Merging is exact for counts, bounds and histograms, and exact to
float64 rounding for mean and m2 (Chan, Golub, LeVeque 1979). NaN and the infinities are never values: they are counted as
not valid, and no statistic is made of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import reduce

import numpy as np
import numpy.typing as npt

__all__ = ["N_BINS", "QUANTILES", "BandStats", "bin_edges", "merge_all"]

QUANTILES: tuple[tuple[str, float], ...] = (
    ("p02", 0.02),
    ("p25", 0.25),
    ("p50", 0.50),
    ("p75", 0.75),
    ("p98", 0.98),
)
"""The names and probabilities of the quantiles of a sample;
lower order statistics, so each is a stored value."""

N_BINS = 2048
_BIN_SHIFT = 5
_INFINITY_BITS = 0x7C00


def bin_edges() -> npt.NDArray[np.float64]:
    """Lower edges of the histogram bins, (N_BINS,) float64, ascending; the first is -inf.

    One set of edges for every band ever stored, so that any two histograms merge: the float16 numbers at every 32nd
    step of their order, i.e. 32 bins an octave, 3.1 % wide at most. Bin ``i`` holds values in ``[edge[i], edge[i+1])``.
    """
    ordered = (np.arange(N_BINS, dtype=np.int64) - N_BINS // 2) << _BIN_SHIFT
    magnitude = np.minimum(np.abs(ordered), _INFINITY_BITS).astype(np.uint16).view(np.float16)
    edges: npt.NDArray[np.float64] = np.copysign(magnitude.astype(np.float64), ordered)
    edges[0] = -np.inf
    return edges


@dataclass(frozen=True, slots=True, eq=False)
class BandStats:
    """The statistics of one band over any set of pixels; a commutative monoid under :meth:`merge`.

    Parameters
    ----------
    count
        Pixels, valid or not.
    valid
        Pixels that are finite.
    min, max
        Bounds of the valid pixels; +inf, -inf where there are none.
    mean
        Mean of the valid pixels; 0 where there are none.
    m2
        Sum of squared differences from the mean; infinite where it is beyond the range of float64.
    histogram
        (N_BINS,) int64 over :func:`bin_edges`; zeros where it was not kept.
    """

    count: int = 0
    valid: int = 0
    min: float = math.inf
    max: float = -math.inf
    mean: float = 0.0
    m2: float = 0.0
    histogram: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(N_BINS, np.int64))

    @property
    def std(self) -> float:
        """The population standard deviation; NaN where there is no valid pixel."""
        return math.sqrt(self.m2 / self.valid) if self.valid else math.nan

    def merge(self, other: BandStats) -> BandStats:
        """Return the statistics of both sets of pixels together. Pure."""
        valid = self.valid + other.valid
        share = other.valid / valid if valid else 0.0
        delta = other.mean - self.mean
        between = (
            self.mean + delta * share
            if math.isfinite(delta)
            else self.mean * (1 - share) + other.mean * share
        )
        return BandStats(
            count=self.count + other.count,
            valid=valid,
            min=min(self.min, other.min),
            max=max(self.max, other.max),
            mean=between if self.valid else other.mean,
            m2=self.m2 + other.m2 + delta * delta * self.valid * share if self.valid else other.m2,
            histogram=self.histogram + other.histogram,
        )


def merge_all(parts: Iterable[BandStats]) -> BandStats:
    """Merge the statistics of many sets of pixels, by :meth:`BandStats.merge`; without any, the empty statistics."""
    return reduce(BandStats.merge, parts, BandStats())
