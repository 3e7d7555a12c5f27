"""Find the condition that rows of each mentioned table must satisfy,
by which index files and shards are pruned. Pure.

Rows that fail the condition of a mention may be missing from the table there, in any number, and the statement still has the
same answer. That is proved operator by operator; where there is no proof, nothing is asked and so nothing is pruned.

*A SELECT.* Let F be the rows of its FROM clause and W its WHERE. All that follows (groups, windows, QUALIFY, DISTINCT, LIMIT,
whatever is around the SELECT) sees F filtered by W only, so it is enough that this stays. A sample that the SELECT draws
(``USING SAMPLE``) is drawn of F, before W: then nothing is asked. Subqueries, common tables, the branches of UNION, EXCEPT and of
recursive common tables are SELECTs of their own; no condition is carried from one into another.

*WHERE and joins.* Let r be a row of the table behind one item of F, of which W's necessary condition C fails: no comparison that
C needs holds of r, nor of NULL in r's place, since a comparison with NULL is not true. Take r away. Claim: the rows of F whose
part of this item is another row stay as they are; so what changes has r or NULL there, and W is not true of it. By induction
over the joins above the item:

* INNER, CROSS, LEFT, RIGHT and FULL, either side, by ON, USING or NATURAL: pairs are made row by row, and a row without a
  partner is filled up with NULLs by itself. On the other side a row may lose its only partner: it then has NULL for the item.
* SEMI, ANTI and ASOF, left side: the fate of each left row is decided by the right side alone, row by row.
* SEMI, ANTI, right side: not so. The right rows say which left rows stay, and W does not see them.
* ASOF, right side: not so. The next best row takes the place of r.
* POSITIONAL, either side: not so. All rows after r move up.
* A sample drawn of a join or of a table: not so, for what is in it.

*ON.* Rows of a side that fails the ON condition match nothing. Where a side's rows without a match do not appear, the join stays
the same if they are missing: both sides of INNER and SEMI, the right of LEFT and ANTI, the left of RIGHT.

*Names.* A comparison asks something of the one item that its column belongs to. A qualified name belongs to the item of that
name. Any other belongs to whichever item has such a column; if several have, DuckDB refuses it, but for the columns that a join
by USING or NATURAL makes one: these are used only where every item is a table of the bank (so that the types are the same) and
every join is INNER (so that the values are).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tensorbank.layout import Level
from tensorbank.pruning.conditions import ANYTHING, AllOf, AnyOf, Compare, Condition
from tensorbank.pruning.necessary import Resolve, necessary
from tensorbank.schema import TableSchema
from tensorbank.sql import Join, Node, Select, relation_of, select_of
from tensorbank.statements import Item, Visible, in_scopes, mention_of, mentions

__all__ = ["wanted"]

Mention = tuple[str, Level]
_PAIRED = ("REGULAR", "CROSS", "NATURAL")
"""The kinds of join that pair rows one by one, by a condition on the two."""
_WHERE_REACHES = {
    "INNER": (True, True),
    "LEFT": (True, True),
    "RIGHT": (True, True),
    "FULL": (True, True),
    "SEMI": (True, False),
    "ANTI": (True, False),
}
"""A pair of flags for each join: whether what is asked of its rows may be asked of those of its left,
and of its right side."""
_ON_REACHES = {
    "INNER": (True, True),
    "LEFT": (False, True),
    "RIGHT": (True, False),
    "SEMI": (True, True),
    "ANTI": (False, True),
}
"""A pair of flags for each join: whether rows of its left, and of its right side,
matter only if they may satisfy its ON condition."""


def wanted(tree: Node, tables: Mapping[str, TableSchema]) -> dict[Mention, Condition]:
    """Return what rows of each mentioned table and level must satisfy to matter to a statement.

    A table that is mentioned several times needs the rows of every mention.
    """
    found: dict[Mention, list[Condition]] = {}
    handled: set[int] = set()
    for node, around in in_scopes(tree, Visible(tables)):
        select = select_of(node)
        if select is None:
            continue
        for leaf, condition in _From.of(select, around.scopes[0].items).asked():
            if leaf.item.mention is not None:
                handled.add(id(leaf.node))
                found.setdefault(leaf.item.mention, []).append(condition)
    for node, table in mentions(tree):
        mention = mention_of(table, tables)
        if mention is not None and id(node) not in handled:
            found.setdefault(mention, []).append(ANYTHING)
    return {mention: parts[0] if len(parts) == 1 else AnyOf(tuple(parts)) for mention, parts in found.items()}


@dataclass(frozen=True, slots=True)
class _Leaf:
    """An item of a FROM clause, and its node."""

    node: Node
    item: Item


@dataclass(frozen=True, slots=True)
class _From:
    """The FROM clause of one SELECT."""

    select: Select
    leaves: tuple[_Leaf, ...]
    shared: frozenset[str] | None
    """The columns that a join makes one, lower-case; None where they may be any."""
    same: bool
    """True if columns that a join makes one have the same values on both sides."""

    @classmethod
    def of(cls, select: Select, items: Sequence[Item]) -> _From:
        leaves = tuple(_Leaf(n, i) for n, i in zip(_leaf_nodes(select.source), items, strict=True))
        joins = list(_joins(select.source))
        natural = any(j.how == "NATURAL" for j in joins)
        using = {name.lower() for j in joins for name in j.using}
        inner = all(j.kind == "INNER" and j.how in _PAIRED for j in joins)
        same = inner and all(leaf.item.mention is not None for leaf in leaves)
        return cls(select, leaves, None if natural else frozenset(using), same)

    def asked(self) -> Iterator[tuple[_Leaf, Condition]]:
        """Yield each item, with what its rows must satisfy to matter."""
        where = necessary(self.select.where, self._names(_visible(self.select.source)))
        above = () if self.select.is_sampled else (where,)
        yield from self._of_node(self.select.source, 0, above)

    def _of_node(
        self, node: Node | None, first: int, above: tuple[Condition, ...]
    ) -> Iterator[tuple[_Leaf, Condition]]:
        """Yield the items below a node, which begin with number ``first``; ``above`` is what its own rows must satisfy."""
        found = relation_of(node)
        if found is None:
            return
        if found.is_sampled:
            above = ()
        if not isinstance(found, Join):
            parts = tuple(_of_item(condition, first) for condition in above)
            yield self.leaves[first], parts[0] if len(parts) == 1 else AllOf(parts)
            return
        sides = (found.left, found.right)
        firsts = (first, first + len(list(_leaf_nodes(found.left))))
        from_where = (found.how == "ASOF", False)
        from_on = (False, False)
        if found.how in _PAIRED:
            from_where = _WHERE_REACHES.get(found.kind, (False, False))
            from_on = _ON_REACHES.get(found.kind, (False, False))
        both = [n for side, start in zip(sides, firsts, strict=True) for n in _visible(side, start)]
        on = necessary(found.condition, self._names(both))
        for side, number, where_holds, on_holds in zip(sides, firsts, from_where, from_on, strict=True):
            yield from self._of_node(
                side, number, (*(above if where_holds else ()), *((on,) if on_holds else ()))
            )

    def _names(self, visible: Sequence[int]) -> Resolve:
        """Return the resolver of names in an expression that sees some of the items."""

        def resolve(path: Sequence[str]) -> tuple[int | None, tuple[str, ...]] | None:
            lower = tuple(name.lower() for name in path)
            owners = {
                (number, len(name))
                for number in visible
                for name in self.leaves[number].item.names
                if len(lower) > len(name) and lower[: len(name)] == name
            }
            if owners:
                number, n_prefix = owners.pop()
                return None if owners else (number, lower[n_prefix:])
            if not self.same and (self.shared is None or lower[0] in self.shared):
                return None
            return (visible[0] if len(visible) == 1 else None), lower

        return resolve


def _of_item(condition: Condition, number: int) -> Condition:
    """Reduce a condition to what it asks of one item: comparisons of other items count as satisfiable."""
    if isinstance(condition, Compare):
        return condition if condition.owner in (None, number) else ANYTHING
    parts = tuple(_of_item(p, number) for p in condition.parts)
    return AllOf(parts) if isinstance(condition, AllOf) else AnyOf(parts)


def _leaf_nodes(node: Node | None) -> Iterator[Node]:
    """Yield the items of a FROM clause, in the order of a scope's."""
    found = relation_of(node)
    if isinstance(found, Join):
        yield from _leaf_nodes(found.left)
        yield from _leaf_nodes(found.right)
    elif found is not None:
        yield node


def _joins(node: Node | None) -> Iterator[Join]:
    found = relation_of(node)
    if isinstance(found, Join):
        yield found
        yield from _joins(found.left)
        yield from _joins(found.right)


def _visible(node: Node | None, first: int = 0) -> list[int]:
    """Return the numbers of the items below a node, counted from ``first``, whose columns its rows have."""
    found = relation_of(node)
    if not isinstance(found, Join):
        return [first for _ in _leaf_nodes(node)]
    left = _visible(found.left, first)
    if found.kind in ("SEMI", "ANTI"):
        return left
    return [*left, *_visible(found.right, first + len(list(_leaf_nodes(found.left))))]
