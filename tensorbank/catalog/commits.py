"""Commits: the rows of a part become visible at all levels at once, whoever else writes.

A commit appends to ``tiles`` and ``shards`` first and to ``samples`` last; rows of the first two count only when their part is in
the samples snapshot, so a reader sees all of a part or none of it. Every append carries a Delta application transaction: a part
can be appended to a level once only, however often and from wherever it is tried, and two writers of the samples table cannot
overlook each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from tensorbank.catalog.delta import DeltaLevel, LostCommitError
from tensorbank.errors import ConflictError, ErrorKind, InvalidInputError
from tensorbank.index_files import FINITE, with_nan
from tensorbank.layout import Level

__all__ = ["KEY_COLUMNS", "Commit", "Published", "publish"]

KEY_COLUMNS = ("split", "subset", "sample_id", "stem")
"""The columns that tell samples apart."""
MAX_RACES = 50
"""The most races that a commit loses before it gives up: each is against another writer, who went ahead."""
_SAMPLES_WRITERS = "tensorbank.samples"
"""The transaction that each commit of samples raises by one, so that of two at the same version one loses."""


@dataclass(frozen=True, slots=True)
class Commit:
    """The additions of one commit: the rows of one part at every level."""

    part: str
    samples: pa.Table
    tiles: pa.Table
    shards: pa.Table


@dataclass(frozen=True, slots=True)
class Published:
    """The version of the samples table that shows a part;
    the newest version if another writer ``added`` the part.
    """

    version: int
    added: bool


def publish(
    commit: Commit, opened: Callable[[Level], DeltaLevel], committed_keys: Callable[[], pa.Table], table: str
) -> Published:
    """Make a part visible, unless it is visible already: whoever commits it, it is committed once.

    Parameters
    ----------
    opened
        Callable that opens a level of the table at its newest version.
    committed_keys
        Callable that returns the :data:`KEY_COLUMNS` of every committed sample.
    table
        Name of the table, for messages.

    Raises
    ------
    ConflictError
        Another writer committed some of the same samples meanwhile (``kind`` is ``lost-race``), or other
        writers won every one of many tries.
    InvalidInputError
        A plain column holds NaN.
    """
    for rows in (commit.samples, commit.tiles, commit.shards):
        if names := with_nan(rows):
            raise InvalidInputError(
                f"part {commit.part} has NaN in {', '.join(sorted(names))}; write NULL where there is no number",
                kind=ErrorKind.NAN,
            )
    _append(commit.part, commit.tiles, lambda: opened("tiles"), table)
    _append(commit.part, commit.shards, lambda: opened("shards"), table)
    for _ in range(MAX_RACES):
        samples = opened("samples")
        if samples.transaction(commit.part) is not None:
            return Published(samples.version, added=False)
        turn = (samples.transaction(_SAMPLES_WRITERS) or 0) + 1
        if n_taken := _n_common(commit.samples, committed_keys()):
            if opened("samples").transaction(commit.part) is not None:
                continue  # they are its own samples: another run committed the part since it was looked for
            raise ConflictError(
                f"another writer committed {n_taken} of the samples of part {commit.part} meanwhile; run again",
                kind=ErrorKind.LOST_RACE,
            )
        transactions = {commit.part: 1, _SAMPLES_WRITERS: turn} | ({FINITE: 1} if turn == 1 else {})
        try:
            samples.append(commit.part, commit.samples, transactions)
        except LostCommitError:
            continue
        return Published(opened("samples").version, added=True)
    raise ConflictError(
        f"part {commit.part} of {table} lost {MAX_RACES} commits to other writers; try again later"
    )


def _append(part: str, rows: pa.Table, opened: Callable[[], DeltaLevel], table: str) -> None:
    """Append the rows of a part to a level, unless they are there."""
    level = opened()
    if level.transaction(part) is not None:
        return
    try:
        level.append(part, rows, {part: 1})
    except LostCommitError as error:
        if opened().transaction(part) is None:
            raise ConflictError(
                f"part {part} of {table} lost its commit to other writers; try again later"
            ) from error


def _n_common(rows: pa.Table, committed: pa.Table) -> int:
    """Count the rows whose (split, sample_id) is committed already."""
    mine, theirs = (
        pc.binary_join_element_wise(t["split"].cast(pa.string()), t["sample_id"].cast(pa.string()), "/")
        for t in (rows, committed)
    )
    return int(pc.sum(pc.is_in(mine, value_set=theirs)).as_py() or 0)
