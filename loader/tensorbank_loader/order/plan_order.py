"""Orders of an epoch: which position of a plan stands at each place. Values with arithmetic; the same in every process.

An epoch has ``n_places`` places, cut into global batches by :mod:`tensorbank_loader.epochs.epoch`. An order maps
places to positions of the plan, keyed by seed and epoch, and knows neither ranks nor workers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from tensorbank.arguments import choice, whole_number
from tensorbank.errors import InvalidInputError
from tensorbank.plans import Plan
from tensorbank_loader.order.permutation import permute, uniform
from tensorbank_loader.order.window_order import Windowed, shares_blocks

__all__ = ["AsPlanned", "Order", "Permuted", "Shuffle", "WeightedDraws", "WeightedOnce", "order_of"]

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
Shuffle = Literal["full", "window"] | bool | None
"""The kind of shuffling. ``"full"``: a uniform permutation. ``"window"``: as well mixed, read in larger
pieces. True: the one that suits the plan. None or False: none."""


MAX_DRAWS = 1 << 40
"""The most places of an epoch of draws: places times shares of sources fit 63 bits."""


class Order(Protocol):
    """An order of the samples on an epoch's places."""

    @property
    def n_places(self) -> int:
        """The number of places in an epoch."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Return what a saved state must agree on, as JSON-able values."""

    @property
    def n_together(self) -> int:
        """The number of global batches that are best read together, counted from the first of an epoch."""

    def of_batches(self, global_batch_size: int) -> Order:
        """Return the same order for global batches of another size."""

    def positions(self, places: Int64, *, seed: int, epoch: int) -> Int64:
        """Return the positions in the plan, (m,) int64, of places, (m,) int64 in ``[0, n_places)``."""


class _AnyBatches:
    """An order that batches of any size are cut from."""

    __slots__ = ()
    n_together = 1

    def of_batches(self, global_batch_size: int) -> Any:  # noqa: ARG002
        return self


@dataclass(frozen=True, slots=True)
class AsPlanned(_AnyBatches):
    """The order of the plan."""

    n_places: int

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"shuffle": None}

    def positions(self, places: Int64, *, seed: int, epoch: int) -> Int64:  # noqa: ARG002
        return places


@dataclass(frozen=True, slots=True)
class Permuted(_AnyBatches):
    """A fresh uniform permutation each epoch, in O(1) memory."""

    n_places: int

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"shuffle": "full"}

    def positions(self, places: Int64, *, seed: int, epoch: int) -> Int64:
        return permute(places, self.n_places, seed=seed, epoch=epoch)


@dataclass(frozen=True, eq=False)
class WeightedDraws(_AnyBatches):
    """An order of independent draws with replacement:
    sample ``i`` comes with probability ``weights[i] / sum(weights)``.

    Parameters
    ----------
    n_places
        Draws an epoch.
    weights
        (n,) float64, finite and not negative, not all 0.
    """

    n_places: int
    weights: Float64 = field(repr=False)

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
class WeightedOnce(_AnyBatches):
    """An order of draws without replacement: heavier samples tend to come, and to come earlier;
    samples of weight 0 never do.

    Each sample has the key ``-log(u) / weight`` with ``u`` uniform in (0, 1]; the smallest keys are drawn, in their order
    (Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006). The keys are sorted once an epoch.
    """

    n_places: int
    weights: Float64 = field(repr=False)
    _sorted: dict[tuple[int, int], Int64] = field(default_factory=dict, init=False, repr=False)

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"shuffle": "weighted", "replacement": False, "n_places": self.n_places}

    def positions(self, places: Int64, *, seed: int, epoch: int) -> Int64:
        if (seed, epoch) not in self._sorted:
            possible = np.flatnonzero(self.weights)
            with np.errstate(divide="ignore"):  # the logarithm of 0 is the smallest key of all
                keys = np.log(-np.log1p(-uniform(possible, seed=seed, epoch=epoch)))
            keys -= np.log(self.weights[possible])  # logarithms, as quotients overflow
            self._sorted.clear()
            self._sorted[seed, epoch] = possible[np.argsort(keys, kind="stable")][: self.n_places]
        found: Int64 = self._sorted[seed, epoch][places]
        return found


def _scaled(weights: Float64) -> Float64:
    """Scale the weights by a power of two, which changes none of their ratios,
    so that no sum overflows or vanishes."""
    _, exponent = np.frexp(weights.max(initial=0.0))
    scaled: Float64 = np.ldexp(weights, -exponent)
    return scaled


def order_of(
    plan: Plan,
    *,
    shuffle: Shuffle,
    replacement: bool | None = None,
    n_draws: int | None = None,
    global_batch_size: int,
) -> Order:
    """The order that a loader's options ask for.

    Parameters
    ----------
    shuffle
        A fresh order each epoch, and which kind. A plan with weights is drawn from, which is one.
    replacement
        True if a plan with weights may give one sample several times an epoch; yes if None.
    n_draws
        Length of an epoch of a plan with weights: the plan's if None, or without replacement the number of positive weights.
    global_batch_size
        Samples of all ranks together.

    Raises
    ------
    InvalidInputError
        There is no such order; the options ask for draws from a plan without weights, or for more than there are.
    """
    choice("shuffle", shuffle, (True, False, "full", "window", None))
    choice("replacement", replacement, (True, False, None))
    weights = plan.weights
    if weights is None:
        if replacement is not None or n_draws is not None:
            raise InvalidInputError(
                "replacement and n_draws are for plans with sampling weights; give the query a column named weight"
            )
        if shuffle == "window" or (shuffle is True and shares_blocks(plan)):
            return Windowed.of(plan, global_batch_size)
        return Permuted(len(plan)) if shuffle else AsPlanned(len(plan))
    if shuffle not in ("full", True):
        raise InvalidInputError(
            f"a plan with sampling weights is drawn from, which shuffle={shuffle!r} does not go with; "
            "leave shuffle at True, or rename the column weight"
        )
    if n_draws is not None:
        n_draws = whole_number("n_draws", n_draws, at_least=1, at_most=MAX_DRAWS)
    if not len(plan):
        if n_draws is not None:
            raise InvalidInputError(f"n_draws is {n_draws}, but the plan selects no sample to draw from")
        return AsPlanned(0)
    if replacement is None or replacement:
        return WeightedDraws(len(plan) if n_draws is None else n_draws, weights)
    possible = int(np.count_nonzero(weights))
    if n_draws is not None and n_draws > possible:
        raise InvalidInputError(
            f"n_draws is {n_draws}, but without replacement only {possible} samples have a weight above 0"
        )
    return WeightedOnce(possible if n_draws is None else n_draws, weights)
