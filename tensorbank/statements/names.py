"""Resolve the names in a statement: which of them is a column of which table, and which modality. Pure.

Every SELECT has a scope: the items of its FROM clause. A handle keeps its meaning through aliases, stars, ``bands()``, CASE and
COALESCE, set operations, subqueries and common table expressions; where it cannot be followed, nothing is claimed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tensorbank.layout import Level
from tensorbank.schema import TableSchema
from tensorbank.sql import (
    BaseTable,
    Call,
    Choice,
    Column,
    Join,
    Node,
    ScalarQuery,
    Star,
    Subquery,
    alias_of,
    children,
    common_tables,
    expression_of,
    is_null,
    recursive_name,
    relation_of,
    select_of,
    set_operation_of,
    text_of,
)
from tensorbank.statements.origins import (
    Columns,
    Handles,
    Origin,
    Origins,
    joined,
    matched_by_name,
    matched_by_place,
    only,
)
from tensorbank.statements.relations import mention_of

__all__ = [
    "Found",
    "Item",
    "Scope",
    "Visible",
    "choice_of_bands",
    "in_scopes",
    "outputs",
    "texts_of",
]


@dataclass(frozen=True, slots=True)
class Found:
    """A handle that a path names: its origin, the path of the handle itself, and what follows it."""

    origin: Origin
    path: tuple[str, ...]
    rest: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a FROM clause, by any of its lower-case names.

    ``mention`` is (table, level) where it is a bank's table under the names of its own columns.
    """

    names: tuple[tuple[str, ...], ...]
    handles: Handles
    mention: tuple[str, Level] | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """The items that the names in one SELECT may refer to."""

    items: tuple[Item, ...]

    def handle(self, path: Sequence[str]) -> Found | None:
        """Find the handle that a path such as ``t.S2L2A.B08`` begins with: a whole one, certainly of one modality."""
        place, origins = self.origins(path)
        if not origins or origins[0].bands is not None or not all(map(origins[0].is_like, origins)):
            return None
        return Found(origins[0], tuple(path[:place]), tuple(path[place:]))

    def origins(self, path: Sequence[str]) -> tuple[int, Origins]:
        """Return the length of the path of the handle that a path begins with, and where its tensors may come from."""
        lower = tuple(p.lower() for p in path)
        for item, n_prefix in self._owners(lower):
            if len(lower) > n_prefix and (origins := item.handles.get(lower[n_prefix])) is not None:
                return n_prefix + 1, origins
        return 0, ()

    def owns(self, path: Sequence[str]) -> bool:
        """Tell whether a column is certainly one of a bank's table."""
        lower = tuple(p.lower() for p in path)
        item, n_prefix = next(((i, n) for i, n in self._owners(lower) if n), (None, 0))
        if item is None and len(self.items) == 1:
            item = self.items[0]
        return len(lower) == n_prefix + 1 and item is not None and item.mention is not None

    def _owners(self, path: tuple[str, ...]) -> Iterator[tuple[Item, int]]:
        """Yield the items that may own a path, those that it names first, and the length of the name in it."""
        for item in self.items:
            for name in item.names:
                if len(path) > len(name) and path[: len(name)] == name:
                    yield item, len(name)
        for item in self.items:
            yield item, 0


@dataclass(frozen=True, slots=True)
class Visible:
    """The handles and scopes that names in a part of a statement may refer to.

    ``common`` are the handles of the common table expressions, by lower-case name; ``scopes`` those of the SELECTs around the
    part, the innermost first.
    """

    tables: Mapping[str, TableSchema]
    common: Mapping[str, Handles] = field(default_factory=dict)
    scopes: tuple[Scope, ...] = ()

    def inside(self, node: Node) -> Visible:
        """Return what is visible to a node and to what is below it, given what is around it."""
        found = self
        if (own := recursive_name(node)) is not None:
            found = replace(found, common={**found.common, own.lower(): {}})
        for table in common_tables(node):
            handles = {} if table.is_renamed else outputs(table.query, found)
            found = replace(found, common={**found.common, table.name.lower(): handles})
        select = select_of(node)
        if select is None:
            return found
        return replace(found, scopes=(Scope(tuple(_items(select.source, found))), *found.scopes))

    def handle(self, path: Sequence[str]) -> Found | None:
        """Find the handle that a path begins with, in the innermost scope that has it."""
        return next((found for scope in self.scopes if (found := scope.handle(path))), None)

    def handle_of(self, node: Node) -> Found | None:
        """Find the handle that a column begins with; None of any other expression."""
        column = expression_of(node)
        return self.handle(column.names) if isinstance(column, Column) else None


def in_scopes(tree: Node, around: Visible) -> Iterator[tuple[Node, Visible]]:
    """Yield every node, with what is visible to it."""
    around = around.inside(tree)
    yield tree, around
    for child in children(tree):
        yield from in_scopes(child, around)


def outputs(query: Node, around: Visible) -> Handles:
    """Return the handle columns that a query gives."""
    found: dict[str, Origins | None] = {}
    for is_star, columns in _columns(query, around):
        for name, origins in columns.items():
            # of two columns of one name the first keeps it; but one of a star may be another than it seems
            found[name] = origins if name not in found else found[name] if is_star else None
    return {name: origins for name, origins in found.items() if origins}


def origins_of_result(query: Node, around: Visible, names: Sequence[str]) -> list[Origins]:
    """Return where the tensors of each column of a result may come from; none where that is not known.

    Parameters
    ----------
    names
        Names of the result's columns. What a star stands for is found by name, other columns by their place: DuckDB makes up
        the name of an expression without an alias.
    """
    columns, by_name = _columns(query, around), outputs(query, around)
    if len(columns) > len(names):
        return [() for _ in names]
    stars = [place for place, (is_star, _) in enumerate(columns) if is_star]
    n_before, n_after = (stars[0], len(columns) - stars[-1] - 1) if stars else (len(columns), 0)
    if not stars and len(columns) != len(names):
        n_before = n_after = 0
    middle = names[n_before : len(names) - n_after]
    before, after = columns[:n_before], columns[len(columns) - n_after :]
    return [*map(only, before), *(by_name.get(name.lower(), ()) for name in middle), *map(only, after)]


def choice_of_bands(call: Call) -> tuple[Node, Node] | None:
    """Return the handle and the list of names that ``bands()`` is called with, None of another call."""
    given = [*call.arguments, *(call.by_name[n] for n in ("handle", "names") if n in call.by_name)]
    return (given[0], given[1]) if call.name == "bands" and len(given) == 2 else None


def texts_of(node: Node) -> tuple[str, ...] | None:
    """Return the texts of a list of constants, None of anything else."""
    call = expression_of(node)
    if not isinstance(call, Call) or call.name not in ("list_value", "list_pack"):
        return None
    texts = [text for a in call.arguments if (text := text_of(a)) is not None]
    return tuple(texts) if len(texts) == len(call.arguments) else None


def _items(source: Node | None, around: Visible) -> Iterator[Item]:
    """Yield the items of a FROM clause, from left to right."""
    found = relation_of(source)
    if isinstance(found, Join):
        yield from _items(found.left, around)
        yield from _items(found.right, around)
    elif isinstance(found, BaseTable):
        yield _base_item(found, around)
    elif found is not None:
        handles = outputs(found.query, around) if isinstance(found, Subquery) else {}
        names = ((found.alias.lower(),),) if found.alias else ()
        yield Item(names, {} if found.is_renamed else handles)


def _base_item(found: BaseTable, around: Visible) -> Item:
    schema, name, alias = found.schema.lower(), found.name.lower(), found.alias.lower()
    if not schema and name in around.common:
        return Item(((alias or name,),), {} if found.is_renamed else around.common[name])
    mention = mention_of(found, around.tables)
    if mention is None:
        return Item(((alias or name,),), {})
    names = ((alias,),) if alias else ((name,), *([(schema, name)] if schema else []))
    if found.is_renamed:
        return Item(names, {})
    table, level = mention
    return Item(names, {m.name.lower(): (Origin(table, level, m),) for m in around.tables[table]}, mention)


def _columns(query: Node, around: Visible) -> Columns:
    around = around.inside(query)
    together = set_operation_of(query)
    if together is not None:
        branches = [_columns(branch, around) for branch in together.branches]
        return matched_by_name(branches) if together.by_name else matched_by_place(branches)
    select = select_of(query)
    if select is None:
        return []
    found: Columns = []
    for node in select.columns:
        column = expression_of(node)
        if isinstance(column, Star):
            found.append((True, dict(_of_star(column, around.scopes[0]))))
        elif isinstance(column, Call) and column.name == "unnest":
            found.append((True, {}))  # of a struct it makes a column a field
        else:
            found.append((False, {_name_of(node).lower(): _origins_of(node, around)}))
    return found


def _name_of(node: Node) -> str:
    column = expression_of(node)
    return alias_of(node) or (column.names[-1] if isinstance(column, Column) else "")


def _origins_of(node: Node, around: Visible) -> Origins | None:
    """Return where the tensors that an expression gives may come from: None where that is not known."""
    if is_null(node):
        return ()
    found = expression_of(node)
    if isinstance(found, Column):
        place, origins = around.scopes[0].origins(found.names)
        return origins if origins and place == len(found.names) else None
    if isinstance(found, Call) and (chosen := choice_of_bands(found)) is not None:
        handle, bands = _origins_of(chosen[0], around), texts_of(chosen[1])
        return None if handle is None or bands is None else tuple(replace(o, bands=bands) for o in handle)
    if isinstance(found, Choice):
        return joined(_origins_of(result, around) for result in found.results)
    if isinstance(found, Call) and found.name == "if" and len(found.arguments) == 3:
        return joined(_origins_of(result, around) for result in found.arguments[1:])
    if isinstance(found, ScalarQuery):
        columns = _columns(found.query, around)
        return next(iter(columns[0][1].values())) if len(columns) == 1 and not columns[0][0] else None
    return None


def _of_star(star: Star, scope: Scope) -> Iterator[tuple[str, Origins]]:
    for item in scope.items:
        if star.is_plain and (not star.table or (star.table,) in item.names):
            for name, origins in item.handles.items():
                if name not in star.without | star.replaced:
                    yield name, origins
