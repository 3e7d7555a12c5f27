"""The necessary condition of an expression: what a row must satisfy at least for it to be true. Pure.

Only comparisons of columns with constants, ``IN``, ``BETWEEN``, ``within_bbox`` and the connectives are understood. Everything
else counts as satisfiable. ``NOT`` is carried down to the comparisons, where it asks that they be *false*: SQL's logic has three
values, and a comparison with NULL is neither. So each comparison of a condition holds only of a value that is there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from tensorbank.pruning.conditions import ANYTHING, AllOf, AnyOf, Compare, Condition, Constant

__all__ = ["Resolve", "necessary"]

Resolve = Callable[[Sequence[str]], tuple[int | None, tuple[str, ...]] | None]
"""A function from the names of a column to the ``owner`` and ``leaf`` of
:class:`tensorbank.pruning.conditions.Compare`; None where unclear."""

_OPERATORS = {
    "COMPARE_GREATERTHAN": ">",
    "COMPARE_GREATERTHANOREQUALTO": ">=",
    "COMPARE_LESSTHAN": "<",
    "COMPARE_LESSTHANOREQUALTO": "<=",
    "COMPARE_EQUAL": "=",
    "COMPARE_NOTEQUAL": "!=",
}
_MIRRORED = {">": "<", ">=": "<=", "<": ">", "<=": ">=", "=": "=", "!=": "!="}
_NEGATED = {">": "<=", ">=": "<", "<": ">=", "<=": ">", "=": "!=", "!=": "="}


def necessary(node: Any, resolve: Resolve, *, negated: bool = False) -> Condition:
    """Return what holds of every row for which an expression is true, or, if ``negated``, false."""
    if not isinstance(node, dict):
        return ANYTHING
    kind = node.get("class")
    if kind == "CONJUNCTION":
        parts = tuple(necessary(c, resolve, negated=negated) for c in node["children"])
        if node["type"] not in ("CONJUNCTION_AND", "CONJUNCTION_OR"):
            return ANYTHING
        return AllOf(parts) if (node["type"] == "CONJUNCTION_AND") != negated else AnyOf(parts)
    if kind == "OPERATOR" and node.get("type") == "OPERATOR_NOT":
        return necessary(node["children"][0], resolve, negated=not negated)
    if kind == "COMPARISON" and node.get("type") in _OPERATORS:
        return _comparison(node["left"], _OPERATORS[node["type"]], node["right"], resolve, negated=negated)
    if kind == "BETWEEN" and node.get("type") == "COMPARE_BETWEEN":
        low = _comparison(node["input"], ">=", node["lower"], resolve, negated=negated)
        high = _comparison(node["input"], "<=", node["upper"], resolve, negated=negated)
        return AnyOf((low, high)) if negated else AllOf((low, high))
    if kind == "OPERATOR" and node.get("type") == "COMPARE_IN" and not negated:
        first, *others = node["children"]
        return AnyOf(tuple(_comparison(first, "=", other, resolve, negated=False) for other in others))
    if kind == "FUNCTION" and not negated:
        return _function(node, resolve)
    return ANYTHING


def _comparison(left: Any, op: str, right: Any, resolve: Resolve, *, negated: bool) -> Condition:
    for one, other, operator in ((left, right, op), (right, left, _MIRRORED[op])):
        path, constant = _path(one), _constant(other)
        if path is not None and constant is not None:
            return _compare(path, _NEGATED[operator] if negated else operator, constant, resolve)
    return ANYTHING


def _compare(path: Sequence[str], op: str, value: Constant, resolve: Resolve) -> Condition:
    found = resolve(path)
    return ANYTHING if found is None else Compare(found[1], op, value, found[0])


def _function(node: Any, resolve: Resolve) -> Condition:
    arguments = node.get("arguments") or []
    # arguments that are given by name come in any order
    if str(node.get("function_name")).lower() != "within_bbox" or any(a.get("name") for a in arguments):
        return ANYTHING
    values = [a.get("expression", a) for a in arguments]
    if len(values) != 6:
        return ANYTHING
    lon, lat = _path(values[0]), _path(values[1])
    box = [float(v) for a in values[2:] if isinstance(v := _constant(a), int | float)]
    return _in_box(lon, lat, box, resolve) if lon and lat and len(box) == 4 else ANYTHING


def _in_box(lon: Sequence[str], lat: Sequence[str], box: Sequence[float], resolve: Resolve) -> Condition:
    west, south, east, north = box
    sides = (_compare(lon, ">=", west, resolve), _compare(lon, "<=", east, resolve))
    across: Condition = ANYTHING  # equal as floats, but who knows which way round the decimals are
    if west != east:
        across = AllOf(sides) if west < east else AnyOf(sides)
    return AllOf((_compare(lat, ">=", south, resolve), _compare(lat, "<=", north, resolve), across))


def _path(node: Any) -> list[str] | None:
    """Return the names of a column or of a field in one."""
    if not isinstance(node, dict):
        return None
    if node.get("class") == "COLUMN_REF":
        return [str(n) for n in node["column_names"]]
    if node.get("class") == "OPERATOR" and node.get("type") in ("STRUCT_EXTRACT", "ARRAY_EXTRACT"):
        inner, field = _path(node["children"][0]), _constant(node["children"][1])
        return [*inner, field] if inner is not None and isinstance(field, str) else None
    return None


def _constant(node: Any) -> Constant | None:
    if not isinstance(node, dict):
        return None
    if node.get("class") == "CAST" and not node.get("try_cast"):
        inner = _constant(node["child"])
        target = str((node.get("type_expr") or {}).get("type_name", "")).upper()
        if target in ("TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE"):
            return inner if isinstance(inner, str) else None
        if target in ("DATE", "TIMESTAMP"):
            return _without_zone(inner, whole_days=target == "DATE") if isinstance(inner, str) else None
        return None
    literal = node.get("literal") if node.get("class") == "CONSTANT" else None
    if not isinstance(literal, dict) or "text" not in literal:
        return None
    kind, text = literal.get("kind"), str(literal["text"])
    if kind == "INTEGER":
        return int(text)
    if kind in ("NUMERIC", "FLOAT", "DOUBLE"):
        return float(text)
    if kind == "BOOLEAN":
        return text.lower() == "true"
    return text if kind == "STRING" else None


def _without_zone(text: str, *, whole_days: bool) -> datetime | None:
    try:
        value = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    if value.tzinfo is not None:
        return None
    return value.replace(hour=0, minute=0, second=0, microsecond=0) if whole_days else value
