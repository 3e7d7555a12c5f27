"""Budgets of tokens: how many of each modality a masked model sees and predicts of a sample. Values with arithmetic.

As in 4M (Mizrahi et al., "4M: Massively Multimodal Masked Modeling", 2023, section 3.2), by which TerraMind is pretrained: the
shares of modalities are drawn from a mixture of Dirichlet distributions, of input and of target tokens each. Counts differ from
4M's in that they always add up: 4M rounds down, gives the rest to the largest shares of further draws, and draws again where a
minimum is missed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tensorbank.arguments import whole_number
from tensorbank.errors import InvalidInputError
from tensorbank.plans import Plan
from tensorbank_loader.budgets.dirichlet import allotted, dirichlet, keyed_seed
from tensorbank_loader.order.permutation import uniform

__all__ = ["BudgetDraws", "DrawnBudget", "ModalityTokens", "TokenBudget"]

Int64 = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
PATCHES = 196
"""The tokens of an image of 224 pixels in patches of 16."""
_COMPONENT, _INPUT, _TARGET, _KEY = 7, 8, 9, 10
"""The purposes of draws; :mod:`tensorbank_loader.order` has smaller numbers."""


@dataclass(frozen=True, slots=True)
class ModalityTokens:
    """The tokens of one modality in a budget.

    Parameters
    ----------
    name
        Name of the modality in the plan.
    n_tokens
        Tokens of a sample; inputs and targets together are no more, since none is both.
    input_alphas, target_alphas
        Concentrations of the Dirichlet distributions, one for each component of the mixture, or a number if there is one. 0:
        never. Pixels, which a model cannot predict, have target alphas of 0.
    min_input, min_target
        The fewest tokens of a sample that has the modality.
    max_input, max_target
        The most; None: ``n_tokens``.
    """

    name: str
    n_tokens: int = PATCHES
    input_alphas: float | tuple[float, ...] = (1.0,)
    target_alphas: float | tuple[float, ...] = (1.0,)
    min_input: int = 0
    min_target: int = 0
    max_input: int | None = None
    max_target: int | None = None

    def __post_init__(self) -> None:
        whole_number(f"n_tokens of {self.name}", self.n_tokens, at_least=1)
        for what in ("min_input", "min_target", "max_input", "max_target"):
            value = getattr(self, what)
            if value is None:
                object.__setattr__(self, what, self.n_tokens)
            else:
                whole_number(f"{what} of {self.name}", value, at_least=0, at_most=self.n_tokens)
        for what in ("input_alphas", "target_alphas"):
            alphas = getattr(self, what)
            given = _several(alphas)
            if not given or not all(math.isfinite(a) and a >= 0 for a in given):
                raise InvalidInputError(
                    f"{what} of {self.name} is {alphas!r}; give numbers from 0 on, one a component"
                )
            object.__setattr__(self, what, given)


@dataclass(frozen=True, slots=True)
class TokenBudget:
    """A budget of input and target tokens of each sample.

    Parameters
    ----------
    modalities
        Modalities that share the tokens. Others of the plan are read as ever.
    n_input, n_target
        Tokens of a sample that a model sees, and that it predicts.
    weights
        Weights of the components of the mixture; None: equal ones.

    Raises
    ------
    InvalidInputError
        A modality comes twice, numbers of components differ, or the minima and maxima of a component cannot be met.
    """

    modalities: tuple[ModalityTokens, ...]
    n_input: int = 128
    n_target: int = 128
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "modalities", tuple(self.modalities))
        names = [m.name for m in self.modalities]
        if not names or len({*names}) != len(names):
            raise InvalidInputError(f"a budget has modalities, each once; got {names}")
        whole_number("n_input", self.n_input, at_least=1)
        whole_number("n_target", self.n_target, at_least=0)
        counts = {len(_several(a)) for m in self.modalities for a in (m.input_alphas, m.target_alphas)}
        if len(counts) != 1:
            raise InvalidInputError(
                f"all alphas of a budget have one number a component of the mixture, got {sorted(counts)}"
            )
        (n,) = counts
        weights = (1.0,) * n if self.weights is None else tuple(map(float, self.weights))
        if len(weights) != n or not all(math.isfinite(w) and w >= 0 for w in weights) or not sum(weights) > 0:
            raise InvalidInputError(f"weights is {self.weights!r}; give {n} numbers from 0 on, some above 0")
        object.__setattr__(self, "weights", weights)
        for component in range(n):
            self._check(component, "input", self.n_input)
            self._check(component, "target", self.n_target)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the modalities."""
        return tuple(m.name for m in self.modalities)

    @property
    def digest(self) -> str:
        """The first 16 hexadecimal digits of a hash of all numbers, for states: another budget makes other batches."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def alphas(self, which: str) -> Floats:
        """Return the alphas of input or target tokens, (components, modalities)."""
        return np.array([getattr(m, f"{which}_alphas") for m in self.modalities], np.float64).T

    def bounds(self, which: str) -> tuple[Int64, Int64]:
        """Return the fewest and the most tokens of each modality, (modalities,) each."""
        return (
            np.array([getattr(m, f"min_{which}") for m in self.modalities], np.int64),
            np.array([getattr(m, f"max_{which}") for m in self.modalities], np.int64),
        )

    def _check(self, component: int, which: str, n: int) -> None:
        open_ = self.alphas(which)[component] > 0
        fewest, most = self.bounds(which)
        if n and not int(most[open_].sum()) >= n:
            raise InvalidInputError(
                f"component {component} has {n} {which} tokens, and room for {int(most[open_].sum())} in the modalities whose "
                "alpha is above 0; lower the number, or raise an alpha or a maximum"
            )
        if (lacking := [m for m, o, k in zip(self.names, open_, fewest, strict=True) if k and not o]) and n:
            raise InvalidInputError(
                f"component {component} asks for {which} tokens of {', '.join(lacking)}, whose alpha is 0"
            )
        if int(fewest.sum()) > n:
            raise InvalidInputError(
                f"the fewest {which} tokens of all modalities are {int(fewest.sum())} together, more than {n}; lower a minimum"
            )


@dataclass(frozen=True, slots=True)
class DrawnBudget:
    """The budgets of some samples.

    Parameters
    ----------
    names
        Names of the modalities.
    inputs, targets
        (n, modalities) int64, numbers of tokens. Of a modality that a sample lacks both are 0.
    keys
        (n,) int64, not negative: a random number for each sample, by which masks and crops are drawn.
    """

    names: tuple[str, ...]
    inputs: Int64
    targets: Int64
    keys: Int64

    @property
    def wanted(self) -> dict[str, Bools]:
        """The samples whose tokens of a modality are used at all, (n,) bool by name: the others' need no read."""
        used = (self.inputs + self.targets) > 0
        return {name: used[:, number] for number, name in enumerate(self.names)}


@dataclass(frozen=True, slots=True)
class BudgetDraws:
    """The draws of a budget for the samples of one plan: a function of seed, epoch and position in the plan, so that every rank,
    worker and resumed run draws the same.

    Parameters
    ----------
    budget
        Budget that is drawn.
    seed
        Seed of the order.
    there
        (len(plan), modalities) bool: which samples have which modality.
    """

    budget: TokenBudget
    seed: int
    there: Bools = field(compare=False, repr=False)

    @classmethod
    def of(cls, plan: Plan, budget: TokenBudget, seed: int) -> BudgetDraws:
        """Return the draws for a plan's samples.

        Raises
        ------
        InvalidInputError
            The plan lacks a modality of the budget.
        """
        selected = [h.name for h in plan.handles]
        if missing := [name for name in budget.names if name not in selected]:
            raise InvalidInputError(
                f"the budget has tokens of {', '.join(missing)}, and the plan selects {', '.join(selected) or 'no modality'}; "
                "select them, or leave them out of the budget"
            )
        there = np.stack([plan.addresses[name].shard_of >= 0 for name in budget.names], axis=1)
        return cls(budget, seed, there)

    def draw(self, positions: Int64, *, epoch: int) -> DrawnBudget:
        """Draw the budgets of the samples at some positions, (n,) int64.

        Input tokens are drawn first. Targets find room where the sample has tokens of a modality that are no input: where that
        is too little for ``n_target``, there are fewer of them. A sample that lacks modalities has its tokens of the others.
        """
        budget = self.budget
        places = np.asarray(positions, np.int64)
        component = self._component(places, epoch)
        tokens = np.array([m.n_tokens for m in budget.modalities], np.int64)
        there = self.there[places]
        inputs = self._counts("input", budget.n_input, there, tokens[None], component, places, epoch)
        targets = self._counts("target", budget.n_target, there, tokens - inputs, component, places, epoch)
        keys = uniform(places, seed=keyed_seed(self.seed, _KEY), epoch=epoch) * 2.0**53
        return DrawnBudget(budget.names, inputs, targets, keys.astype(np.int64))

    def _component(self, places: Int64, epoch: int) -> Int64:
        """Return the component of the mixture that each sample is drawn from, (n,)."""
        ends = np.cumsum(self.budget.weights or (1.0,))
        u = uniform(places, seed=keyed_seed(self.seed, _COMPONENT), epoch=epoch) * ends[-1]
        found: Int64 = np.minimum(np.searchsorted(ends, u, side="right"), len(ends) - 1)
        return found

    def _counts(
        self, which: str, n: int, there: Bools, room: Int64, component: Int64, places: Int64, epoch: int
    ) -> Int64:
        fewest, most = self.budget.bounds(which)
        alphas = np.where(there, self.budget.alphas(which)[component], 0.0)
        room = np.minimum(room, most)
        least = np.where(alphas > 0, np.minimum(fewest, room), 0)
        seed = keyed_seed(self.seed, _INPUT if which == "input" else _TARGET)
        shares = dirichlet(alphas, places, seed=seed, epoch=epoch)
        left = n - least.sum(axis=1)
        more = allotted(left, shares, room - least, places, seed=keyed_seed(seed, 1), epoch=epoch)
        counts: Int64 = least + more
        return counts


def _several(alphas: float | tuple[float, ...]) -> tuple[float, ...]:
    return (float(alphas),) if isinstance(alphas, int | float) else tuple(map(float, alphas))


def as_columns(drawn: DrawnBudget) -> Mapping[str, Any]:
    """Return drawn budgets by the names that a batch has for them: numbers by modality, and the keys."""
    return {
        "input_tokens": {name: drawn.inputs[:, i] for i, name in enumerate(drawn.names)},
        "target_tokens": {name: drawn.targets[:, i] for i, name in enumerate(drawn.names)},
        "draw_key": drawn.keys,
    }
