"""Arguments of callers, checked: each is returned as the type that it is used as, or refused by its name."""

from __future__ import annotations

import math
import numbers
import operator
from typing import Any

from tensorbank.errors import InvalidInputError

__all__ = ["number", "whole_number"]


def whole_number(name: str, value: Any, *, at_least: int | None = None, at_most: int | None = None) -> int:
    """Return a whole number; numpy's integers are some, booleans and floats are not.

    Raises
    ------
    InvalidInputError
        It is none, or not within its bounds; the message names the argument.
    """
    bounds = f" of at least {at_least}" if at_least is not None else ""
    bounds += f"{' and' if bounds else ' of'} at most {at_most}" if at_most is not None else ""
    try:
        found = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        found = None
    low = at_least is not None and found is not None and found < at_least
    high = at_most is not None and found is not None and found > at_most
    if found is None or low or high:
        raise InvalidInputError(f"{name} is {value!r}; it must be a whole number{bounds}")
    return found


def number(name: str, value: Any, *, above: float | None = None, finite: bool = True) -> float:
    """Return a real number.

    Raises
    ------
    InvalidInputError
        It is none, not finite though it must be, or not above its bound; the message names the argument.
    """
    bounds = f" above {above:g}" if above is not None else ""
    sound = isinstance(value, numbers.Real) and not isinstance(value, bool)
    try:
        found = float(value) if sound else math.nan
    except OverflowError:  # of a whole number beyond all floats
        found = math.inf
    if math.isnan(found) or (finite and math.isinf(found)) or (above is not None and not found > above):
        raise InvalidInputError(
            f"{name} is {value!r}; it must be a {'finite ' if finite else ''}number{bounds}"
        )
    return found
