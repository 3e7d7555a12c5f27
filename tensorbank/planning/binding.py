"""A statement bound to the tables of a bank: what its names mean, which files it needs, and what DuckDB is asked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import pyarrow as pa

from tensorbank.arrow_numpy import strings
from tensorbank.catalog import Catalog
from tensorbank.errors import ErrorKind, InvalidInputError
from tensorbank.layout import Level
from tensorbank.planning.editions import Editions, with_editions
from tensorbank.planning.logs_ahead import LogsAhead
from tensorbank.planning.pinned_table import PinnedTable, pin_mentioned
from tensorbank.planning.statement import Statement
from tensorbank.pruning import ANYTHING, AllOf, Condition, wanted
from tensorbank.schema import TableSchema
from tensorbank.sql import (
    POLYGON_FUNCTION,
    TABLES,
    Node,
    Parser,
    as_relations,
    query_of,
    select_of,
    without_semicolon,
)
from tensorbank.statements import (
    check_handles,
    check_inside,
    check_known,
    check_repeatable,
    functions_of,
    mentions,
    n_predicates,
    rewrite,
    settle,
    shorten,
)

__all__ = ["Bound", "Namespace", "bind", "spelled_out"]


@dataclass(frozen=True)
class Namespace:
    """The tables that names in a statement may mean.

    Parameters
    ----------
    catalog
        The bank's tables.
    versions
        Tables pinned to a version; others are taken at their newest.
    registered
        The user's own tables, by name.
    """

    catalog: Catalog
    versions: Mapping[str, int]
    registered: Mapping[str, pa.Table]

    def names(self) -> list[str]:
        """Return the names of all tables, for hints."""
        return [*self.catalog.told_tables(), *self.registered]


@dataclass(frozen=True)
class PlainSql:
    """A statement with its ties broken, and without predicates that DuckDB does not have.

    Parameters
    ----------
    tree
        Its syntax tree, which tells what rows it needs.
    functions
        Functions of TensorBank's own that the statement calls, in lower case.
    n_pixel_predicates
        Number of predicates of pixels.
    one_thread
        True if rows have to be taken in their order for the answer to be the same again.
    """

    tree: Node
    text: str
    functions: frozenset[str]
    n_pixel_predicates: int
    one_thread: bool

    @property
    def has_polygons(self) -> bool:
        return POLYGON_FUNCTION in self.functions


@dataclass(frozen=True)
class Bound:
    """A statement bound to the tables that it mentions.

    Parameters
    ----------
    tables
        Tables of the bank, each with the files that may hold rows of the answer as far as the log tells.
    joined
        Tables of the user, and of what is shown, by name.
    plain
        The statement for DuckDB.
    is_plan
        True if the answer must be the same again, to the last digit.
    listed
        Tree with long lists of constants as they were written, None if there are none: ``plain`` has rows of a subquery for
        them, which does not bind where types do not fit.
    """

    statement: Statement
    tables: tuple[PinnedTable, ...]
    joined: Mapping[str, pa.Table]
    plain: PlainSql
    is_plan: bool
    listed: Node | None = None

    @cached_property
    def schemas(self) -> dict[str, TableSchema]:
        """The schemas of the bank's tables, by their names in the statement."""
        return {table.name: table.schema for table in self.tables}


def bind(
    statement: Statement,
    namespace: Namespace,
    parser: Parser,
    has_function: Callable[[str], bool],
    ahead: LogsAhead,
    *,
    levels: Collection[Level] = (),
    is_plan: bool = False,
) -> Bound:
    """Bind a statement: nothing of it is executed.

    Parameters
    ----------
    has_function
        Tells whether DuckDB has a function of that name.
    ahead
        Logs that are being read already.
    levels
        Levels to be shown beside those that the statement mentions.
    is_plan
        True if the answer must be the same again, to the last digit.

    Raises
    ------
    InvalidInputError, NotFoundError
        The statement names or calls what it must not.
    """
    catalog = namespace.catalog
    joined: dict[str, pa.Table] = {}
    tree = statement.tree
    if not is_plan and statement.describes:
        joined[TABLES] = pa.Table.from_arrays([strings(catalog.tables())], names=["name"])
        tree = as_relations(tree, lambda sql: _source(parser.tree(sql)))
    tree, dated = with_editions(tree, catalog, namespace.registered)
    if dated:
        statement = _dated(statement, tree, parser)
    short = shorten(tree, parser.node)
    check_inside(short)
    named = {table.name.lower() for _, table in mentions(short) if table.schema.lower() in ("", "main")}
    joined |= {name: table for name, table in namespace.registered.items() if name.lower() in named}
    tables = pin_mentioned(catalog, short, levels, Editions(namespace.versions, dated), joined, ahead)
    schemas = {table.name: table.schema for table in tables}
    check_known(short, schemas, joined, namespace.names)
    if is_plan:
        check_repeatable(short, has_function)
    check_handles(short, schemas)
    text = statement.text if short is statement.tree else parser.text(short)
    plain = _plain(short, text, schemas, joined, parser, exact=is_plan)
    conditions = wanted(plain.tree, schemas)
    if short is not tree:  # rows of a subquery rule nothing out, the constants do
        listed = wanted(tree, schemas)
        conditions = {at: AllOf((c, listed[at])) for at, c in conditions.items()}
    if statement.has_open_pivot:
        if is_plan or plain.functions or dated:
            raise InvalidInputError(
                "the columns of this PIVOT follow from the data, so another snapshot may have others; name them, such as "
                "PIVOT t ON split IN ('train', 'val') USING count(*)",
                kind=ErrorKind.SQL,
            )
        conditions = dict.fromkeys(conditions, ANYTHING)
        plain = replace(plain, text=without_semicolon(statement.sql))
    in_order = plain.one_thread or statement.has_open_pivot
    kept = tuple(table.by_files(_of_table(table.name, conditions), in_order=in_order) for table in tables)
    return Bound(statement, kept, joined, plain, is_plan, None if short is tree else tree)


def _dated(statement: Statement, tree: Node, parser: Parser) -> Statement:
    """Return a statement with a tree whose tables have the names of their editions."""
    text = parser.text(tree)
    if not parser.says(text, tree):
        raise InvalidInputError(
            "this statement cannot be asked of another version, since DuckDB does not write it back as it was; pin the "
            "version by bank.at({table: version}) instead of AT",
            kind=ErrorKind.SQL,
        )
    return replace(statement, text=text, tree=tree)


def spelled_out(bound: Bound, parser: Parser) -> PlainSql:
    """Return a statement's SQL with its long lists as they were written."""
    tree = bound.listed
    return _plain(tree, parser.text(tree), bound.schemas, bound.joined, parser, exact=bound.is_plan)


def _plain(
    tree: Node,
    text: str,
    schemas: Mapping[str, TableSchema],
    joined: Mapping[str, pa.Table],
    parser: Parser,
    *,
    exact: bool,
) -> PlainSql:
    """Break the ties of a statement, and replace its predicates.

    ``exact`` counts the last digits of sums as part of the answer.
    """
    settled = settle(tree, schemas, {name: table.column_names for name, table in joined.items()}, parser.name)
    one_thread = settled.by_arrival or (exact and settled.by_digits)
    if settled.tree is not tree:
        said = parser.text(settled.tree)
        if parser.says(said, settled.tree):
            tree, text = settled.tree, said
        else:  # words were lost on the way back
            one_thread = True
    functions = frozenset(functions_of(tree))
    counted = n_predicates(tree)
    if functions:
        tree = rewrite(tree, schemas, parser.node)
        text = parser.text(tree)
    return PlainSql(tree, text, functions, counted, one_thread)


def _source(tree: Node) -> Node:
    """Return the FROM clause of a statement."""
    select = select_of(query_of(tree))
    return None if select is None else select.source


def _of_table(name: str, conditions: Mapping[tuple[str, Level], Condition]) -> dict[Level, Condition]:
    return {level: condition for (table, level), condition in conditions.items() if table == name}
