"""Short forms of statements: PIVOT whose columns are values of the data, and SHOW. Pure but for DuckDB's tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import duckdb

from tensorbank.errors import ErrorKind, InvalidInputError
from tensorbank.sql.expressions import named
from tensorbank.sql.syntax import Show, relation_of
from tensorbank.sql.trees import Node, rebuilt

__all__ = ["TABLES", "as_relations", "with_columns"]

TABLES = "tensorbank_tables"
"""The name of the relation that lists the bank's tables, in its column ``name``."""
_ENDS = frozenset({"using", "group", "order", "limit", "union", "except", "intersect", ";"})


def with_columns(sql: str) -> str | None:
    """Return a statement with some column named for each PIVOT that names none; None if there is none such.

    Such a statement has a syntax tree: DuckDB gives none of a PIVOT whose columns only the data tell.
    """
    text = sql.encode()
    starts = [start for start, kind in duckdb.tokenize(sql) if kind != duckdb.token_type.comment]  # in bytes
    words = [text[a:b].decode() for a, b in zip(starts, [*starts[1:], len(text)], strict=True)]
    plain = [word.split("--")[0].split("/*")[0].strip().lower() for word in words]
    unnamed = [span for on in _pivots(plain) for span in _unnamed(plain, on)]
    for first, last in unnamed:
        if first != last:
            words[first], words[last] = f"({words[first]}", f"{words[last]})"
        words[last] += " IN ('') "
    return "".join(words) if unnamed else None


def _pivots(words: Sequence[str]) -> list[int]:
    """Return the places of the ON of each PIVOT."""
    found = []
    for place, word in enumerate(words):
        if word in ("pivot", "pivot_wider"):
            depths = _depths(words, place + 1)
            on = next((i for i, d in enumerate(depths, place + 1) if d == 0 and words[i] == "on"), None)
            if on is not None:
                found.append(on)
    return found


def _unnamed(words: Sequence[str], on: int) -> list[tuple[int, int]]:
    """Return the places of the first and last word of each expression after an ON that no list follows."""
    spans, first, is_named = [], on + 1, False
    for place, depth in enumerate([*_depths(words, on + 1), -1], on + 1):
        word = words[place] if place < len(words) else ""
        is_end = depth < 0 or (depth == 0 and word in _ENDS)
        if is_end or (depth == 0 and word == ","):
            spans += [] if is_named or place == first else [(first, place - 1)]
            first, is_named = place + 1, False
        if is_end:
            break
        is_named |= depth == 0 and word == "in"
    return spans


def _depths(words: Sequence[str], start: int) -> list[int]:
    """Return the number of open parentheses at each word, counted from the first,
    up to the word that closes one opened earlier.
    """
    found, depth = [], 0
    for word in words[start:]:
        depth -= word.startswith((")", "]"))
        found.append(depth)
        if depth < 0:
            break
        depth += word.endswith(("(", "["))
    return found


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
