"""Names and texts as SQL writes them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["literal", "path", "quoted", "read_parquet"]


def quoted(name: str) -> str:
    """Return a name as SQL takes it, whatever it is."""
    return '"' + name.replace('"', '""') + '"'


def path(names: Iterable[str]) -> str:
    """Return SQL of a column, or of a field in one, by its names from the outermost on."""
    return ".".join(map(quoted, names))


def literal(text: str) -> str:
    """Return a text as SQL's literal of it."""
    return "'" + text.replace("'", "''") + "'"


def read_parquet(paths: Sequence[str], *, alike: bool = False) -> str:
    """Return SQL that reads some Parquet files as one; DuckDB need not compare the columns of files that are ``alike``."""
    how = "" if alike else ", union_by_name = true"
    return f"read_parquet([{', '.join(map(literal, paths))}]{how})"
