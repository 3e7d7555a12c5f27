"""Queries and relations in DuckDB's syntax trees. Pure.

A tree is what ``json_serialize_sql`` writes: dicts with the keys and kinds of DuckDB's parser. It promises neither of them for
the next version, so this module and :mod:`tensorbank.sql.expressions` alone know them, and ``tests/core/sql/test_syntax.py`` pins
them. Both keep one contract: of a node that they do not know they say nothing. Then nothing is pruned or rewritten by it, or a
sentence refuses it.

A node is never changed: trees share their parts. :mod:`tensorbank.sql.trees` has the ways through them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tensorbank.errors import ErrorKind, InvalidInputError
from tensorbank.sql.expressions import column_node, is_known_expression
from tensorbank.sql.trees import Node, changed, children, with_value

__all__ = [
    "At",
    "BaseTable",
    "CommonTable",
    "Join",
    "Modifiers",
    "Relation",
    "Select",
    "SetOperation",
    "Show",
    "Subquery",
    "TableFunction",
    "children_but_common_tables",
    "common_tables",
    "is_known",
    "is_query",
    "modifiers_of",
    "ordered_further",
    "query_of",
    "recursive_name",
    "rebuilt_query",
    "relation_of",
    "sample_has_no_seed",
    "select_of",
    "set_operation_of",
    "with_columns_of",
    "with_name",
    "with_query",
]

_KNOWN = frozenset(
    {
        *("SELECT_NODE", "SET_OPERATION_NODE", "ORDER_MODIFIER", "LIMIT_MODIFIER", "DISTINCT_MODIFIER"),
        *("BASE_TABLE", "EMPTY", "EXPRESSION_LIST", "JOIN", "PIVOT", "SUBQUERY", "TABLE_FUNCTION"),
    }
)
"""The kinds of queries, of what follows them, and of items of FROM that do not depend on the order of rows by themselves."""


@dataclass(frozen=True, slots=True)
class Select:
    """A SELECT.

    ``source`` is its FROM clause, None where it has none. ``is_grouped`` says that GROUP BY or HAVING makes one row of several,
    ``is_sampled`` that a sample of the FROM clause is drawn.
    """

    columns: Sequence[Node]
    source: Node | None
    where: Node | None
    is_grouped: bool
    is_sampled: bool


@dataclass(frozen=True, slots=True)
class SetOperation:
    """A UNION, EXCEPT or INTERSECT of some queries; ``by_name`` says how their columns are matched."""

    branches: Sequence[Node]
    by_name: bool


@dataclass(frozen=True, slots=True)
class CommonTable:
    """A common table expression of a query; ``is_renamed`` says that it names its columns anew."""

    name: str
    query: Node
    is_renamed: bool


@dataclass(frozen=True, slots=True)
class Modifiers:
    """The clauses that follow a query: ORDER BY, LIMIT or OFFSET, DISTINCT, and DISTINCT ON; ``nodes`` are all of it."""

    nodes: Sequence[Node]
    is_ordered: bool
    is_limited: bool
    is_distinct: bool
    is_distinct_on: bool


@dataclass(frozen=True, slots=True)
class Relation:
    """An item of a FROM clause.

    ``is_renamed`` says that it names its columns anew, ``is_sampled`` that a sample of it is drawn.
    """

    alias: str
    is_renamed: bool
    is_sampled: bool


@dataclass(frozen=True, slots=True)
class At:
    """The ``AT (VERSION => ...)`` or ``AT (TIMESTAMP => ...)`` of a table: its unit in capitals, and an expression."""

    unit: str
    value: Node


@dataclass(frozen=True, slots=True)
class BaseTable(Relation):
    """A table by its name; ``catalog`` and ``schema`` are empty where the statement does not say them."""

    catalog: str
    schema: str
    name: str
    at: At | None = None


@dataclass(frozen=True, slots=True)
class Subquery(Relation):
    """A query in a FROM clause."""

    query: Node


@dataclass(frozen=True, slots=True)
class TableFunction(Relation):
    """A function that gives rows, by its lower-case name."""

    name: str


@dataclass(frozen=True, slots=True)
class Show(Relation):
    """A SHOW, DESCRIBE or SUMMARIZE: of a query, or of a name; ``is_special`` says that the name is no table's."""

    query: Node | None
    name: str
    is_special: bool


@dataclass(frozen=True, slots=True)
class Join(Relation):
    """A join.

    ``how`` rows are matched is REGULAR, CROSS, NATURAL, ASOF, POSITIONAL or DEPENDENT; its ``kind`` is INNER, LEFT and so on.
    """

    left: Node
    right: Node
    how: str
    kind: str
    condition: Node | None
    using: Sequence[str]


def children_but_common_tables(node: Node) -> Iterator[Node]:
    """Yield the nodes right below a query but those of its common tables; of any other node all."""
    yield from children({key: value for key, value in node.items() if key != "cte_map"})


def is_known(node: Node) -> bool:
    """Tell whether a node is of a kind of which it is known that it does not depend on the order of rows by itself.

    What is neither expression, nor query, nor what follows one, nor item of FROM, is.
    """
    known = is_known_expression(node)
    kind = node.get("type")
    if known is not None or not isinstance(kind, str):
        return known is not False
    is_part = "alias" in node or kind.endswith(("_NODE", "_MODIFIER", "_REF"))
    return not is_part or kind in _KNOWN


def query_of(tree: Node) -> Node:
    """Return the query that a statement is."""
    return tree["statements"][0]["node"]


def with_query(tree: Node, query: Node) -> Node:
    """Return the tree of a statement with another query; the tree itself where it is the one that it has."""
    if query is query_of(tree):
        return tree
    return {**tree, "statements": [{**tree["statements"][0], "node": query}]}


def is_query(node: Node) -> bool:
    """Tell whether a node is a query."""
    return "cte_map" in node and "type" in node


def select_of(node: Node) -> Select | None:
    """Return what a query selects, None if it is no plain SELECT."""
    if node.get("type") != "SELECT_NODE":
        return None
    source = node.get("from_table")
    is_grouped = node.get("group_expressions") or node.get("group_sets") or node.get("having")
    return Select(
        node["select_list"],
        None if not source or source.get("type") == "EMPTY" else source,
        node.get("where_clause"),
        bool(is_grouped) or node.get("aggregate_handling") == "FORCE_AGGREGATES",
        _is_sampled(node),
    )


def with_columns_of(select: Node, columns: Sequence[Node]) -> Node:
    """Return a SELECT with other columns; the SELECT itself where all are what they were."""
    same = all(a is b for a, b in zip(select["select_list"], columns, strict=True))
    return select if same else {**select, "select_list": list(columns)}


def set_operation_of(node: Node) -> SetOperation | None:
    """Return the queries that a query puts together, None if it does not."""
    if node.get("type") != "SET_OPERATION_NODE":
        return None
    return SetOperation(node.get("children") or [], str(node.get("setop_type")).endswith("BY_NAME"))


def common_tables(query: Node) -> tuple[CommonTable, ...]:
    """Return the common table expressions that a query begins with, in their order."""
    entries = (query.get("cte_map") or {}).get("map") or ()
    return tuple(CommonTable(str(e["key"]), _query_of(e), bool(e["value"].get("aliases"))) for e in entries)


def _query_of(entry: Node) -> Node:
    query = entry["value"].get("query_node")
    if query is None:
        raise InvalidInputError(
            f"the common table {entry['key']!r} is not a SELECT statement; write it as one",
            kind=ErrorKind.SQL,
        )
    return query


def recursive_name(node: Node) -> str | None:
    """Return the name by which a recursive query calls itself, None if it is none."""
    return str(node["cte_name"]) if node.get("type") == "RECURSIVE_CTE_NODE" else None


def rebuilt_query(
    query: Node, common: Sequence[Node], part: Callable[[Node], Node], modifier: Callable[[Node], Node]
) -> Node:
    """Return a query with other common tables, and with what is right below it changed, modifiers by a function of their own.

    Its sample stays. The query itself where nothing changes.
    """
    found: dict[str, Any] = {}
    for key, value in query.items():
        if key == "cte_map":
            entries = (value or {}).get("map") or []
            entries_now = [
                with_value(e, {"value": with_value(e["value"], {"query_node": q})})
                for e, q in zip(entries, common, strict=True)
            ]
            same = all(a is b for a, b in zip(entries_now, entries, strict=True))
            found[key] = value if same else {**value, "map": entries_now}
        elif key != "sample":
            found[key] = changed(value, modifier if key == "modifiers" else part)
    return with_value(query, found)


def modifiers_of(query: Node) -> Modifiers:
    """Return what follows a query."""
    given = query.get("modifiers") or []
    kinds = {str(m.get("type")) for m in given}
    has_targets = [bool(m.get("distinct_on_targets")) for m in given if m.get("type") == "DISTINCT_MODIFIER"]
    return Modifiers(
        given, "ORDER_MODIFIER" in kinds, "LIMIT_MODIFIER" in kinds, False in has_targets, True in has_targets
    )


def ordered_further(node: Node, columns: Sequence[Sequence[str]]) -> Node:
    """Return a query, or a call over a window, whose ORDER BY goes on with some columns, ascending and NULL last."""
    more = [
        {"type": "ASCENDING", "null_order": "NULLS LAST", "expression": column_node(names)}
        for names in columns
    ]
    if not is_query(node):
        return {**node, "orders": [*node["orders"], *more]}
    return {
        **node,
        "modifiers": [
            {**m, "orders": [*m["orders"], *more]} if m.get("type") == "ORDER_MODIFIER" else m
            for m in node["modifiers"]
        ],
    }


def sample_has_no_seed(node: Node) -> bool:
    """Tell whether a query or an item of FROM draws a sample that is another one each time."""
    return (
        _is_sampled(node) and bool(node["sample"].get("sample_size")) and not node["sample"].get("repeatable")
    )


def relation_of(node: Node | None) -> Relation | None:
    """Return what an item of FROM is; None where there is none.

    One of a kind that is not known is a plain :class:`Relation`: nothing is known of its columns.
    """
    kind = None if node is None or "class" in node else node.get("type")
    if node is None or not isinstance(kind, str) or kind == "EMPTY":
        return None
    own = (str(node.get("alias") or ""), bool(node.get("column_name_alias")), _is_sampled(node))
    if kind == "JOIN":
        return Join(
            *own,
            node["left"],
            node["right"],
            str(node.get("ref_type")),
            str(node.get("join_type")),
            node.get("condition"),
            tuple(map(str, node.get("using_columns") or [])),
        )
    if kind == "BASE_TABLE":
        catalog, schema, name = (
            str(node.get(key) or "") for key in ("catalog_name", "schema_name", "table_name")
        )
        at = node.get("at_clause")
        said = At(str(at.get("unit")).upper(), at.get("expr")) if at else None
        return BaseTable(*own, catalog, schema, name, said)
    if kind == "SUBQUERY":
        return Subquery(*own, node["subquery"]["node"])
    if kind == "TABLE_FUNCTION":
        return TableFunction(*own, str(node["function"].get("function_name")).lower())
    if kind == "SHOW_REF":
        special = node.get("show_type") == "SHOW_SPECIAL"
        return Show(*own, node.get("query"), str(node.get("table_name")), special)
    return Relation(*own)


def with_name(table: Node, schema: str, name: str, alias: str) -> Node:
    """Return a table in a FROM clause as another one, under an alias, and without an ``AT``."""
    kept = {key: value for key, value in table.items() if key != "at_clause"}
    path = {"qualified_name": {"path": [schema, name]}} if "qualified_name" in table else {}
    return {**kept, **path, "catalog_name": "", "schema_name": schema, "table_name": name, "alias": alias}


def _is_sampled(node: Node) -> bool:
    return isinstance(node.get("sample"), dict)
