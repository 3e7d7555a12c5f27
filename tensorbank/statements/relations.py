"""Find what the FROM clauses of a statement take rows from:
the bank, the tables registered with it, and nothing else. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

from tensorbank.errors import ErrorKind, InvalidInputError, nearest
from tensorbank.layout import LEVELS
from tensorbank.sql import TABLE_FUNCTIONS
from tensorbank.statements.names import mention_of

__all__ = ["check_inside", "check_known"]

_FILE = re.compile(r"[./\\*:?]")
"""A pattern of the signs of a file or URL: no name of a table has one of these."""
_READERS = re.compile(r"read_\w+|\w+_scan|\w*scan\w*|parquet_\w+|sniff_csv|glob|st_read\w*|query\w*")
_REGISTER = (
    "read it and give it a name, such as bank.register('mine', table): its content is then part of the plan"
)


def check_inside(tree: Any) -> None:
    """Refuse files, URLs and functions that read.

    Raises
    ------
    InvalidInputError
        The statement has some.
    """
    for node, _ in _relations(tree, frozenset()):
        if node["type"] == "TABLE_FUNCTION":
            _check_function(str(node["function"].get("function_name")).lower())
        elif _FILE.search(str(node["table_name"])):
            raise InvalidInputError(
                f"{node['table_name']!r} is outside of the bank and may change; {_REGISTER}",
                kind=ErrorKind.OUTSIDE_BANK,
            )


def check_known(
    tree: Any,
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
    for node, common in _relations(tree, frozenset()):
        if node["type"] == "TABLE_FUNCTION":
            continue
        schema, name = str(node.get("schema_name") or "").lower(), str(node["table_name"])
        is_common = schema in ("", "recurring") and name.lower() in common
        is_mine = schema in ("", "main") and name.lower() in mine
        if node.get("catalog_name") or not (is_common or is_mine or mention_of(node, known)):
            path = [str(node.get(part) or "") for part in ("catalog_name", "schema_name")]
            raise _unknown([p for p in path if p], name, list(every_table()))


def _check_function(name: str) -> None:
    if name in TABLE_FUNCTIONS:
        return
    if _READERS.fullmatch(name):
        raise InvalidInputError(
            f"{name}() reads what is outside of the bank and may change; {_REGISTER}",
            kind=ErrorKind.OUTSIDE_BANK,
        )
    raise InvalidInputError(
        f"{name}() is no function whose rows a query can take.{nearest(name, TABLE_FUNCTIONS)}",
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


def _relations(node: Any, common: frozenset[str]) -> Iterator[tuple[Any, frozenset[str]]]:
    """Yield every base table and table function, with the common table expressions that are visible there,
    in lower case."""
    if isinstance(node, list):
        for value in node:
            yield from _relations(value, common)
    elif isinstance(node, dict):
        if node.get("type") in ("BASE_TABLE", "TABLE_FUNCTION"):
            yield node, common
        if node.get("type") == "RECURSIVE_CTE_NODE":
            common |= {str(node["cte_name"]).lower()}
        for entry in (node.get("cte_map") or {}).get("map") or []:
            yield from _relations(entry["value"], common)
            common |= {str(entry["key"]).lower()}
        for key, value in node.items():
            if key != "cte_map":
                yield from _relations(value, common)
