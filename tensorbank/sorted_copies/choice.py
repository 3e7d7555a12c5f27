"""The choice between the files of samples and a copy of them in another order. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tensorbank.delta import VersionState
from tensorbank.index_files import IndexFile, LevelFiles
from tensorbank.pruning import AnyOf, Compare, Condition, leaves
from tensorbank.sorted_copies.sorted_copy import SortedCopy, name_of

__all__ = ["UsableCopy", "copy_among", "usable_copy", "with_fewest_rows"]

WORTH = 8
"""The number of times fewer rows that a copy must have to be read. Those of samples lie as their bytes do, and to put the answer
in that order takes several times as long as to read it."""


@dataclass(frozen=True)
class UsableCopy:
    """A sorted copy that has no rows but those of a snapshot's samples.

    Parameters
    ----------
    column
        The column that it is sorted by, with dots, as the schema spells it.
    leaf
        Path of the column, in lower case.
    files
        Files of the copy.
    empty
        Which of them have no value in the column, (n,) bool: the log tells nothing of it in these.
    beside
        Keys of the files of samples whose rows it lacks.
    """

    column: str
    leaf: tuple[str, ...]
    files: LevelFiles
    empty: npt.NDArray[np.bool_]
    beside: frozenset[str]

    def matching(self, condition: Condition) -> LevelFiles:
        """Return the files that may hold a row which satisfies a condition."""
        found = self.files.mask(condition)
        if self.empty.any():
            found = found & (~self.empty | self.files.mask(_without(condition, self.leaf)))
        return self.files.keeping(found)


def usable_copy(state: VersionState, samples: LevelFiles) -> UsableCopy | None:
    """Return the copy that a version of its Delta table holds, None if it has rows of files that a snapshot does not have."""
    copy = SortedCopy.of(state)
    rest = None if copy is None else copy.rest_of(samples)
    if copy is None or rest is None:
        return None
    empty = np.array([name_of(file) in copy.empty for file in copy.files.files], np.bool_)
    return UsableCopy(
        ".".join(copy.column), copy.leaf, copy.files, empty, frozenset(file.key for file in rest)
    )


def _without(condition: Condition, leaf: tuple[str, ...]) -> Condition:
    """Return the condition on rows that have no value in a column: no comparison with it holds of them."""
    if isinstance(condition, Compare):
        return AnyOf(()) if condition.leaf == leaf else condition
    return replace(condition, parts=tuple(_without(part, leaf) for part in condition.parts))


def with_fewest_rows(kept: LevelFiles, condition: Condition, copies: Iterable[UsableCopy]) -> LevelFiles:
    """Return the files to read for a condition: those of samples that it does not rule out, or what is left of a copy.

    Files of samples that the copy does not have are read beside it.

    Parameters
    ----------
    kept
        Files of samples that may hold a row which satisfies the condition.
    """
    asked = leaves(condition)
    best, least = kept, kept.n_rows
    for copy in copies:
        if copy.leaf not in asked:
            continue
        own = copy.matching(condition)
        others = kept.keeping(np.array([file.key in copy.beside for file in kept.files], np.bool_))
        n_rows = own.n_rows + others.n_rows
        if n_rows < least and WORTH * own.n_rows <= kept.n_rows - others.n_rows:
            best, least = kept.with_files((*own.files, *others.files), alike=not others.files), n_rows
    return best


def copy_among(files: LevelFiles, copies: Iterable[UsableCopy]) -> UsableCopy | None:
    """Return the copy that some files to read are of, None if they are those of samples alone."""
    folders = {_folder_of(file) for file in files.files}
    return next(
        (copy for copy in copies if any(_folder_of(f) in folders for f in copy.files.files[:1])), None
    )


def _folder_of(file: IndexFile) -> str:
    return file.key.rpartition("/")[0]
