"""Statements and DuckDB's syntax trees of them, either way."""

from __future__ import annotations

import json
from typing import Any

import duckdb

from tensorbank.errors import ErrorKind, InvalidInputError
from tensorbank.sql.pivots import with_columns

__all__ = ["Syntax", "without_semicolon"]


class Syntax:
    """A parser of statements on one connection; each statement is parsed once."""

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self._con = con
        self._selects: dict[str, str] = {}
        self._canonical: dict[str, str] = {}
        self._trees: dict[str, Any] = {}

    def select(self, sql: str) -> str:
        """The one SELECT that a text is, with columns for its PIVOTs.

        Raises
        ------
        InvalidInputError
            It is something else.
        """
        if sql not in self._selects:
            statements = self._con.extract_statements(self.with_columns(sql) or sql)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise InvalidInputError("a query is one SELECT statement", kind=ErrorKind.SQL)
            self._selects[sql] = without_semicolon(str(statements[0].query))
        return self._selects[sql]

    def with_columns(self, sql: str) -> str | None:
        """The statement with columns for its PIVOTs where only the data name them: DuckDB makes several statements of it."""
        if "pivot" not in sql.lower():
            return None
        statements = self._con.extract_statements(sql)
        several = len(statements) == 1 and statements[0].type == duckdb.StatementType.MULTI
        return with_columns(sql) if several else None

    def canonical(self, sql: str) -> str:
        """The statement's syntax tree without positions, as text: the same for every way of spacing it."""
        if sql not in self._canonical:
            found = self._con.execute("SELECT json_serialize_sql(?)", [self.select(sql)]).fetchall()
            parsed = json.loads(str(found[0][0]))
            if parsed.get("error"):
                raise InvalidInputError(
                    f"the SQL cannot be answered: {parsed.get('error_message')}", kind=ErrorKind.SQL
                )
            self._canonical[sql] = json.dumps(_without_positions(parsed), sort_keys=True)
        return self._canonical[sql]

    def tree(self, sql: str) -> Any:
        """Return the syntax tree of a statement, not to be changed."""
        if sql not in self._trees:
            self._trees[sql] = json.loads(self.canonical(sql))
        return self._trees[sql]

    def node(self, expression: str) -> Any:
        """The tree of an expression."""
        return self.tree(f"SELECT {expression}")["statements"][0]["node"]["select_list"][0]

    def text(self, tree: Any) -> str:
        """The statement of a tree."""
        found = self._con.execute("SELECT json_deserialize_sql(?::JSON)", [json.dumps(tree)]).fetchall()
        return str(found[0][0])

    def says(self, sql: str, tree: Any) -> bool:
        """Tell whether a statement means what a tree does:
        words can be lost when a tree becomes a statement."""
        return bool(_meaning(self.tree(sql)) == _meaning(tree))

    def name(self, expression: Any) -> str:
        """Name of the column that an expression without an alias makes."""
        tree = self.tree("SELECT 1")
        (statement,) = tree["statements"]
        node = {**statement["node"], "select_list": [expression]}
        return self.text({**tree, "statements": [{**statement, "node": node}]}).removeprefix("SELECT ")


def without_semicolon(sql: str) -> str:
    """A statement without what ends it: semicolons, and comments after them."""
    text = sql.encode()
    for start, kind in reversed(duckdb.tokenize(sql)):  # offsets are in bytes
        if kind != duckdb.token_type.comment and text[start : start + 1] != b";":
            break
        text = text[:start]
    return text.decode().strip()


def _meaning(node: Any) -> Any:
    """A syntax tree without what is empty or said by default, to compare two of them."""
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
