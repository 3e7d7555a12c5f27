"""SHOW TABLES and SHOW NAME in a syntax tree, as what they mean in a bank. Pure."""

from __future__ import annotations

from collections.abc import Callable

from tensorbank.errors import ErrorKind, InvalidInputError
from tensorbank.sql.expressions import named
from tensorbank.sql.syntax import Show, relation_of
from tensorbank.sql.trees import Node, rebuilt

__all__ = ["TABLES", "as_relations"]

TABLES = "tensorbank_tables"
"""The name of the relation that lists the bank's tables, in its column ``name``."""


def as_relations(tree: Node, relation: Callable[[str], Node]) -> Node:
    """Return the tree with SHOW TABLES as a relation, and SHOW NAME as DESCRIBE NAME.

    Parameters
    ----------
    relation
        Gives the FROM clause of a statement.

    Raises
    ------
    InvalidInputError
        Something else is to be shown.
    """
    found = relation_of(tree)
    if not isinstance(found, Show) or found.query:
        return rebuilt(tree, lambda child: as_relations(child, relation))
    if not found.is_special:
        return relation(f"DESCRIBE {found.name}")
    if found.name.strip('"') not in ("tables", "__show_tables_expanded"):
        raise InvalidInputError(
            "only SHOW TABLES, which lists the tables, and DESCRIBE table, which lists its columns, can be answered",
            kind=ErrorKind.SQL,
        )
    return named(relation(f"FROM {TABLES}"), found.alias)
