"""Choose the dates of a sample that are read. Pure arithmetic but for the value that holds a choice.

Dates are drawn by a counter-based generator from seed, epoch and position in the plan: whoever reads a sample, and whenever, on
whatever hardware, draws the same, and another draw each epoch.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tensorbank.errors import InvalidInputError
from tensorbank.plans import Plan
from tensorbank_loader.order.permutation import uniform

__all__ = ["DateChoice", "Times", "as_numbers", "draw_dates"]

Int64 = npt.NDArray[np.int64]
Times = int | Sequence[int]
"""The dates of each sample: a number of dates drawn at random, or these dates, counted from 0."""


@dataclass(frozen=True, slots=True)
class DateChoice:
    """The choice of dates from samples of ``n_dates`` dates:
    ``times`` of them, or the dates that ``times`` lists.

    ``there``, (len(plan),) int16, has the number of dates that all modalities of a sample have; None: all have all.
    """

    n_dates: int
    times: int | tuple[int, ...]
    seed: int
    there: npt.NDArray[np.int16] | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, plan: Plan, times: int | tuple[int, ...], seed: int) -> DateChoice:
        """A choice among the dates of a plan's samples.

        Raises
        ------
        InvalidInputError
            The plan does not address dates alone, or has none to choose from; its modalities have different numbers of dates;
            ``times`` asks for dates that are not there, for none or for one twice.
        """
        several = {h.name: h.n_times for h in plan.handles if h.n_times > 1}
        if not several:
            raise InvalidInputError("times chooses dates, and no selected modality has several; leave it out")
        if len(set(several.values())) > 1:
            raise InvalidInputError(
                f"times chooses the same dates for all modalities, and they have different numbers of them: {several}; "
                "select those of one number"
            )
        if not all(h.by_date for h in plan.handles if h.n_times > 1):
            raise InvalidInputError(
                "this plan has no addresses of single dates, which times needs; plan with query.plan(by_date=True)"
            )
        (n_dates,) = set(several.values())
        listed = range(times) if isinstance(times, int) else times
        if not listed or len(set(listed)) != len(listed) or not all(0 <= t < n_dates for t in listed):
            raise InvalidInputError(
                f"times is {times!r}; of {n_dates} dates, a number from 1 to {n_dates} is possible, "
                f"or a list of different ones in [0, {n_dates})"
            )
        return cls(n_dates, times, seed, _dates_there(plan))

    @property
    def n_chosen(self) -> int:
        """The number of dates of a sample as delivered."""
        return self.times if isinstance(self.times, int) else len(self.times)

    def dates(self, positions: Int64, *, epoch: int) -> Int64:
        """Return the dates of the samples at some positions, (m, n_chosen) int64 in ``[0, n_dates)``:
        ascending if drawn, else as listed.

        Drawn are dates that the sample has, as long as it has enough.
        """
        if isinstance(self.times, int):
            there = None if self.there is None else self.there[positions]
            return draw_dates(positions, self.n_dates, self.times, seed=self.seed, epoch=epoch, there=there)
        return np.tile(np.array(self.times, np.int64), (len(positions), 1))


def draw_dates(
    positions: Int64,
    n: int,
    k: int,
    *,
    seed: int,
    epoch: int,
    there: npt.NDArray[np.integer[Any]] | None = None,
) -> Int64:
    """Draw ``k`` of ``n`` dates for each position, all choices equally likely.

    Parameters
    ----------
    positions
        (m,) int64, not negative.
    n, k
        ``1 <= k <= n``.
    seed, epoch
        Two numbers, not negative; together the key.
    there
        (m,): only the first so many of a sample's are drawn, and the next ones where they are fewer than ``k``.

    Returns
    -------
    (m, k) int64 in ``[0, n)``, ascending in each row.
    """
    counters = np.asarray(positions, np.int64)[:, None] * n + np.arange(n)
    keys = uniform(counters.reshape(-1), seed=_seed_of_dates(seed), epoch=epoch).reshape(-1, n)
    if there is not None:
        beyond = np.arange(n) - np.asarray(there, np.int64)[:, None]
        keys = np.where(beyond < 0, keys, 1.0 + beyond)
    chosen: Int64 = np.sort(np.argsort(keys, axis=1)[:, :k], axis=1).astype(np.int64)
    return chosen


def _dates_there(plan: Plan) -> npt.NDArray[np.int16] | None:
    """Return the number of dates that all modalities with several have of each sample, (n,);
    a modality that a sample lacks altogether does not count."""
    short = [(h, n) for h in plan.handles if (n := plan.addresses[h.name].n_times) is not None]
    if not short:
        return None
    found = [np.where(n > 0, n, np.int16(h.n_times)) for h, n in short]
    there: npt.NDArray[np.int16] = np.minimum.reduce(found)
    return there


def as_numbers(times: Times | None) -> int | tuple[int, ...] | None:
    """The option as a value.

    Raises
    ------
    InvalidInputError
        It is neither a number nor a list of numbers.
    """
    if times is None:
        return None
    try:
        return tuple(map(operator.index, times)) if isinstance(times, Sequence) else operator.index(times)
    except TypeError as error:
        raise InvalidInputError(f"times is {times!r}; give a number of dates, or a list of them") from error


def _seed_of_dates(seed: int) -> int:
    """Return a seed of its own, so that the choice of dates is independent of the order and of
    weighted draws, which count through places alike."""
    return int(np.random.SeedSequence([seed, 3]).generate_state(1, np.uint64)[0])
