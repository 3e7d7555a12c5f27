"""Statistics of row groups in the footers of Parquet files."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet

from tensorbank.bounds import of_row_groups
from tensorbank.conditions import Condition, leaves, may_match

__all__ = ["count_row_groups"]

N_FOOTERS = 256
Leaf = tuple[str, ...]


def count_row_groups(paths: Collection[str], condition: Condition) -> tuple[int, int]:
    """Row groups of some immutable files, and how many of them may hold a row that satisfies a condition."""
    considered = kept = 0
    asked = frozenset(leaves(condition))
    for path in paths:
        n, minima, maxima = _extremes(path, asked)
        considered += n
        kept += int(_mask(condition, n, minima, maxima).sum())
    return considered, kept


def _mask(
    condition: Condition, n: int, minima: dict[Leaf, list[Any]], maxima: dict[Leaf, list[Any]]
) -> npt.NDArray[np.bool_]:
    return may_match(condition, of_row_groups(minima, maxima), n)


@lru_cache(maxsize=N_FOOTERS)
def _footer(path: str) -> pyarrow.parquet.FileMetaData:
    return pyarrow.parquet.read_metadata(Path(path))


@lru_cache(maxsize=4 * N_FOOTERS)
def _extremes(path: str, asked: frozenset[Leaf]) -> tuple[int, dict[Leaf, list[Any]], dict[Leaf, list[Any]]]:
    footer = _footer(path)
    columns = {tuple(footer.schema.column(i).path.lower().split(".")): i for i in range(footer.num_columns)}
    minima: dict[Leaf, list[Any]] = {}
    maxima: dict[Leaf, list[Any]] = {}
    for leaf in asked & columns.keys():
        found = [footer.row_group(g).column(columns[leaf]).statistics for g in range(footer.num_row_groups)]
        known = [s if s is not None and s.has_min_max else None for s in found]
        minima[leaf] = [None if s is None else s.min for s in known]
        maxima[leaf] = [None if s is None else s.max for s in known]
    return footer.num_row_groups, minima, maxima
