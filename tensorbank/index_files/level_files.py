"""The immutable Parquet files that make up one level of a table's index at one version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tensorbank.arrow_numpy import as_arrow
from tensorbank.index_files.delta_log import data_path
from tensorbank.pruning import Bounds, Condition, may_match, of_files

__all__ = ["IndexFile", "LevelFiles", "files_of"]


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

    ``known`` has a row a file: the structs ``min`` and ``max`` of its add-action; none where the log does not tell. ``places``
    are the rows of it that are these files', (n,), all of them in their order if None: to leave files out costs no look at the
    columns of three hundred statistics. ``finite`` says that no file ever held NaN
    (:mod:`tensorbank.index_files.nan_columns`), ``alike`` that all have the same columns.
    """

    level: str
    table_id: str
    version: int
    files: tuple[IndexFile, ...]
    known: pa.Table = field(repr=False, compare=False)
    finite: bool = False
    places: npt.NDArray[np.int64] | None = field(default=None, repr=False, compare=False)
    alike: bool = False

    @cached_property
    def statistics(self) -> pa.Table:
        """The rows of ``known`` of these files, in their order."""
        return self.known if self.places is None else self.known.take(as_arrow(self.places))

    @cached_property
    def _bounds(self) -> Bounds:
        """The bounds of each leaf that was asked for, found once: the same lists are asked by plan after plan."""
        return cache(of_files(self.known))

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
        """Return the files that may hold rows of some parts."""
        return self.keeping(np.array([f.part is None or f.part in parts for f in self.files], np.bool_))

    def matching(self, condition: Condition) -> LevelFiles:
        """Return the files that may hold a row which satisfies a condition."""
        return self.keeping(self.mask(condition))

    def mask(self, condition: Condition) -> npt.NDArray[np.bool_]:
        """Return which files may hold a row that satisfies a condition, (n,)."""
        found = may_match(condition, self._bounds, len(self.files if self.places is None else self.known))
        return found if self.places is None else found[self.places]

    def keeping(self, mask: npt.NDArray[np.bool_]) -> LevelFiles:
        """Return some of the files; the mask is (n,) bool."""
        if mask.all():
            return self
        kept = tuple(f for f, keep in zip(self.files, mask.tolist(), strict=True) if keep)
        (places,) = np.nonzero(mask)
        return replace(self, files=kept, places=places if self.places is None else self.places[places])

    def with_files(self, files: Sequence[IndexFile], *, alike: bool = False) -> LevelFiles:
        """Return other files in the place of these, of which the log tells nothing more."""
        return replace(self, files=tuple(files), known=pa.table({}), places=None, alike=alike)


def files_of(actions: pa.Table, key: str, where: str) -> tuple[tuple[IndexFile, ...], pa.Table]:
    """Return the files that a Delta log names, part by part as samples lie in the bank, and their statistics in the same order.

    Parameters
    ----------
    actions
        The log's add-actions, a row a file: ``path``, ``size_bytes``, ``num_records`` and maybe the structs ``min`` and ``max``.
    key, where
        Key and URL of the table.

    Raises
    ------
    FormatError
        The path of a file leads out of the table.
    """
    keys = [
        (part or "", path)
        for part, path in zip(_parts(actions, "min"), actions["path"].to_pylist(), strict=True)
    ]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    if order != list(range(len(keys))):  # a column for each statistic of each band takes long to move
        actions = actions.take(as_arrow(np.array(order, np.int64)))
    low, high = (_parts(actions, side) for side in ("min", "max"))
    columns = (actions[name].to_pylist() for name in ("path", "size_bytes", "num_records"))
    files = tuple(
        IndexFile(
            f"{key}/{data_path(path, where)}", int(size), int(rows or 0), first if first == last else None
        )
        for path, size, rows, first, last in zip(*columns, low, high, strict=True)
    )
    return files, actions.select([n for n in ("min", "max") if n in actions.column_names])


def _parts(actions: pa.Table, side: str) -> list[str | None]:
    """Return the smallest or largest part of each file, None where the log does not say."""
    bounds = actions.column(side).combine_chunks() if side in actions.column_names else None
    if bounds is None or bounds.type.get_field_index("part") < 0:
        return [None] * actions.num_rows
    return list(bounds.field("part").to_pylist())
