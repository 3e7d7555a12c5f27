"""The choice of the dates of a sample that are read. Values with arithmetic.

Dates are drawn by a counter-based generator from seed, epoch and position in the plan. So every process draws the same dates of
a sample in an epoch, and others in the next epoch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tensorbank.errors import InvalidInputError
from tensorbank.plans import Plan
from tensorbank_loader.order.permutation import uniform

__all__ = ["DateChoice", "draw_dates"]

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class DateChoice:
    """A choice of dates from samples of several dates.

    Parameters
    ----------
    n_dates
        Dates of a sample in the table.
    times
        Number of dates that are drawn of each sample, or the dates that are read of all samples, in their order.
    seed
        Seed of the draws.
    there
        (len(plan),) int16: number of dates that all modalities of a sample have. None: all samples have ``n_dates``.
    """

    n_dates: int
    times: int | tuple[int, ...]
    seed: int
    there: npt.NDArray[np.int16] | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, plan: Plan, times: int | tuple[int, ...], seed: int) -> DateChoice:
        """Return a choice among the dates of a plan's samples.

        Raises
        ------
        InvalidInputError
            The plan has no addresses of single dates, or no modality with several; its modalities have different numbers of
            dates; ``times`` asks for dates that samples do not have, for none, or for one twice.
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
        """Return the dates that are read of the samples at some positions, (m, n_chosen) int64 in ``[0, n_dates)``.

        Drawn dates are ascending, and are dates that the sample has as long as it has enough. Listed dates are as listed.
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
    """Draw ``k`` of ``n`` dates for each position, with equal chances for all choices.

    Parameters
    ----------
    positions
        (m,) int64, not negative.
    n, k
        ``1 <= k <= n``.
    seed, epoch
        Two numbers, not negative; together the key.
    there
        (m,): number of a sample's first dates that are drawn from. Where it is less than ``k``, the next dates are added.

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
    """Return the number of dates that all modalities with several dates have of each sample, (n,) int16; None: all have all.

    A modality that a sample lacks altogether does not count.
    """
    short = [(h, n) for h in plan.handles if (n := plan.addresses[h.name].n_times) is not None]
    if not short:
        return None
    found = [np.where(n > 0, n, np.int16(h.n_times)) for h, n in short]
    there: npt.NDArray[np.int16] = np.minimum.reduce(found)
    return there


def _seed_of_dates(seed: int) -> int:
    """Return a seed for the choice of dates, so that it is independent of the order and of weighted draws.

    All three use the generator with an epoch and small numbers, which would be the same random numbers under one seed.
    """
    return int(np.random.SeedSequence([seed, 3]).generate_state(1, np.uint64)[0])
