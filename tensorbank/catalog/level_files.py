"""The immutable Parquet files that make up one level of a table's index at one version."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tensorbank.arrow_numpy import as_arrow
from tensorbank.layout import Level
from tensorbank.pruning import Condition, may_match, of_files

__all__ = ["IndexFile", "LevelFiles"]


@dataclass(frozen=True, slots=True)
class IndexFile:
    """One immutable Parquet file of an index level; ``key`` is relative to the bank.

    ``part`` is the one part whose rows it holds, None where it may hold several.
    """

    key: str
    n_bytes: int
    n_rows: int
    part: str | None = None


@dataclass(frozen=True)
class LevelFiles:
    """The files of one level at one version.

    ``statistics`` has a row a file, in the same order: the structs ``min`` and ``max`` of its add-action. ``finite`` says
    that no file ever held NaN (:mod:`tensorbank.catalog.nan_columns`).
    """

    level: Level
    table_id: str
    version: int
    files: tuple[IndexFile, ...]
    statistics: pa.Table = field(repr=False, compare=False)
    finite: bool = False

    @cached_property
    def n_rows(self) -> int:
        return sum(f.n_rows for f in self.files)

    @cached_property
    def n_bytes(self) -> int:
        return sum(f.n_bytes for f in self.files)

    @cached_property
    def parts(self) -> frozenset[str] | None:
        """The parts whose rows the files hold, None where the log does not tell."""
        parts = {f.part for f in self.files}
        return None if None in parts else frozenset(p for p in parts if p is not None)

    def of_parts(self, parts: frozenset[str]) -> LevelFiles:
        """The files that may hold rows of some parts."""
        return self.keeping(np.array([f.part is None or f.part in parts for f in self.files], np.bool_))

    def matching(self, condition: Condition) -> LevelFiles:
        """The files that may hold a row which satisfies a condition."""
        return self.keeping(may_match(condition, of_files(self.statistics), len(self.files)))

    def keeping(self, mask: npt.NDArray[np.bool_]) -> LevelFiles:
        """Return some of the files; the mask is (n,) bool."""
        if mask.all():
            return self
        kept = tuple(f for f, keep in zip(self.files, mask.tolist(), strict=True) if keep)
        return replace(self, files=kept, statistics=self.statistics.filter(as_arrow(mask)))
