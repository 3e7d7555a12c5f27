"""Statements made independent of the order in which rows arrive, which depends on threads. Pure.

Wherever a statement chooses or numbers rows by an order (ORDER BY with LIMIT, DISTINCT ON, windows), rows that are equal in it
are told apart by the sample's identity. What cannot be helped so, a LIMIT without an order, ``first``, a random sample, the last
digits of a sum, depends on the order of arrival, and has to be executed by one thread over files in their order. Whatever is not
known to be free of that counts as dependent on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tensorbank.schema import TableSchema
from tensorbank.sql import (
    EXACT_AGGREGATES,
    ORDERED_AGGREGATES,
    OWN,
    SCALARS,
    SUMS,
    TABLE_FUNCTIONS,
    BaseTable,
    Call,
    Column,
    Join,
    Node,
    Select,
    Star,
    Subquery,
    Window,
    alias_of,
    common_tables,
    expression_of,
    is_known,
    is_operator,
    is_query,
    modifiers_of,
    named,
    ordered_further,
    query_of,
    rebuilt,
    rebuilt_query,
    relation_of,
    select_of,
    walk,
    with_columns_of,
    with_query,
)
from tensorbank.statements.relations import mention_of

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
_JOINS = frozenset({"REGULAR", "CROSS", "NATURAL", "DEPENDENT"})
_JOIN_TYPES = frozenset({"INNER", "LEFT", "RIGHT", "OUTER", "FULL", "SEMI", "ANTI"})

Names = tuple[tuple[str, ...], ...]
"""The columns that together tell the rows of something apart, each as its path."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A statement whose ties are broken, and what of it still depends on the order in which rows arrive.

    ``by_arrival`` says that the rows or their order do, ``by_digits`` that at most the last digits of sums do.
    """

    tree: Node
    by_arrival: bool
    by_digits: bool


def settle(
    tree: Node,
    tables: Mapping[str, TableSchema],
    registered: Mapping[str, Sequence[str]],
    name_of: Callable[[Node], str],
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
    query = settling.query(query_of(tree), {}, ordered=True)
    return Settled(with_query(tree, query), settling.by_arrival, settling.by_digits)


class _Settling:
    """One pass over a statement. ``by_arrival`` and ``by_digits`` are as those of :class:`Settled`, of what was seen so far."""

    def __init__(
        self,
        tables: Mapping[str, TableSchema],
        registered: Mapping[str, tuple[str, ...]],
        name_of: Callable[[Node], str],
    ) -> None:
        self.tables = tables
        self.registered = registered
        self.name_of = name_of
        self.by_arrival = False
        self.by_digits = False

    def node(self, tree: Node, common: Mapping[str, Names | None], identity: Names | None) -> Node:
        """Settle a node with what is below it, within one SELECT whose rows an identity tells apart."""
        if is_query(tree):
            return self.query(tree, common, ordered=False)
        self.by_arrival |= not is_known(tree)
        relation = relation_of(tree)
        if relation is not None:
            self.by_arrival |= relation.is_sampled
        if isinstance(relation, Join):
            self.by_arrival |= relation.how not in _JOINS or relation.kind not in _JOIN_TYPES
        found = rebuilt(tree, lambda child: self.node(child, common, identity))
        call = expression_of(tree)
        if isinstance(call, Window):
            return self._window(call, found, identity)
        if isinstance(call, Call):
            self._call(call.name)
        return found

    def query(self, tree: Node, common: Mapping[str, Names | None], *, ordered: bool) -> Node:
        """Settle a query; ``ordered`` where the order of its rows is part of the answer."""
        # Two identities: windows see the rows of FROM, told apart by `identity`; ORDER BY sees those after SELECT, which are told
        # apart by the same columns unless unnest() makes several of one.
        changed = []
        for table in common_tables(tree):
            changed.append(self.node(table.query, common, None))
            names = None if table.is_renamed else self._given(table.query, common)
            common = {**common, table.name.lower(): names}
        identity, for_order = None, None
        select = select_of(tree)
        if select is not None:
            identity = None if _is_grouped(tree, select) else self._identity(select.source, common)
            for_order = None if _multiplies(select) else identity
            self.by_arrival |= select.is_sampled
        self.by_arrival |= not is_known(tree)
        found = rebuilt_query(
            tree,
            changed,
            lambda part: self.node(part, common, identity),
            lambda modifier: self.node(modifier, common, for_order),
        )
        if select is not None and (settled := select_of(found)) is not None:
            pairs = zip(select.columns, settled.columns, strict=True)
            found = with_columns_of(found, [self._named(old, new) for old, new in pairs])
        return self._ordered(found, for_order, ordered=ordered)

    def _named(self, column: Node, changed: Node) -> Node:
        """Return an item of a SELECT list under the name that it had before it was changed."""
        return changed if changed is column or alias_of(column) else named(changed, self.name_of(column))

    def _ordered(self, query: Node, identity: Names | None, *, ordered: bool) -> Node:
        """Return a query whose ORDER BY tells all of its rows apart, where an identity does."""
        given = modifiers_of(query)
        chooses = given.is_limited or given.is_distinct_on
        if not given.is_ordered:
            self.by_arrival |= chooses
            return query
        if identity is None or given.is_distinct:
            self.by_arrival |= chooses or ordered
            return query
        return ordered_further(query, identity)

    def _window(self, window: Window, node: Node, identity: Names | None) -> Node:
        name = window.name
        self.by_digits |= name in SUMS
        if not window.is_plain:
            self.by_arrival = True
            return node
        # these give equal rows equal values, whichever comes first
        if name in _RANKS or (name in EXACT_AGGREGATES | SUMS and not _counts_rows(window)):
            return node
        if identity is None or not window.orders or not _is_helped(window):
            self.by_arrival = True
            return node
        return ordered_further(node, identity)

    def _call(self, name: str) -> None:
        self.by_digits |= name in SUMS
        self.by_arrival |= not (name in _EXACT or name in SUMS or is_operator(name))

    def _identity(self, source: Node | None, common: Mapping[str, Names | None]) -> Names | None:
        """Return the columns that tell the rows of a FROM clause apart; None where those are not known.

        Rows of a join are told apart by the columns of both sides: each pair comes once.
        """
        relation = relation_of(source)
        if isinstance(relation, Join):
            left = self._identity(relation.left, common)
            if relation.kind in ("SEMI", "ANTI"):
                return left
            right = self._identity(relation.right, common)
            return None if left is None or right is None else left + right
        if relation is None or relation.is_renamed:
            return None
        if isinstance(relation, Subquery):
            inner = self._given(relation.query, common)
            owner = (relation.alias,)
            return None if inner is None or not relation.alias else tuple((*owner, *p) for p in inner)
        if not isinstance(relation, BaseTable):
            return None
        schema, name = relation.schema, relation.name
        path = (relation.alias,) if relation.alias else ((schema, name) if schema else (name,))
        if not schema and name.lower() in common:
            inner = common[name.lower()]
        elif schema.lower() in ("", "main") and name.lower() in self.registered:
            inner = tuple((column,) for column in self.registered[name.lower()])
        else:
            mention = mention_of(relation, self.tables)
            inner = None if mention is None else tuple((column,) for column in IDENTITY[mention[1]])
        return None if inner is None else tuple((*path, *p) for p in inner)

    def _given(self, query: Node, outer: Mapping[str, Names | None]) -> Names | None:
        """Return the columns that tell the rows of a subquery apart outside of it:
        the identity of the one table whose rows it hands on.
        """
        select = select_of(query)
        if select is None or _is_grouped(query, select) or _multiplies(select):
            return None
        if common_tables(query) or isinstance(relation_of(select.source), Join):
            return None
        inner = self._identity(select.source, outer)
        if inner is None:
            return None
        given = []
        for path in inner:
            passed = next((name for c in select.columns if (name := _passed(c, path)) is not None), None)
            if passed is None or sum(_is_called(c, passed) for c in select.columns) > 1:
                return None
            given.append((passed,))
        return tuple(given)


def _counts_rows(window: Window) -> bool:
    """Tell whether a frame ends at rows, rather than at all rows that are equal in the order."""
    return window.start.endswith("_ROWS") or window.end.endswith("_ROWS")


def _is_helped(window: Window) -> bool:
    """Tell whether a window keeps its answers for rows that differ in its order when tied rows are told apart, too.

    A frame that ends at rows equal in the order would be another one: of these, only the first of all rows stays the first.
    """
    name, start, end = window.name, window.start, window.end
    if name in _PLACES or _counts_rows(window):
        return name in _PLACES | _VALUES | EXACT_AGGREGATES | SUMS
    whole = (start, end) == ("UNBOUNDED_PRECEDING", "UNBOUNDED_FOLLOWING")
    begins = name in ("first_value", "first") and start == "UNBOUNDED_PRECEDING" and not window.ignores_nulls
    return name in _VALUES and (whole or (begins and end == "CURRENT_ROW_RANGE"))


def _is_called(column: Node, name: str) -> bool:
    """Tell whether an item of a SELECT list has this name; a star has it, too, unless it excludes the column."""
    found = expression_of(column)
    if isinstance(found, Star):
        return name.lower() not in found.without
    own = alias_of(column) or (found.names[-1] if isinstance(found, Column) else "")
    return own.lower() == name.lower()


def _passed(column: Node, path: Sequence[str]) -> str | None:
    """Return the name under which an item of a SELECT list hands a column on, None if it does not."""
    found = expression_of(column)
    whole = [p.lower() for p in path]
    if isinstance(found, Star):
        is_mine = found.table in ("", whole[-2] if len(whole) > 1 else "")
        is_same = found.is_plain and whole[-1] not in found.without | found.replaced
        return path[-1] if is_mine and is_same else None
    if not isinstance(found, Column):
        return None
    names = [n.lower() for n in found.names]
    if len(names) <= len(whole) and names == whole[-len(names) :]:
        return alias_of(column) or found.names[-1]
    return None


def _is_grouped(query: Node, select: Select) -> bool:
    """Tell whether a SELECT makes one row of several."""
    return select.is_grouped or _calls([*select.columns, *modifiers_of(query).nodes], _AGGREGATES)


def _multiplies(select: Select) -> bool:
    """Tell whether a SELECT list makes several rows of one."""
    return _calls(select.columns, frozenset({"unnest", "generate_subscripts"}))


def _calls(nodes: Sequence[Node], names: frozenset[str]) -> bool:
    """Tell whether an expression calls one of some functions itself, not in a subquery or over a window."""
    found = map(expression_of, walk(nodes, without=is_query))
    return any(
        isinstance(call, Call) and not isinstance(call, Window) and call.name in names for call in found
    )
