"""The order of one plan: the plan's own, a permutation, windows, or draws by weights, as the options say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tensorbank.errors import InvalidInputError
from tensorbank.plans import Plan
from tensorbank_loader.order.options import OrderOptions
from tensorbank_loader.order.permutation import permute
from tensorbank_loader.order.sample_order import Int64, PlanOrder, SampleOrder
from tensorbank_loader.order.weighted_order import WeightedDraws, WeightedOnce
from tensorbank_loader.order.window_order import Windowed, shares_blocks

__all__ = ["AsPlanned", "Permuted", "order_of_plan"]


@dataclass(frozen=True, slots=True)
class AsPlanned(PlanOrder):
    """The order of the plan itself."""

    n_places: int

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"shuffle": None}

    def positions(self, places: Int64, *, seed: int, epoch: int) -> Int64:  # noqa: ARG002 - nothing is drawn
        return places


@dataclass(frozen=True, slots=True)
class Permuted(PlanOrder):
    """A fresh uniform permutation each epoch, in O(1) memory."""

    n_places: int

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"shuffle": "full"}

    def positions(self, places: Int64, *, seed: int, epoch: int) -> Int64:
        return permute(places, self.n_places, seed=seed, epoch=epoch)


def order_of_plan(plan: Plan, options: OrderOptions, global_batch_size: int) -> SampleOrder:
    """Return the order of a plan that a loader's options ask for.

    A plan with weights is drawn from, which is a kind of shuffling.

    Raises
    ------
    InvalidInputError
        The options ask for draws from a plan without weights, for another kind of shuffling of a plan with weights, or for
        more draws than there are.
    """
    weights = plan.weights
    if weights is not None:
        return _weighted_order(weights, options)
    if options.replacement is not None or options.n_draws is not None:
        raise InvalidInputError(
            "replacement and n_draws are for plans with sampling weights; give the query a column named weight"
        )
    if options.shuffle == "window" or (options.shuffle is True and shares_blocks(plan)):
        return Windowed.of(plan, global_batch_size)
    return Permuted(len(plan)) if options.shuffle else AsPlanned(len(plan))


def _weighted_order(weights: npt.NDArray[np.float64], options: OrderOptions) -> SampleOrder:
    """Return the order of a plan with weights, (n,) float64."""
    n, n_draws = len(weights), options.n_draws
    if options.shuffle not in ("full", True):
        raise InvalidInputError(
            f"a plan with sampling weights is drawn at random, which rules out shuffle={options.shuffle!r}; "
            "leave shuffle at True, or rename the column weight"
        )
    if not n:
        if n_draws is not None:
            raise InvalidInputError(f"n_draws is {n_draws}, but the plan selects no sample to draw from")
        return AsPlanned(0)
    if options.replacement is None or options.replacement:
        return WeightedDraws(n if n_draws is None else n_draws, weights)
    n_possible = int(np.count_nonzero(weights))
    if n_draws is not None and n_draws > n_possible:
        raise InvalidInputError(
            f"n_draws is {n_draws}, but without replacement only {n_possible} samples have a weight above 0"
        )
    return WeightedOnce(n_possible if n_draws is None else n_draws, weights)
