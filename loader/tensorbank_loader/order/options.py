"""The options of a loader that decide the order of its samples, as one value."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tensorbank.arguments import choice, flag, whole_number
from tensorbank.errors import InvalidInputError

__all__ = ["Even", "OrderOptions", "Shuffle", "Times", "as_numbers"]

Shuffle = Literal["full", "window"] | bool | None
"""A kind of shuffling. ``"full"``: a uniform permutation. ``"window"``: as well mixed, read in larger
pieces. True: the one that suits the plan. None or False: none."""

Even = Literal["exact", "pad", "drop"]
"""A treatment of global batches that the ranks cannot share equally."""

Times = int | Sequence[int]
"""The dates of each sample: a number of dates drawn at random, or these dates, counted from 0."""

MAX_DRAWS = 1 << 40
"""The largest number of draws in an epoch: places times shares of sources fit 63 bits."""


@dataclass(frozen=True, slots=True)
class OrderOptions:
    """The options that decide which samples stand in which batch, with the defaults of the loaders.

    :class:`tensorbank_loader.DataLoader` takes them as keywords of the same names and describes them for users.

    Parameters
    ----------
    seed
        Seed of the order, not negative. None: a mix's own, else 0.
    shuffle
        Kind of shuffling.
    replacement
        True if an epoch may hold a sample of a plan with weights several times. None: True for plans with weights.
    n_draws
        Samples in an epoch of a plan with weights. None: as many as the plan has, or without replacement as many as have a
        positive weight.
    drop_last
        True to leave out the last global batch if it is shorter.
    even
        Treatment of a global batch that the ranks cannot share equally.
    times
        Dates of a sample that are read: so many, or these, counted from 0. None: all.

    Raises
    ------
    InvalidInputError
        An option is of another type, or out of its range. The orders refuse what does not go together with their plan.
    """

    seed: int | None = None
    shuffle: Shuffle = True
    replacement: bool | None = None
    n_draws: int | None = None
    drop_last: bool = False
    even: Even = "exact"
    times: int | tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        flag("drop_last", self.drop_last)
        if self.seed is not None:
            object.__setattr__(self, "seed", whole_number("seed", self.seed, at_least=0))
        choice("shuffle", self.shuffle, (True, False, "full", "window", None))
        choice("replacement", self.replacement, (True, False, None))
        if self.n_draws is not None:
            n_draws = whole_number("n_draws", self.n_draws, at_least=1, at_most=MAX_DRAWS)
            object.__setattr__(self, "n_draws", n_draws)
        choice("even", self.even, ("exact", "pad", "drop"))


def as_numbers(times: Times | None) -> int | tuple[int, ...] | None:
    """Return the keyword ``times`` of a loader as a value of :class:`OrderOptions`.

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
