"""Arguments of callers, checked: each is returned as the type that it is used as, or refused by its name."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Iterable
from typing import Any, TypeVar

from tensorbank.errors import InvalidInputError

T = TypeVar("T")

__all__ = ["choice", "flag", "instance", "number", "numbers_of", "whole_number"]


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


def number(
    name: str,
    value: Any,
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    finite: bool = True,
) -> float:
    """Return a real number.

    Raises
    ------
    InvalidInputError
        It is none, not finite though it must be, or not within its bounds; the message names the argument.
    """
    most = "at most" if at_least is not None else "of at most"
    bounds = {"above": above, "of at least": at_least, most: at_most}
    told = " and".join(f" {words} {bound:g}" for words, bound in bounds.items() if bound is not None)
    sound = isinstance(value, numbers.Real) and not isinstance(value, bool)
    try:
        found = float(value) if sound else math.nan
    except OverflowError:  # of a whole number beyond all floats
        found = math.inf
    low = (above is not None and not found > above) or (at_least is not None and not found >= at_least)
    high = at_most is not None and not found <= at_most
    if math.isnan(found) or (finite and math.isinf(found)) or low or high:
        raise InvalidInputError(
            f"{name} is {value!r}; it must be a {'finite ' if finite else ''}number{told}"
        )
    return found


def numbers_of(name: str, values: Any, *, above: float | None = None) -> list[float]:
    """Return a list of finite numbers.

    Raises
    ------
    InvalidInputError
        It is none, is empty, or holds something else; the message names the argument.
    """
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InvalidInputError(f"{name} is {values!r}; it must be a list of numbers")
    found = [number(f"{name}[{i}]", value, above=above) for i, value in enumerate(values)]
    if not found:
        raise InvalidInputError(f"{name} is empty; it must be a list of numbers")
    return found


def flag(name: str, value: Any) -> bool:
    """Return True or False.

    Raises
    ------
    InvalidInputError
        It is something else; the message names the argument.
    """
    if not isinstance(value, bool):
        raise InvalidInputError(f"{name} is {value!r}; it must be True or False")
    return value


def choice(name: str, value: Any, choices: tuple[Any, ...]) -> Any:
    """Return one of several values.

    Raises
    ------
    InvalidInputError
        It is something else; the message names the argument and the values.
    """
    for one in choices:
        if type(value) is type(one) and value == one:
            return value
    *most, last = map(repr, choices)
    raise InvalidInputError(f"{name} is {value!r}; give {', '.join(most)} or {last}")


def instance(name: str, value: Any, kind: type[T] | tuple[type[T], ...], hint: str) -> T:
    """Return a value of a type, or of one of several.

    Raises
    ------
    InvalidInputError
        It is of another; the message names the argument, and ``hint`` says what to give.
    """
    if not isinstance(value, kind):
        raise InvalidInputError(f"{name} is {value!r}; {hint}")
    return value
