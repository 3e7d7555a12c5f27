"""Which index files and shards cannot hold an answer. Pure: syntax trees and bounds in, masks out.

From the WHERE of every SELECT that names a table a *necessary condition* is taken: what a row must satisfy at least, in terms
of columns and constants. Everything else counts as satisfiable, so a block that is dropped holds no row of the answer, whatever
the rest of the statement does: a comparison with NULL is not true, neither of a row nor of the row that an outer join makes up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from tensorbank.conditions import ANYTHING, AllOf, AnyOf, Compare, Condition, Constant
from tensorbank.layout import Level
from tensorbank.schema import TableSchema
from tensorbank.scopes import Scope, common_tables, mention_of, mentions, scope_of

__all__ = ["wanted"]

Mention = tuple[str, Level]

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


def wanted(tree: Any, tables: Mapping[str, TableSchema]) -> dict[Mention, Condition]:
    """What rows of each mentioned table and level must satisfy to matter to a statement.

    A table that is mentioned several times needs the rows of every mention.
    """
    found: dict[Mention, list[Condition]] = {}
    handled: set[int] = set()
    for select, scope in _selects(tree, tables, {}):
        condition = _necessary(select.get("where_clause"), scope, negated=False)
        for number, (node, item) in enumerate(
            zip(_from_nodes(select.get("from_table") or {}), scope.items, strict=True)
        ):
            if item.mention is not None:
                handled.add(id(node))
                mine = ANYTHING if item.sampled else _of_item(condition, number)
                found.setdefault(item.mention, []).append(mine)
    for node in mentions(tree):
        mention = mention_of(node, tables)
        if mention is not None and id(node) not in handled:
            found.setdefault(mention, []).append(ANYTHING)
    return {mention: parts[0] if len(parts) == 1 else AnyOf(tuple(parts)) for mention, parts in found.items()}


def _selects(
    node: Any, tables: Mapping[str, TableSchema], common: Mapping[str, Any]
) -> Iterator[tuple[Any, Scope]]:
    """Every SELECT of a tree, with its scope."""
    if isinstance(node, list):
        for value in node:
            yield from _selects(value, tables, common)
    elif isinstance(node, dict):
        if "cte_map" in node:
            common = common_tables(node, tables, common)
        if node.get("type") == "SELECT_NODE":
            yield node, scope_of(node, tables, common)
        for value in node.values():
            yield from _selects(value, tables, common)


def _from_nodes(node: Any) -> Iterator[Any]:
    """The items of a FROM clause, in the order of :func:`scope_of`."""
    if node.get("type") == "JOIN":
        yield from _from_nodes(node["left"])
        yield from _from_nodes(node["right"])
    elif node.get("type") not in (None, "EMPTY"):
        yield node


def _of_item(condition: Condition, number: int) -> Condition:
    """What a condition asks of one item: comparisons of other items count as satisfiable."""
    if isinstance(condition, Compare):
        return condition if condition.owner in (None, number) else ANYTHING
    parts = tuple(_of_item(p, number) for p in condition.parts)
    return AllOf(parts) if isinstance(condition, AllOf) else AnyOf(parts)


def _necessary(node: Any, scope: Scope, *, negated: bool) -> Condition:
    """Necessary condition of an expression (or of its negation) being true."""
    if not isinstance(node, dict):
        return ANYTHING
    kind = node.get("class")
    if kind == "CONJUNCTION":
        parts = tuple(_necessary(c, scope, negated=negated) for c in node["children"])
        return AllOf(parts) if (node["type"] == "CONJUNCTION_AND") != negated else AnyOf(parts)
    if kind == "OPERATOR" and node.get("type") == "OPERATOR_NOT":
        return _necessary(node["children"][0], scope, negated=not negated)
    if kind == "COMPARISON" and node.get("type") in _OPERATORS:
        return _comparison(node["left"], _OPERATORS[node["type"]], node["right"], scope, negated=negated)
    if kind == "BETWEEN" and node.get("type") == "COMPARE_BETWEEN":
        low = _comparison(node["input"], ">=", node["lower"], scope, negated=negated)
        high = _comparison(node["input"], "<=", node["upper"], scope, negated=negated)
        return AnyOf((low, high)) if negated else AllOf((low, high))
    if kind == "OPERATOR" and node.get("type") == "COMPARE_IN" and not negated:
        first, *others = node["children"]
        return AnyOf(tuple(_comparison(first, "=", other, scope, negated=False) for other in others))
    if kind == "FUNCTION" and not negated:
        return _function(node, scope)
    return ANYTHING


def _comparison(left: Any, op: str, right: Any, scope: Scope, *, negated: bool) -> Condition:
    for one, other, operator in ((left, right, op), (right, left, _MIRRORED[op])):
        path, constant = _path(one), _constant(other)
        if path is not None and constant is not None:
            owner, leaf = scope.leaf(path)
            return Compare(leaf, _NEGATED[operator] if negated else operator, constant, owner)
    return ANYTHING


def _function(node: Any, scope: Scope) -> Condition:
    arguments = [a.get("expression", a) for a in node.get("arguments") or []]
    name = str(node.get("function_name")).lower()
    if name == "within_bbox" and len(arguments) == 6:
        lon, lat = _path(arguments[0]), _path(arguments[1])
        box = [_constant(a) for a in arguments[2:]]
        if lon and lat and all(isinstance(v, int | float) for v in box):
            return _in_box(lon, lat, [float(v) for v in box if isinstance(v, int | float)], scope)
    return ANYTHING


def _in_box(lon: Sequence[str], lat: Sequence[str], box: Sequence[float], scope: Scope) -> Condition:
    west, south, east, north = box

    def asks(path: Sequence[str], op: str, value: float) -> Compare:
        owner, leaf = scope.leaf(path)
        return Compare(leaf, op, value, owner)

    sides = (asks(lon, ">=", west), asks(lon, "<=", east))
    across = AllOf(sides) if west <= east else AnyOf(sides)
    return AllOf((asks(lat, ">=", south), asks(lat, "<=", north), across))


def _path(node: Any) -> list[str] | None:
    """Names of a column or of a field in one."""
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
        if target in ("DATE", "TIMESTAMP"):  # of whatever zone: only the day is certain, and a time in it
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
