"""SHOW TABLES and SHOW NAME in a syntax tree, as what they mean in a bank. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tensorbank.errors import ErrorKind, InvalidInputError

__all__ = ["TABLES", "as_relations"]

TABLES = "tensorbank_tables"
"""The name of the relation that lists the bank's tables, in its column ``name``."""


def as_relations(tree: Any, relation_of: Callable[[str], Any]) -> Any:
    """Return the tree with SHOW TABLES as a relation, and SHOW NAME as DESCRIBE NAME.

    Parameters
    ----------
    relation_of
        Gives the FROM clause of a statement.

    Raises
    ------
    InvalidInputError
        Something else is to be shown.
    """
    if isinstance(tree, list):
        return [as_relations(child, relation_of) for child in tree]
    if not isinstance(tree, dict):
        return tree
    if tree.get("type") != "SHOW_REF" or tree.get("query"):
        return {key: as_relations(value, relation_of) for key, value in tree.items()}
    name = str(tree.get("table_name"))
    if tree.get("show_type") != "SHOW_SPECIAL":
        return relation_of(f"DESCRIBE {name}")
    if name.strip('"') not in ("tables", "__show_tables_expanded"):
        raise InvalidInputError(
            "a bank has tables: SHOW TABLES names them, DESCRIBE their columns", kind=ErrorKind.SQL
        )
    return {**relation_of(f"FROM {TABLES}"), "alias": tree.get("alias", "")}
