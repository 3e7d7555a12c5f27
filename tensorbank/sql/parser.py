"""Statements and DuckDB's syntax trees of them, either way."""

from __future__ import annotations

import json
from typing import Any

import duckdb

from tensorbank.errors import ErrorKind, InvalidInputError
from tensorbank.sql.shorthands import with_columns
from tensorbank.sql.syntax import query_of, select_of, with_columns_of, with_query
from tensorbank.sql.trees import Node

__all__ = ["Parser", "without_semicolon"]


class Parser:
    """A parser of statements, which asks DuckDB on one connection."""

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self._con = con

    def select(self, sql: str) -> str:
        """Return the one SELECT that a text is.

        Raises
        ------
        InvalidInputError
            It is something else.
        """
        statements = self._con.extract_statements(sql)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise InvalidInputError("a query is one SELECT statement", kind=ErrorKind.SQL)
        return without_semicolon(str(statements[0].query))

    def with_columns(self, sql: str) -> str | None:
        """Return the statement with columns for its PIVOTs where only the data name them, None if there are none such.

        DuckDB makes several statements of one with such a PIVOT, and has no tree of it.
        """
        if "pivot" not in sql.lower():
            return None
        statements = self._con.extract_statements(sql)
        several = len(statements) == 1 and statements[0].type == duckdb.StatementType.MULTI
        return with_columns(sql) if several else None

    def tree(self, sql: str) -> Node:
        """Parse a statement: its syntax tree without positions, the same for every way of spacing it.

        Raises
        ------
        InvalidInputError
            It has no tree.
        """
        found = self._con.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()
        parsed = json.loads(str(found[0][0]))
        if parsed.get("error"):
            raise InvalidInputError(
                f"the SQL cannot be answered: {parsed.get('error_message')}", kind=ErrorKind.SQL
            )
        return _without_positions(parsed)

    def node(self, expression: str) -> Node:
        """Parse an expression."""
        (column,) = _columns(self.tree(f"SELECT {expression}"))
        return column

    def text(self, tree: Node) -> str:
        """Return the statement of a tree."""
        found = self._con.execute("SELECT json_deserialize_sql(?::JSON)", [json.dumps(tree)]).fetchall()
        return str(found[0][0])

    def says(self, sql: str, tree: Node) -> bool:
        """Tell whether a statement means what a tree does: words can be lost when a tree becomes a statement."""
        return bool(_meaning(self.tree(sql)) == _meaning(tree))

    def name(self, expression: Node) -> str:
        """Return the name of the column that an expression without an alias makes."""
        tree = self.tree("SELECT 1")
        select = with_columns_of(query_of(tree), [expression])
        return self.text(with_query(tree, select)).removeprefix("SELECT ")


def without_semicolon(sql: str) -> str:
    """Return a statement without what ends it: semicolons, and comments after them."""
    text = sql.encode()
    for start, kind in reversed(duckdb.tokenize(sql)):  # offsets are in bytes
        if kind != duckdb.token_type.comment and text[start : start + 1] != b";":
            break
        text = text[:start]
    return text.decode().strip()


def _columns(tree: Node) -> Any:
    select = select_of(query_of(tree))
    return () if select is None else select.columns


def _meaning(node: Any) -> Any:
    """Return a syntax tree without what is empty or said by default, to compare two of them."""
    if isinstance(node, dict):
        found = {k: _meaning(v) for k, v in node.items() if k != "qualified_name"}
        return {k: v for k, v in found.items() if v not in ("", None, [], {}, False)}
    return [_meaning(v) for v in node] if isinstance(node, list) else node


def _without_positions(node: Any) -> Any:
    if isinstance(node, dict):
        return {k: _without_positions(v) for k, v in node.items() if not k.startswith("query_location")}
    if isinstance(node, list):
        return [_without_positions(v) for v in node]
    return node
