"""Resolve the names in a statement: which mention of which table, at which level, and which modality. Pure.

Works on DuckDB's serialized syntax trees. Every SELECT has a scope: the items of its FROM clause. A handle keeps its meaning
through aliases, stars, subqueries and common table expressions; where it cannot be followed, nothing is claimed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tensorbank.layout import LEVELS, Level
from tensorbank.schema import Modality, TableSchema

__all__ = [
    "Found",
    "Origin",
    "Scope",
    "common_names",
    "common_tables",
    "in_scopes",
    "mention_of",
    "mentions",
    "scope_of",
]

Node = Any
Handles = Mapping[str, "Origin"]
"""The handle columns by lower-case name."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin of a handle."""

    table: str
    level: Level
    modality: Modality


@dataclass(frozen=True, slots=True)
class Found:
    """A handle that a path names: its origin, the path of the handle itself, and what follows it."""

    origin: Origin
    path: tuple[str, ...]
    rest: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a FROM clause. ``mention`` is (table, level) where it is a bank's table, with the alias's names."""

    names: tuple[tuple[str, ...], ...]
    handles: Handles
    mention: tuple[str, Level] | None = None
    sampled: bool = False


@dataclass(frozen=True, slots=True)
class Scope:
    """The items that the names in one SELECT may refer to."""

    items: tuple[Item, ...]

    def handle(self, path: Sequence[str]) -> Found | None:
        """The handle that a path such as ``t.S2L2A.B08`` begins with."""
        lower = tuple(p.lower() for p in path)
        for item, n_prefix in self._owners(lower):
            origin = item.handles.get(lower[n_prefix]) if len(lower) > n_prefix else None
            if origin is not None:
                cut = n_prefix + 1
                return Found(origin, tuple(path[:cut]), tuple(path[cut:]))
        return None

    def leaf(self, path: Sequence[str]) -> tuple[int | None, tuple[str, ...]]:
        """Number of the item that a column belongs to, None where that is not said, and its lower-case path in the item."""
        lower = tuple(p.lower() for p in path)
        for item, n_prefix in self._owners(lower):
            if n_prefix:
                return self.items.index(item), lower[n_prefix:]
        return None, lower

    def owns(self, path: Sequence[str]) -> bool:
        """Tell whether a column is certainly one of a bank's table."""
        number, leaf = self.leaf(path)
        item = self.items[number] if number is not None else self.items[0] if len(self.items) == 1 else None
        return len(leaf) == 1 and item is not None and item.mention is not None

    def _owners(self, path: tuple[str, ...]) -> Iterator[tuple[Item, int]]:
        """Yield the items that may own a path, those that it names first,
        and the length of the name in it."""
        for item in self.items:
            for name in item.names:
                if len(path) > len(name) and path[: len(name)] == name:
                    yield item, len(name)
        for item in self.items:
            yield item, 0


def mention_of(node: Node, tables: Mapping[str, Any]) -> tuple[str, Level] | None:
    """Return the table and level of a BASE_TABLE node, None if it is none of the bank's.

    Parameters
    ----------
    tables
        Tables by name as the bank spells it.
    """
    schema, name = str(node.get("schema_name") or "").lower(), str(node["table_name"]).lower()
    spelled = {t.lower(): t for t in tables}
    if schema in ("", "main"):
        return (spelled[name], "samples") if name in spelled else None
    level = next((v for v in LEVELS if v == name), None)
    return (spelled[schema], level) if schema in spelled and level is not None else None


def mentions(node: Node) -> Iterator[Node]:
    """Yield every BASE_TABLE of a syntax tree."""
    if isinstance(node, dict):
        if node.get("type") == "BASE_TABLE":
            yield node
        for value in node.values():
            yield from mentions(value)
    elif isinstance(node, list):
        for value in node:
            yield from mentions(value)


def common_names(node: Node) -> set[str]:
    """Return the names of all common table expressions of a syntax tree, as they are spelled there."""
    if isinstance(node, dict):
        own = {str(entry["key"]) for entry in (node.get("cte_map") or {}).get("map") or []}
        return own.union(*map(common_names, node.values()))
    return set().union(*map(common_names, node)) if isinstance(node, list) else set()


def common_tables(
    node: Node, tables: Mapping[str, TableSchema], outer: Mapping[str, Handles]
) -> dict[str, Handles]:
    """Return the handles of the common table expressions that are visible in a query node,
    by lower-case name."""
    known = dict(outer)
    for entry in (node.get("cte_map") or {}).get("map") or []:
        value = entry["value"]
        query = value.get("query_node") or value.get("query", {}).get("node")
        known[entry["key"].lower()] = _exports(query, tables, known) if not value.get("aliases") else {}
    return known


def scope_of(select: Node, tables: Mapping[str, TableSchema], common: Mapping[str, Handles]) -> Scope:
    """Return the scope of a SELECT node; ``common`` holds the common table expressions that it sees."""
    return Scope(tuple(_items(select.get("from_table") or {}, tables, common)))


def in_scopes(
    tree: Node,
    tables: Mapping[str, TableSchema],
    scopes: Sequence[Scope] = (),
    common: Mapping[str, Handles] | None = None,
) -> Iterator[tuple[Node, Sequence[Scope]]]:
    """Yield every node, with the scopes of the SELECTs around it, the innermost first."""
    common = common or {}
    if isinstance(tree, list):
        for value in tree:
            yield from in_scopes(value, tables, scopes, common)
    elif isinstance(tree, dict):
        if "cte_map" in tree:
            common = common_tables(tree, tables, common)
        if tree.get("type") == "SELECT_NODE":
            scopes = (scope_of(tree, tables, common), *scopes)
        yield tree, scopes
        for value in tree.values():
            yield from in_scopes(value, tables, scopes, common)


def _items(node: Node, tables: Mapping[str, TableSchema], common: Mapping[str, Handles]) -> Iterator[Item]:
    kind, alias = node.get("type"), str(node.get("alias") or "").lower()
    if kind == "JOIN":
        yield from _items(node["left"], tables, common)
        yield from _items(node["right"], tables, common)
    elif kind == "SUBQUERY":
        handles = _exports(node["subquery"]["node"], tables, common)
        yield Item(((alias,),) if alias else (), {} if node.get("column_name_alias") else handles)
    elif kind == "BASE_TABLE":
        yield _base_item(node, alias, tables, common)
    elif kind not in (None, "EMPTY"):
        yield Item(((alias,),) if alias else (), {})


def _base_item(
    node: Node, alias: str, tables: Mapping[str, TableSchema], common: Mapping[str, Handles]
) -> Item:
    name = str(node["table_name"]).lower()
    renamed = bool(node.get("column_name_alias"))
    if not node.get("schema_name") and name in common:
        return Item(((alias or name,),), {} if renamed else common[name])
    found = mention_of(node, tables)
    if found is None:
        return Item(((alias or name,),), {})
    table, level = found
    origins = {m.name.lower(): Origin(table, level, m) for m in tables[table]}
    schema = str(node.get("schema_name") or "").lower()
    names = ((alias,),) if alias else ((name,), *([(schema, name)] if schema else []))
    sampled = bool(node.get("sample"))
    return Item(names, {} if renamed else origins, None if renamed else found, sampled)


def _exports(query: Node, tables: Mapping[str, TableSchema], outer: Mapping[str, Handles]) -> Handles:
    """Handle columns that a query node gives to what is around it."""
    common = common_tables(query, tables, outer)
    if query.get("type") == "SET_OPERATION_NODE":
        children = query.get("children") or [query.get("left")]
        return _exports(children[0], tables, common) if children[0] else {}
    if query.get("type") != "SELECT_NODE":
        return {}
    scope = scope_of(query, tables, common)
    given: dict[str, Origin] = {}
    for column in query["select_list"]:
        if column.get("class") == "STAR":
            given |= _of_star(column, scope)
        elif column.get("class") == "COLUMN_REF":
            found = scope.handle(column["column_names"])
            name = str(column.get("alias") or column["column_names"][-1]).lower()
            given.pop(name, None)
            if found is not None and not found.rest:
                given[name] = found.origin
        elif column.get("alias"):
            given.pop(str(column["alias"]).lower(), None)
    return given


def _of_star(star: Node, scope: Scope) -> dict[str, Origin]:
    owner = (str(star.get("relation_name") or "").lower(),)
    changed = {str(n).lower() for n in star.get("exclude_list") or []}
    changed |= {str(e["key"]).lower() for e in star.get("replace_list") or []}
    if star.get("expr") or star.get("rename_list") or star.get("qualified_exclude_list"):
        return {}
    given: dict[str, Origin] = {}
    for item in scope.items:
        if owner == ("",) or owner in item.names:
            given |= {n: o for n, o in item.handles.items() if n not in changed}
    return given
