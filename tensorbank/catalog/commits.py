"""Commits of a part: its rows become visible at all levels at once, and no sample is added twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tensorbank.arrow_numpy import as_arrow, as_numpy
from tensorbank.catalog.changes import COLUMNS_FOLDER, DELETED, KEYS, Change, TableVersion
from tensorbank.catalog.membership import Membership, joined_files, keys_of, rows_of_keys, with_keys
from tensorbank.delta import LevelChange
from tensorbank.errors import ConflictError, ErrorKind, InvalidInputError
from tensorbank.index_files import IndexFile, LevelFiles, NewFile, with_nan
from tensorbank.index_schema import table_schema
from tensorbank.schema import TableSchema

__all__ = ["Commit", "IndexReader", "Write", "adding", "holds_part"]

Replaced = Callable[[TableVersion], pa.Table]
Write = Callable[[str, pa.Table], NewFile]
"""A callable that writes rows as an index file of a level."""


@dataclass(frozen=True, slots=True)
class Commit:
    """The additions of one commit: the rows of one part at every level, and what the history says of them."""

    part: str
    samples: pa.Table
    tiles: pa.Table
    shards: pa.Table
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class IndexReader:
    """The ways in which making a change may read the table.

    Parameters
    ----------
    membership
        Callable that returns the keys of a version.
    deleted
        Callable that returns ``key`` and ``part`` of the rows that do not count in a version, None if all do.
    keys
        Callable that reads the keys of one file of ``keys``.
    files
        Callable that returns the files of a level at a version.
    path
        Callable that returns the local path of an index file, checked.
    """

    membership: Callable[[TableVersion], Membership]
    deleted: Callable[[TableVersion], pa.Table | None]
    keys: Callable[[IndexFile], npt.NDArray[np.int64]]
    files: Callable[[TableVersion, str], LevelFiles]
    path: Callable[[IndexFile], str]


def adding(
    commit: Commit, read: IndexReader, write: Write, in_place_of: Replaced | None = None
) -> Callable[[TableVersion], Change | None]:
    """Return what makes the change that adds a part; None if the part is there.

    What added columns said of samples that were deleted is not said of those that come under the same ids now: such values go.

    Parameters
    ----------
    in_place_of
        Callable that returns the rows of a version, by ``key``, ``stem_key`` and ``part``, in whose place those of the part
        come; none of them if not given.

    Raises
    ------
    InvalidInputError
        A plain column holds NaN.
    ConflictError
        Another part has some of the same samples, or this one's were deleted (``kind`` is ``lost-race``); raised by the callable.
    """
    levels = {"samples": commit.samples, "tiles": commit.tiles, "shards": commit.shards}
    for rows in levels.values():
        if names := with_nan(rows):
            raise InvalidInputError(
                f"part {commit.part} has NaN in {', '.join(sorted(names))}; write NULL where there is no number",
                kind=ErrorKind.NAN,
            )
    keys = keys_of(commit.samples, "split", "sample_id")
    added = rows_of_keys(commit.samples)
    written: dict[str, NewFile] = {}

    def make(head: TableVersion) -> Change | None:
        gone = _replaced(in_place_of(head), commit.part, keys) if in_place_of is not None else None
        taken = read.membership(head).has_samples(keys)
        if gone is not None:
            taken &= ~np.isin(keys, as_numpy(gone["key"]))
        n_taken = int(np.count_nonzero(taken))
        if n_taken == len(keys) and holds_part(head.samples, commit.part, read.path):
            return None
        if n_taken:
            raise ConflictError(
                f"another writer committed {n_taken} of the samples of part {commit.part} meanwhile; run again",
                kind=ErrorKind.LOST_RACE,
            )
        before = read.deleted(head)
        if before is not None and pc.any(pc.equal(before["part"], commit.part)).as_py():
            raise ConflictError(
                f"samples of part {commit.part} were deleted after another writer had committed them; run again",
                kind=ErrorKind.LOST_RACE,
            )
        for level, rows in levels.items():
            if level not in written and rows.num_rows:
                written[level] = write(level, rows if level == "shards" else with_keys(rows))
        joined, replaced = joined_files(read.files(head, KEYS), added, read.keys)
        changes = {level: LevelChange(added=(file,)) for level, file in written.items()}
        changes[KEYS] = LevelChange(added=(write(KEYS, joined),), removed=replaced)
        details = dict(commit.details)
        if gone is not None and gone.num_rows:
            changes[DELETED] = LevelChange(added=(write(DELETED, gone),))
            details["n_replaced"] = gone.num_rows
        # Of a sample that was never deleted, no value can be there before it is.
        returning = np.zeros(0, np.int64) if before is None else np.intersect1d(keys, as_numpy(before["key"]))
        if gone is not None:  # a sample that is replaced keeps its values
            returning = np.setdiff1d(returning, as_numpy(gone["key"]))
        types: dict[str, pa.Schema] = {}
        for level in [f"{COLUMNS_FOLDER}/{name}" for name in head.columns if len(returning)]:
            change = _without_values(read.files(head, level), returning, level, read, write)
            if change:
                changes[level], types[level] = change
        return Change(
            "refresh" if DELETED in changes else "ingest",
            changes,
            details,
            schema=_with_new(head.schema, table_schema(commit.samples.schema)),
            column_types=types,
            n_rows=commit.samples.num_rows,
            part=commit.part,
        )

    return make


def _replaced(rows: pa.Table, part: str, keys: npt.NDArray[np.int64]) -> pa.Table:
    """Return the rows that a part replaces: those of its samples which other parts have."""
    mine = np.isin(as_numpy(rows["key"]), keys)
    others = np.array([other != part for other in rows["part"].to_pylist()], np.bool_)
    return rows.filter(as_arrow(mine & others)).sort_by("key")


def _without_values(
    files: LevelFiles, keys: npt.NDArray[np.int64], level: str, read: IndexReader, write: Write
) -> tuple[LevelChange, pa.Schema] | None:
    """Write the files of an added column anew that have values of some keys, without these; None if no file has any."""
    added, removed = [], []
    schema = None
    for file in files.files:
        there = as_numpy(pq.read_table(read.path(file), columns=["key"])["key"])
        hit = np.isin(there, keys)
        if not hit.any():
            continue
        removed.append(file)
        rows = pq.read_table(read.path(file))
        schema = rows.schema
        if not hit.all():
            added.append(write(level, rows.filter(as_arrow(~hit))))
    return None if schema is None else (LevelChange(tuple(added), tuple(removed)), schema)


def holds_part(files: LevelFiles, part: str, path: Callable[[IndexFile], str]) -> bool:
    """Tell whether rows of a part are among those of some files; the statistics of most say so."""
    if any(f.part == part for f in files.files):
        return True
    several = [f for f in files.files if f.part is None]
    return any(part in pq.read_table(path(f), columns=["part"])["part"].to_pylist() for f in several)


def _with_new(there: TableSchema, given: TableSchema) -> TableSchema | None:
    """Return the schema of a table with the modalities that are new to it, None if there are none."""
    new = tuple(m for m in given if m.name not in there.names)
    return TableSchema((*there.modalities, *new)) if new else None
