"""The deletion of samples by a condition: their rows vanish with one commit, their bytes stay until they are collected.

Nothing of the index is written anew: the keys and parts of the rows go to the level ``deleted``, and every reader leaves out
rows that it names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tensorbank.arguments import instance
from tensorbank.arrow_numpy import as_arrow, as_numpy
from tensorbank.catalog import DELETED, Catalog, Change, LevelChange, TableVersion
from tensorbank.errors import ErrorKind, InvalidInputError
from tensorbank.index_files import IndexFile
from tensorbank.planning import Planner
from tensorbank.queries import Selection
from tensorbank.sql import quoted

__all__ = ["Deleted", "delete", "rows_of_deletion"]

MAX_JOINED_ROWS = 8 << 20
"""The most rows of a file of ``deleted`` that a commit joins with others."""
_STEM = "coalesce(split, '') || chr(0) || coalesce(subset, '') || chr(0) || coalesce(stem, '')"
STEM_HASH = f"('0x' || left(sha256({_STEM}), 16))::UBIGINT"
"""SQL of the first 8 bytes of the hash of a stem, as a number whose first byte counts most."""


@dataclass(frozen=True, slots=True)
class Deleted:
    """The outcome of a deletion.

    ``version`` shows it; it is the one before where no sample matched, or where it was only tried. ``n_samples`` were deleted,
    ``n_left`` are left.
    """

    version: int
    n_samples: int
    n_left: int


def delete(
    catalog: Catalog,
    table: str,
    where: str,
    *,
    reason: str = "",
    dry_run: bool = False,
    registered: Mapping[str, pa.Table] | None = None,
) -> Deleted:
    """Delete the samples of a table that satisfy a condition.

    Parameters
    ----------
    where
        Condition in SQL, all that a query may have after WHERE.
    reason
        Sentence for the history.
    dry_run
        True to count what would be deleted.
    registered
        The user's own tables, by name.

    Raises
    ------
    InvalidInputError
        The condition is wrong, or the table cannot be written to.
    ConflictError
        Other writers won every one of many tries.
    """
    if not instance("where", where, str, "give a condition in SQL such as 'cloud_cover > 0.9'").strip():
        raise InvalidInputError(
            "a deletion needs a condition; where='true' (--where true) deletes every sample",
            kind=ErrorKind.SQL,
        )
    counted: dict[int, tuple[int, int]] = {}

    def make(head: TableVersion) -> Change | None:
        there = catalog.state(head, DELETED).files.files if head.has(DELETED) else ()
        rows = _matching(catalog, head, where, registered or {})
        n_before = head.samples.n_rows - sum(file.n_rows for file in there)
        counted[head.version] = rows.num_rows, n_before - rows.num_rows
        if dry_run or not rows.num_rows:
            return None
        joined, replaced = _joined(catalog, there, rows)
        details: dict[str, Any] = {"n_deleted": rows.num_rows, "where": where}
        return Change(
            "delete",
            {DELETED: LevelChange(added=(catalog.write(table, DELETED, joined),), removed=replaced)},
            details | ({"reason": reason} if reason else {}),
        )

    if dry_run:
        head = catalog.head(table)
        make(head)
        return Deleted(head.version, *counted[head.version])
    done = catalog.publish(table, make)
    return Deleted(done.version, *counted[done.version - done.added])


def rows_of_deletion(catalog: Catalog, before: TableVersion, where: str) -> pa.Table:
    """Return the rows of the file of ``deleted`` that a deletion made of the version before it."""
    there = catalog.state(before, DELETED).files.files if before.has(DELETED) else ()
    return _joined(catalog, there, _matching(catalog, before, where, {}))[0]


def _matching(
    catalog: Catalog, head: TableVersion, where: str, registered: Mapping[str, pa.Table]
) -> pa.Table:
    """Return the rows of ``deleted`` for the samples of a version that satisfy a condition, sorted by key."""
    planner = Planner(catalog, {head.table: head.version}, registered)
    asked = f"SELECT (\n{where}\n) AS met FROM {quoted(head.table)} LIMIT 0"
    kind = planner.arrow(asked).schema.types[0]
    if not pa.types.is_boolean(kind):  # any number but 0 would count as true
        raise InvalidInputError(
            f"the condition {where!r} is {'a structure' if pa.types.is_nested(kind) else kind}, and has to be true "
            "or false; compare it with something, such as cloud_cover > 0.9",
            kind=ErrorKind.SQL,
        )
    columns = ("key", f"{STEM_HASH} AS stem_hash", "part")
    found = Selection(head.table, planner, columns, (where,)).arrow()
    stems = as_numpy(found["stem_hash"]).astype(np.uint64, copy=False).byteswap().view(np.int64)
    rows = pa.table(
        {"key": found["key"], "stem_key": as_arrow(np.ascontiguousarray(stems)), "part": found["part"]}
    )
    return rows.sort_by("key")


def _joined(
    catalog: Catalog, files: tuple[IndexFile, ...], rows: pa.Table
) -> tuple[pa.Table, tuple[IndexFile, ...]]:
    """Return the rows of a new file, and the files that it replaces: those not larger than what joins them."""
    total, replaced = rows.num_rows, []
    for file in sorted(files, key=lambda f: (f.n_rows, f.key)):
        if file.n_rows > total or total + file.n_rows > MAX_JOINED_ROWS:
            break
        replaced.append(file)
        total += file.n_rows
    if not replaced:
        return rows, ()
    tables = (pq.read_table(catalog.path(file), columns=rows.column_names) for file in replaced)
    return pa.concat_tables([rows, *tables]).sort_by("key"), tuple(replaced)
