"""Statistics of row groups in the footers of Parquet files.

They are taken from pyarrow's footers of files that were compared with their checksums, which are at hand; of others DuckDB is
asked for them, which takes 3 ms a file. pyarrow ends the process where the footer of a column contradicts itself, as one flipped
bit can make it: its ``RowGroupMetaData.column`` lets an exception of C++ pass.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from tensorbank.pruning.conditions import Condition, leaves, may_match
from tensorbank.pruning.known_bounds import of_row_groups

__all__ = ["count_row_groups", "kept_row_groups"]

MAX_KNOWN = 4096
"""The most files and sets of columns whose extremes are remembered: index files never change."""
Leaf = tuple[str, ...]
Extremes = tuple[int, Mapping[Leaf, Sequence[Any]], Mapping[Leaf, Sequence[Any]]]

_known: dict[tuple[str, frozenset[Leaf]], Extremes] = {}


def count_row_groups(
    con: Any, paths: Collection[str], condition: Condition, footer: Callable[[str], Any] = lambda _: None
) -> tuple[int, int]:
    """Count the row groups of some immutable files, and those that may hold a row that satisfies a condition.

    Parameters
    ----------
    con
        A connection to DuckDB that may read the files.
    footer
        Callable that returns pyarrow's ``FileMetaData`` of a file that was compared with its checksum, None of others.
    """
    considered = kept = 0
    asked = frozenset(leaves(condition))
    found = {path: _known[path, asked] for path in paths if (path, asked) in _known}
    for path in [path for path in paths if path not in found]:
        if (sound := footer(path)) is not None:
            found[path] = _keep(path, asked, _of_footer(sound, asked))
    if missing := [path for path in dict.fromkeys(paths) if path not in found]:
        found |= {p: _keep(p, asked, extremes) for p, extremes in _extremes(con, missing, asked).items()}
    for path in paths:
        n, minima, maxima = found[path]
        considered += n
        kept += int(_mask(condition, n, minima, maxima).sum())
    return considered, kept


def kept_row_groups(path: str, condition: Condition, footer: Callable[[], Any]) -> list[int]:
    """Return the row groups of an immutable file that may hold a row which satisfies a condition, by number.

    Parameters
    ----------
    footer
        Callable that returns pyarrow's ``FileMetaData`` of the file, which was compared with its checksum.
    """
    asked = frozenset(leaves(condition))
    known = _known.get((path, asked)) or _keep(path, asked, _of_footer(footer(), asked))
    return np.flatnonzero(_mask(condition, *known)).tolist()


def _mask(
    condition: Condition, n: int, minima: Mapping[Leaf, Sequence[Any]], maxima: Mapping[Leaf, Sequence[Any]]
) -> npt.NDArray[np.bool_]:
    return may_match(condition, of_row_groups(minima, maxima), n)


def _extremes(con: Any, paths: Sequence[str], asked: frozenset[Leaf]) -> dict[str, Extremes]:
    """Return the row groups of each file, and their extremes by column; None where a footer does not say."""
    names = [", ".join(leaf) for leaf in asked]
    rows = con.execute(
        "SELECT file_name, row_group_id, lower(path_in_schema), type, stats_min_value, stats_max_value "
        "FROM parquet_metadata(?) WHERE column_id = 0 OR lower(path_in_schema) IN (SELECT unnest(?::VARCHAR[]))",
        [list(paths), names],
    ).fetchall()
    n_groups = dict.fromkeys(paths, 0)
    for file, group, *_ in rows:
        n_groups[file] = max(n_groups[file], group + 1)
    minima: dict[str, dict[Leaf, list[Any]]] = {path: {} for path in paths}
    maxima: dict[str, dict[Leaf, list[Any]]] = {path: {} for path in paths}
    for file, group, name, kind, low, high in rows:
        leaf = tuple(name.split(", "))
        if leaf in asked:
            for extremes, text in ((minima[file], low), (maxima[file], high)):
                extremes.setdefault(leaf, [None] * n_groups[file])[group] = _value(kind, text)
    return {path: (n_groups[path], minima[path], maxima[path]) for path in paths}


def _of_footer(footer: Any, asked: frozenset[Leaf]) -> Extremes:
    """Return the row groups of a file that was compared with its checksum, and their extremes as :func:`_extremes` does."""
    n_groups = footer.num_row_groups
    paths = [footer.schema.column(i).path.lower() for i in range(footer.num_columns)] if asked else []
    place = {path: i for i, path in enumerate(paths)}
    wanted = {leaf: place[path] for leaf in asked if (path := ".".join(leaf)) in place}
    minima: dict[Leaf, list[Any]] = {leaf: [] for leaf in wanted}
    maxima: dict[Leaf, list[Any]] = {leaf: [] for leaf in wanted}
    for number in range(n_groups if wanted else 0):
        group = footer.row_group(number)
        for leaf, i in wanted.items():
            said = group.column(i).statistics
            low, high = (said.min, said.max) if said is not None and said.has_min_max else (None, None)
            minima[leaf].append(_comparable(low))
            maxima[leaf].append(_comparable(high))
    return n_groups, minima, maxima


def _comparable(value: Any) -> Any:
    """Return a statistic, None of a type that is not compared."""
    return value if type(value) in (str, int, float, datetime) else None


def _keep(path: str, asked: frozenset[Leaf], extremes: Extremes) -> Extremes:
    """Remember the extremes of a file, which never change, and return them."""
    _known[path, asked] = extremes
    while len(_known) > MAX_KNOWN:
        _known.pop(next(iter(_known)), None)
    return extremes


def _value(kind: str, text: str | None) -> Any:
    """Return a statistic by the physical type of its column; instants are of UTC. None for what it cannot be."""
    if text is None or kind == "BYTE_ARRAY":
        return text
    try:
        if kind in ("DOUBLE", "FLOAT"):
            return float(text)
        return int(text) if text.lstrip("-").isdigit() else datetime.fromisoformat(text)
    except ValueError:
        return None
