"""The necessary condition of an expression: what a row must satisfy at least for it to be true. Pure.

Only comparisons of columns with constants, ``IN``, ``BETWEEN``, ``within_bbox`` and the connectives are understood. Everything
else counts as satisfiable. ``NOT`` is carried down to the comparisons, where it asks that they be *false*: SQL's logic has three
values, and a comparison with NULL is neither. So each comparison of a condition holds only of a value that is there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from tensorbank.pruning.conditions import ANYTHING, AllOf, AnyOf, Compare, Condition, Constant
from tensorbank.sql import (
    Between,
    Call,
    Cast,
    Comparison,
    Conjunction,
    In,
    Node,
    Not,
    Window,
    expression_of,
    is_null,
    names_of,
)
from tensorbank.sql import Constant as Literal

__all__ = ["Resolve", "necessary"]

Resolve = Callable[[Sequence[str]], tuple[int | None, tuple[str, ...]] | None]
"""A function from the names of a column to the ``owner`` and ``leaf`` of
:class:`tensorbank.pruning.conditions.Compare`; None where unclear."""


def necessary(node: Node, resolve: Resolve, *, negated: bool = False) -> Condition:
    """Return what holds of every row for which an expression is true, or, if ``negated``, false."""
    match expression_of(node):
        case Conjunction(is_and, parts):
            conditions = tuple(necessary(part, resolve, negated=negated) for part in parts)
            return AllOf(conditions) if is_and != negated else AnyOf(conditions)
        case Not(part):
            return necessary(part, resolve, negated=not negated)
        case Comparison() as comparison:
            return _comparison(comparison.negated() if negated else comparison, resolve)
        case Between(value, low, high):
            sides = (Comparison(value, ">=", low), Comparison(value, "<=", high))
            if negated:
                return AnyOf(tuple(_comparison(side.negated(), resolve) for side in sides))
            return AllOf(tuple(_comparison(side, resolve) for side in sides))
        case In(value, listed) if not negated:
            some = (one for one in listed if not is_null(one))  # nothing is equal to NULL
            return AnyOf(tuple(_comparison(Comparison(value, "=", one), resolve) for one in some))
        case Call("within_bbox", arguments, by_name) as call if not negated and not isinstance(call, Window):
            # arguments that are given by name come in any order
            return ANYTHING if by_name else _within_bbox(arguments, resolve)
    return ANYTHING


def _comparison(comparison: Comparison, resolve: Resolve) -> Condition:
    for either in (comparison, comparison.mirrored()):
        path, constant = names_of(either.left), _constant(either.right)
        if path is not None and constant is not None:
            return _compare(path, either.op, constant, resolve)
    return ANYTHING


def _compare(path: Sequence[str], op: str, value: Constant, resolve: Resolve) -> Condition:
    found = resolve(path)
    return ANYTHING if found is None else Compare(found[1], op, value, found[0])


def _within_bbox(arguments: Sequence[Node], resolve: Resolve) -> Condition:
    if len(arguments) != 6:
        return ANYTHING
    lon, lat = names_of(arguments[0]), names_of(arguments[1])
    box = [float(v) for a in arguments[2:] if isinstance(v := _constant(a), int | float)]
    return _in_box(lon, lat, box, resolve) if lon and lat and len(box) == 4 else ANYTHING


def _in_box(lon: Sequence[str], lat: Sequence[str], box: Sequence[float], resolve: Resolve) -> Condition:
    west, south, east, north = box
    sides = (_compare(lon, ">=", west, resolve), _compare(lon, "<=", east, resolve))
    across: Condition = ANYTHING  # equal as floats, but who knows which way round the decimals are
    if west != east:
        across = AllOf(sides) if west < east else AnyOf(sides)
    return AllOf((_compare(lat, ">=", south, resolve), _compare(lat, "<=", north, resolve), across))


def _constant(node: Node) -> Constant | None:
    """Return the value of a constant, or of a text as a time; None of anything else."""
    found = expression_of(node)
    if isinstance(found, Literal):
        return found.value
    if not isinstance(found, Cast) or found.or_null:
        return None
    inner = _constant(found.value)
    if not isinstance(inner, str):
        return None
    if found.type_name in ("TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE"):
        return inner
    if found.type_name in ("DATE", "TIMESTAMP"):
        return _without_zone(inner, whole_days=found.type_name == "DATE")
    return None


def _without_zone(text: str, *, whole_days: bool) -> datetime | None:
    try:
        value = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    if value.tzinfo is not None:
        return None
    return value.replace(hour=0, minute=0, second=0, microsecond=0) if whole_days else value
