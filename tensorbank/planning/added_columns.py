"""Columns that were added to a table later: which of them a statement needs, and the join that shows them.

DuckDB joins whatever a view joins, whether the statement asks for it or not, so a view has only the columns that the statement
may mean. A column that is left out is none that it can mean.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pyarrow as pa

from tensorbank.catalog import Catalog
from tensorbank.delta import VersionState
from tensorbank.sql import (
    BaseTable,
    Column,
    Database,
    Node,
    Show,
    Star,
    expression_of,
    quoted,
    read_parquet,
    relation_of,
    strings_in,
    walk,
)

__all__ = ["needed_columns", "with_columns"]


def needed_columns(tree: Node, columns: Collection[str]) -> tuple[str, ...]:
    """Return those of some columns whose names occur in a statement; all of them where it may mean any. Pure.

    It may by a star, where it names a whole row, where it asks what columns there are, and by NATURAL JOIN.
    """
    if not columns:
        return ()
    words = {text.lower() for text in strings_in(tree)}
    if "natural" in words or any(_means_any(node) for node in walk(tree)) or _names_rows(tree):
        return tuple(columns)
    return tuple(name for name in columns if name.lower() in words)


def _means_any(node: Node) -> bool:
    return isinstance(expression_of(node), Star) or isinstance(relation_of(node), Show)


def _names_rows(tree: Node) -> bool:
    """Tell whether a name of a relation stands where a column does: it means a row as a struct of all columns."""
    relations = [found for node in walk(tree) if isinstance(found := relation_of(node), BaseTable)]
    names = {name.lower() for found in relations for name in (found.name, found.alias) if name}
    columns = [column for node in walk(tree) if isinstance(column := expression_of(node), Column)]
    return any(len(column.names) == 1 and column.names[0].lower() in names for column in columns)


def with_columns(
    rows: str, table: str, added: Mapping[str, VersionState], db: Database, catalog: Catalog
) -> str:
    """Return the SELECT of rows of samples with the values of added columns, null where a sample has none.

    Parameters
    ----------
    rows
        SELECT of the rows, with their ``key``.
    table
        Name of the table, for what is registered.
    """
    if not added:
        return rows
    values, joins = [], []
    for number, (name, state) in enumerate(added.items()):
        paths = [str(path) for path in catalog.mirror.readable(state.files.files)]
        scan = read_parquet(paths) if paths else _empty(f"{table}_{name}_without_values", state, db)
        values.append(f"added{number}.value AS {quoted(name)}")
        joins.append(f"LEFT JOIN {scan} AS added{number} ON live.key = added{number}.key")
    return f"SELECT live.*, {', '.join(values)} FROM ({rows}) AS live {' '.join(joins)}"


def _empty(name: str, state: VersionState, db: Database) -> str:
    """Register no rows of a column, of its type."""
    empty: Any = pa.schema([pa.field(f.name, f.type) for f in state.columns]).empty_table()
    db.register(name, empty)
    return quoted(name)
