"""Find what the FROM clauses of a statement take rows from:
the bank, the tables registered with it, and nothing else. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from tensorbank.errors import ErrorKind, InvalidInputError, nearest
from tensorbank.layout import LEVELS, Level
from tensorbank.sql import (
    TABLE_FUNCTIONS,
    BaseTable,
    Node,
    TableFunction,
    children_but_common_tables,
    common_tables,
    recursive_name,
    relation_of,
    walk,
)

__all__ = ["check_inside", "check_known", "common_names", "mention_of", "mentions"]

_FILE = re.compile(r"[./\\*:?]")
"""A pattern of the signs of a file or URL: no name of a table has one of these."""
_READERS = re.compile(r"read_\w+|\w+_scan|\w*scan\w*|parquet_\w+|sniff_csv|glob|st_read\w*|query\w*")
_REGISTER = (
    "read it and give it a name, such as bank.register('mine', table): its content is then part of the plan"
)


def check_inside(tree: Node) -> None:
    """Refuse files, URLs and functions that read.

    Raises
    ------
    InvalidInputError
        The statement has some.
    """
    for relation, _ in _relations(tree, frozenset()):
        if isinstance(relation, TableFunction):
            _check_function(relation.name)
        elif _FILE.search(relation.name):
            raise InvalidInputError(
                f"{relation.name!r} is outside of the bank and may change; {_REGISTER}",
                kind=ErrorKind.OUTSIDE_BANK,
            )


def check_known(
    tree: Node,
    tables: Collection[str],
    registered: Collection[str],
    every_table: Callable[[], Iterable[str]],
) -> None:
    """Refuse tables that are neither the bank's, nor registered, nor the statement's own; DuckDB's catalogue is neither.

    Parameters
    ----------
    tables
        Those of the bank that the statement mentions.
    registered
        Names of the user's own.
    every_table
        Gives the bank's tables and the user's own, for hints.

    Raises
    ------
    InvalidInputError
        The statement has one.
    """
    mine = {name.lower() for name in registered}
    known = dict.fromkeys(tables)
    for relation, common in _relations(tree, frozenset()):
        if isinstance(relation, TableFunction):
            continue
        schema, name = relation.schema.lower(), relation.name
        is_common = schema in ("", "recurring") and name.lower() in common
        is_mine = schema in ("", "main") and name.lower() in mine
        if relation.catalog or not (is_common or is_mine or mention_of(relation, known)):
            path = [part for part in (relation.catalog, relation.schema) if part]
            raise _unknown(path, name, list(every_table()))


def _check_function(name: str) -> None:
    if name in TABLE_FUNCTIONS:
        return
    if _READERS.fullmatch(name):
        raise InvalidInputError(
            f"{name}() reads what is outside of the bank and may change; {_REGISTER}",
            kind=ErrorKind.OUTSIDE_BANK,
        )
    raise InvalidInputError(
        f"{name}() is not a table function that a query can use.{nearest(name, TABLE_FUNCTIONS)}",
        kind=ErrorKind.OUTSIDE_BANK,
    )


def _unknown(path: Sequence[str], name: str, tables: Sequence[str]) -> InvalidInputError:
    if path and path[-1].lower() in {t.lower() for t in tables}:
        hint = nearest(name, LEVELS)
    else:
        hint = nearest(name, tables) or " No table of this bank is known."
    return InvalidInputError(
        f"there is no table {'.'.join([*path, name])!r}.{hint}", kind=ErrorKind.UNKNOWN_TABLE
    )


def _relations(
    node: Node, common: frozenset[str]
) -> Iterator[tuple[BaseTable | TableFunction, frozenset[str]]]:
    """Yield every base table and table function, with the common table expressions that are visible there, in lower case.

    A common table expression sees those before it; a recursive one also itself.
    """
    relation = relation_of(node)
    if isinstance(relation, BaseTable | TableFunction):
        yield relation, common
    if (own := recursive_name(node)) is not None:
        common |= {own.lower()}
    for table in common_tables(node):
        yield from _relations(table.query, common)
        common |= {table.name.lower()}
    for child in children_but_common_tables(node):
        yield from _relations(child, common)


def mention_of(table: BaseTable, tables: Mapping[str, Any]) -> tuple[str, Level] | None:
    """Return the table of the bank and the level that a name means, None if it means none of them.

    Parameters
    ----------
    tables
        Tables by name as the bank spells it.
    """
    schema, name = table.schema.lower(), table.name.lower()
    spelled = {t.lower(): t for t in tables}
    if schema in ("", "main"):
        return (spelled[name], "samples") if name in spelled else None
    level = next((v for v in LEVELS if v == name), None)
    return (spelled[schema], level) if schema in spelled and level is not None else None


def mentions(tree: Node) -> Iterator[tuple[Node, BaseTable]]:
    """Yield every table that a syntax tree names, with its node."""
    for node in walk(tree):
        if isinstance(found := relation_of(node), BaseTable):
            yield node, found


def common_names(tree: Node) -> set[str]:
    """Return the names of all common table expressions of a syntax tree, as they are spelled there."""
    return {table.name for node in walk(tree) for table in common_tables(node)}
