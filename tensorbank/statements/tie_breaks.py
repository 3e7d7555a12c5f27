"""Statements made independent of the order in which rows arrive, which depends on threads. Pure.

Wherever a statement chooses or numbers rows by an order (ORDER BY with LIMIT, DISTINCT ON, windows), rows that are equal in it
are told apart by the sample's identity. What cannot be helped so, a LIMIT without an order, ``first``, a random sample, the last
digits of a sum, depends on the order of arrival, and has to be executed by one thread over files in their order. Whatever is not
known to be free of that counts as dependent on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tensorbank.schema import TableSchema
from tensorbank.sql import (
    EXACT_AGGREGATES,
    ORDERED_AGGREGATES,
    OWN,
    SCALARS,
    SUMS,
    TABLE_FUNCTIONS,
    is_operator,
)
from tensorbank.statements.names import mention_of

__all__ = ["Settled", "settle"]

IDENTITY = {
    "samples": ("sample_id", "split"),
    "tiles": ("sample_id", "split", "time_index", "tile"),
    "shards": ("part", "shard"),
}
_EXACT = OWN | SCALARS | TABLE_FUNCTIONS | EXACT_AGGREGATES
_AGGREGATES = EXACT_AGGREGATES | SUMS | ORDERED_AGGREGATES
_RANKS = frozenset({"rank", "dense_rank", "rank_dense", "percent_rank", "cume_dist"})
_PLACES = frozenset({"row_number", "ntile", "lag", "lead"})
"""The windows that number rows, whatever their frame."""
_VALUES = frozenset({"first_value", "last_value", "nth_value", "first", "last"})
_EXPRESSIONS = frozenset(
    {
        *(
            "BETWEEN",
            "CASE",
            "CAST",
            "COLUMN_REF",
            "COMPARISON",
            "CONJUNCTION",
            "CONSTANT",
            "FUNCTION",
            "LAMBDA",
        ),
        *("OPERATOR", "POSITIONAL_REFERENCE", "STAR", "SUBQUERY", "TYPE", "WINDOW"),
    }
)
_NODES = frozenset(
    {
        *("SELECT_NODE", "SET_OPERATION_NODE", "ORDER_MODIFIER", "LIMIT_MODIFIER", "DISTINCT_MODIFIER"),
        *("BASE_TABLE", "EMPTY", "EXPRESSION_LIST", "JOIN", "PIVOT", "SUBQUERY", "TABLE_FUNCTION"),
    }
)
_JOINS = frozenset({"REGULAR", "CROSS", "NATURAL", "DEPENDENT"})
_JOIN_TYPES = frozenset({"INNER", "LEFT", "RIGHT", "OUTER", "FULL", "SEMI", "ANTI"})

Names = tuple[tuple[str, ...], ...]
"""The columns that together tell the rows of something apart, each as its path."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A statement whose ties are broken, and what of it still depends on the order in which rows arrive.

    ``by_arrival`` says that the rows or their order do, ``by_digits`` that at most the last digits of sums do.
    """

    tree: Any
    by_arrival: bool
    by_digits: bool


def settle(
    tree: Any,
    tables: Mapping[str, TableSchema],
    registered: Mapping[str, Sequence[str]],
    name_of: Callable[[Any], str],
) -> Settled:
    """Break the ties of a statement by the samples' identity.

    Parameters
    ----------
    tree
        Syntax tree of the statement.
    tables
        Tables of the bank that it mentions.
    registered
        Columns of the user's own tables, by name.
    name_of
        Gives the name of a column that is the result of an expression.
    """
    mine = {name.lower(): tuple(columns) for name, columns in registered.items()}
    settling = _Settling(tables, mine, name_of)
    statement = dict(tree["statements"][0])
    statement["node"] = settling.query(statement["node"], {}, ordered=True)
    return Settled({**tree, "statements": [statement]}, settling.by_arrival, settling.by_digits)


class _Settling:
    def __init__(
        self,
        tables: Mapping[str, TableSchema],
        registered: Mapping[str, tuple[str, ...]],
        name_of: Callable[[Any], str],
    ) -> None:
        self.tables = tables
        self.registered = registered
        self.name_of = name_of
        self.by_arrival = False
        self.by_digits = False

    def node(self, tree: Any, common: Mapping[str, Names | None], identity: Names | None) -> Any:
        """A node with what is below it, within one SELECT whose rows an identity tells apart."""
        if isinstance(tree, list):
            return [self.node(child, common, identity) for child in tree]
        if not isinstance(tree, dict):
            return tree
        if "cte_map" in tree and "type" in tree:
            return self.query(tree, common, ordered=False)
        kind = tree.get("class")
        if kind is None:
            self._look_at(tree)
        elif kind not in _EXPRESSIONS:
            self.by_arrival = True
        found = {key: self.node(value, common, identity) for key, value in tree.items()}
        if kind == "WINDOW":
            return self._window(found, identity)
        if kind == "FUNCTION":
            self._call(str(tree.get("function_name")).lower())
        return found

    def query(self, tree: Any, common: Mapping[str, Names | None], *, ordered: bool) -> Any:
        """A query node; ``ordered`` where the order of its rows is part of the answer."""
        entries = (tree.get("cte_map") or {}).get("map") or []
        changed = []
        for entry in entries:
            changed.append({**entry, "value": self.node(entry["value"], common, None)})
            common = {**common, str(entry["key"]).lower(): self._of_common_table(entry["value"], common)}
        identity, for_order = None, None
        if tree["type"] == "SELECT_NODE":
            identity = None if _is_grouped(tree) else self._identity(tree.get("from_table") or {}, common)
            for_order = None if _multiplies(tree["select_list"]) else identity
        elif tree["type"] not in _NODES:
            self.by_arrival = True
        if isinstance(tree.get("sample"), dict):
            self.by_arrival = True
        found = {
            key: self.node(value, common, identity)
            for key, value in tree.items()
            if key not in ("cte_map", "modifiers", "sample")
        }
        if tree["type"] == "SELECT_NODE":
            pairs = zip(tree["select_list"], found["select_list"], strict=True)
            found["select_list"] = [self._named(old, new) for old, new in pairs]
        modifiers = self.node(tree.get("modifiers") or [], common, for_order)
        found["modifiers"] = self._modifiers(modifiers, for_order, ordered=ordered)
        cte_map = {**tree["cte_map"], "map": changed} if entries else tree.get("cte_map")
        rest = {"sample": tree["sample"]} if "sample" in tree else {}
        made = {**found, "cte_map": cte_map, **rest}
        return {key: made[key] for key in tree} | {key: made[key] for key in made if key not in tree}

    def _named(self, column: Any, changed: Any) -> Any:
        """An item of a SELECT list under the name that it had before it was changed."""
        return (
            changed
            if changed == column or column.get("alias")
            else {**changed, "alias": self.name_of(column)}
        )

    def _modifiers(self, modifiers: Sequence[Any], identity: Names | None, *, ordered: bool) -> list[Any]:
        kinds = [m.get("type") for m in modifiers]
        chooses = "LIMIT_MODIFIER" in kinds
        by_groups = any(m.get("distinct_on_targets") for m in modifiers)
        plain = any(
            m.get("type") == "DISTINCT_MODIFIER" and not m.get("distinct_on_targets") for m in modifiers
        )
        if "ORDER_MODIFIER" not in kinds:
            self.by_arrival |= chooses or by_groups
            return list(modifiers)
        if identity is None or plain:
            self.by_arrival |= chooses or by_groups or ordered
            return list(modifiers)
        return [
            {**m, "orders": [*m["orders"], *map(_ascending, identity)]}
            if m["type"] == "ORDER_MODIFIER"
            else m
            for m in modifiers
        ]

    def _window(self, window: Any, identity: Names | None) -> Any:
        name = str(window.get("function_name")).lower()
        self.by_digits |= name in SUMS
        if window.get("arg_orders") or window.get("exclude_clause") not in (None, "NO_OTHER"):
            self.by_arrival = True
            return window
        if name in _RANKS or (name in EXACT_AGGREGATES | SUMS and not _counts_rows(window)):
            return window
        if identity is None or not window.get("orders") or not _is_helped(name, window):
            self.by_arrival = True
            return window
        return {**window, "orders": [*window["orders"], *map(_ascending, identity)]}

    def _call(self, name: str) -> None:
        self.by_digits |= name in SUMS
        self.by_arrival |= not (name in _EXACT or name in SUMS or is_operator(name))

    def _look_at(self, node: Any) -> None:
        """Note what a part of a FROM clause does with the order of rows."""
        kind = node.get("type")
        if not isinstance(kind, str):
            return
        self.by_arrival |= isinstance(node.get("sample"), dict)
        if kind == "JOIN":
            sound = node.get("ref_type") in _JOINS and node.get("join_type") in _JOIN_TYPES
            self.by_arrival |= not sound
        elif "alias" in node or kind.endswith(("_NODE", "_MODIFIER", "_REF")):
            self.by_arrival |= kind not in _NODES

    def _identity(self, node: Any, common: Mapping[str, Names | None]) -> Names | None:
        """Return the columns that tell the rows of a FROM clause apart; None where those are not known."""
        kind, alias = node.get("type"), str(node.get("alias") or "")
        if kind == "JOIN":
            left = self._identity(node["left"], common)
            if node.get("join_type") in ("SEMI", "ANTI"):
                return left
            right = self._identity(node["right"], common)
            return None if left is None or right is None else left + right
        if node.get("column_name_alias"):
            return None
        if kind == "SUBQUERY":
            inner = self._given(node["subquery"]["node"], common)
            return None if inner is None or not alias else tuple((alias, *path) for path in inner)
        if kind != "BASE_TABLE":
            return None
        schema, name = str(node.get("schema_name") or ""), str(node["table_name"])
        owner = (alias,) if alias else ((schema, name) if schema else (name,))
        if not schema and name.lower() in common:
            inner = common[name.lower()]
        elif schema.lower() in ("", "main") and name.lower() in self.registered:
            inner = tuple((column,) for column in self.registered[name.lower()])
        else:
            mention = mention_of(node, self.tables)
            inner = None if mention is None else tuple((column,) for column in IDENTITY[mention[1]])
        return None if inner is None else tuple((*owner, *path) for path in inner)

    def _of_common_table(self, value: Any, common: Mapping[str, Names | None]) -> Names | None:
        query = value.get("query_node") or value.get("query", {}).get("node")
        return None if value.get("aliases") or not query else self._given(query, common)

    def _given(self, query: Any, outer: Mapping[str, Names | None]) -> Names | None:
        """Return the columns that tell the rows of a subquery apart outside of it:
        the identity of the one table whose rows it hands on."""
        if query.get("type") != "SELECT_NODE" or _is_grouped(query) or _multiplies(query["select_list"]):
            return None
        if (query.get("cte_map") or {}).get("map") or (query.get("from_table") or {}).get("type") == "JOIN":
            return None
        inner = self._identity(query.get("from_table") or {}, outer)
        if inner is None:
            return None
        columns = query["select_list"]
        given = []
        for path in inner:
            passed = next((name for c in columns if (name := _passed(c, path)) is not None), None)
            if passed is None or sum(_is_called(c, passed) for c in columns) > 1:
                return None
            given.append((passed,))
        return tuple(given)


def _counts_rows(window: Any) -> bool:
    """Tell whether a frame ends at rows, rather than at all rows that are equal in the order."""
    return any(str(window.get(end)).endswith("_ROWS") for end in ("start", "end"))


def _is_helped(name: str, window: Any) -> bool:
    """Tell whether a window keeps its answers for rows that differ in its order
    when tied rows are told apart, too."""
    if name in _PLACES or _counts_rows(window):
        return name in _PLACES | _VALUES | EXACT_AGGREGATES | SUMS
    ends = (window.get("start"), window.get("end"))
    whole = ends == ("UNBOUNDED_PRECEDING", "UNBOUNDED_FOLLOWING")
    begins = (
        name in ("first_value", "first")
        and ends[0] == "UNBOUNDED_PRECEDING"
        and not window.get("ignore_nulls")
    )
    return name in _VALUES and (whole or (begins and ends[1] == "CURRENT_ROW_RANGE"))


def _is_called(column: Any, name: str) -> bool:
    """Tell whether an item of a SELECT list has this name;
    a star has it, too, unless it excludes the column."""
    if column.get("class") == "STAR":
        return name.lower() not in {str(c).lower() for c in column.get("exclude_list") or []}
    own = column.get("alias") or (column.get("column_names") or [""])[-1]
    return str(own).lower() == name.lower()


def _passed(column: Any, path: Sequence[str]) -> str | None:
    """Name under which an item of a SELECT list hands a column on, None if it does not."""
    name = path[-1].lower()
    if column.get("class") == "STAR":
        changed = [*(column.get("exclude_list") or []), *(e["key"] for e in column.get("replace_list") or [])]
        others = column.get("expr") or column.get("rename_list") or column.get("qualified_exclude_list")
        owner = str(column.get("relation_name") or "").lower()
        mine = owner in ("", path[-2].lower() if len(path) > 1 else "")
        return path[-1] if mine and not others and name not in {str(c).lower() for c in changed} else None
    if column.get("class") != "COLUMN_REF":
        return None
    names = [str(n).lower() for n in column["column_names"]]
    whole = [p.lower() for p in path]
    if len(names) <= len(whole) and names == whole[-len(names) :]:
        return str(column.get("alias") or column["column_names"][-1])
    return None


def _is_grouped(select: Any) -> bool:
    """Tell whether a SELECT makes one row of several."""
    if select.get("group_expressions") or select.get("group_sets") or select.get("having"):
        return True
    if select.get("aggregate_handling") == "FORCE_AGGREGATES":
        return True
    return _calls(select["select_list"], _AGGREGATES) or _calls(select.get("modifiers") or [], _AGGREGATES)


def _multiplies(columns: Any) -> bool:
    """Tell whether a SELECT list makes several rows of one."""
    return _calls(columns, frozenset({"unnest", "generate_subscripts"}))


def _calls(node: Any, names: frozenset[str]) -> bool:
    """Tell whether an expression calls one of some functions itself, not in a subquery or as a window."""
    if isinstance(node, list):
        return any(_calls(child, names) for child in node)
    if not isinstance(node, dict) or "cte_map" in node:
        return False
    if node.get("class") == "FUNCTION" and str(node.get("function_name")).lower() in names:
        return True
    return any(_calls(child, names) for child in node.values())


def _ascending(path: Sequence[str]) -> dict[str, Any]:
    column = {"class": "COLUMN_REF", "type": "COLUMN_REF", "alias": "", "column_names": list(path)}
    return {"type": "ASCENDING", "null_order": "NULLS LAST", "expression": column}
