"""The tables that a statement mentions by their names. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tensorbank.layout import LEVELS, Level
from tensorbank.sql import BaseTable, Node, common_tables, relation_of, walk

__all__ = ["common_names", "mention_of", "mentions"]


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
