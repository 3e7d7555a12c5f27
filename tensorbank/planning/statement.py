"""A statement as it was asked: parsed once, and bound to nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass

from tensorbank.sql import Node, Parser, Show, modifiers_of, query_of, relation_of, walk

__all__ = ["Statement", "parse"]


@dataclass(frozen=True)
class Statement:
    """One SELECT.

    Parameters
    ----------
    sql
        The text as it was given.
    text
        The text without what ends it; each PIVOT whose columns only the data name has one column in it.
    tree
        Syntax tree of ``text``.
    has_open_pivot
        True if the text has such a PIVOT.
    """

    sql: str
    text: str
    tree: Node
    has_open_pivot: bool

    @property
    def canonical(self) -> str:
        """The syntax tree as text: the same for every way of spacing a statement."""
        return json.dumps(self.tree, sort_keys=True)

    @property
    def is_ordered(self) -> bool:
        """True if the statement itself fixes the order of its rows."""
        return modifiers_of(query_of(self.tree)).is_ordered

    @property
    def describes(self) -> bool:
        """True if the statement asks for tables or columns rather than for rows."""
        return any(isinstance(relation_of(node), Show) for node in walk(self.tree))


def parse(sql: str, parser: Parser) -> Statement:
    """Parse a statement.

    Raises
    ------
    InvalidInputError
        It is no SELECT, or DuckDB has no syntax tree of it.
    """
    closed = parser.with_columns(sql)
    text = parser.select(sql if closed is None else closed)
    return Statement(sql, text, parser.tree(text), closed is not None)
