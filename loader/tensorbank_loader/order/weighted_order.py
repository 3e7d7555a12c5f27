"""Orders of a plan with sampling weights: draws with and without replacement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from tensorbank_loader.order.permutation import uniform
from tensorbank_loader.order.sample_order import Int64, PlanOrder

__all__ = ["WeightedDraws", "WeightedOnce"]

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class WeightedDraws(PlanOrder):
    """An order of independent draws with replacement: sample ``i`` has probability ``weights[i] / sum(weights)``.

    Parameters
    ----------
    n_places
        Draws in an epoch.
    weights
        (n,) float64, finite and not negative, not all 0.
    """

    n_places: int
    weights: Float64 = field(repr=False)

    @property
    def has_each_once(self) -> bool:
        return False

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"shuffle": "weighted", "replacement": True, "n_places": self.n_places}

    def positions(self, places: Int64, *, seed: int, epoch: int) -> Int64:
        drawn = uniform(places, seed=seed, epoch=epoch) * self._cumulative[-1]
        found = np.searchsorted(self._cumulative, drawn, side="right")
        positions: Int64 = np.minimum(found, self._last).astype(np.int64)
        return positions

    @cached_property
    def _cumulative(self) -> Float64:
        total: Float64 = np.cumsum(_scaled(self.weights))
        return total

    @cached_property
    def _last(self) -> int:
        """The last sample that can be drawn: a product may be rounded up to the sum."""
        return int(np.flatnonzero(self.weights)[-1])


@dataclass(frozen=True, eq=False)
class WeightedOnce(PlanOrder):
    """An order of draws without replacement: heavier samples tend to come, and to come earlier.

    Samples of weight 0 never come. Each other sample has the key ``-log(u) / weight`` with ``u`` uniform in (0, 1], and the
    samples with the smallest keys come in the order of their keys (Efraimidis and Spirakis, "Weighted random sampling with a
    reservoir", 2006). The keys are sorted once an epoch.

    Parameters
    ----------
    n_places
        Draws in an epoch, at most the number of positive weights.
    weights
        (n,) float64, finite and not negative.
    """

    n_places: int
    weights: Float64 = field(repr=False)
    _sorted: dict[tuple[int, int], Int64] = field(default_factory=dict, init=False, repr=False)

    @property
    def has_each_once(self) -> bool:
        return False

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"shuffle": "weighted", "replacement": False, "n_places": self.n_places}

    def positions(self, places: Int64, *, seed: int, epoch: int) -> Int64:
        if (seed, epoch) not in self._sorted:
            possible = np.flatnonzero(self.weights)
            with np.errstate(
                divide="ignore"
            ):  # u = 1 has the logarithm 0, whose own is -inf: the smallest key of all
                keys = np.log(-np.log1p(-uniform(possible, seed=seed, epoch=epoch)))
            keys -= np.log(self.weights[possible])  # logarithms of the keys, since quotients overflow
            self._sorted.clear()
            self._sorted[seed, epoch] = possible[np.argsort(keys, kind="stable")][: self.n_places]
        found: Int64 = self._sorted[seed, epoch][places]
        return found


def _scaled(weights: Float64) -> Float64:
    """Scale the weights by a power of two, which keeps their ratios, so that no sum overflows or vanishes."""
    _, exponent = np.frexp(weights.max(initial=0.0))
    scaled: Float64 = np.ldexp(weights, -exponent)
    return scaled
