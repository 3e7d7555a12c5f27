"""Compaction: many small index files become few, sorted ones, and rows that do not count any more are left out of them; so
are their blocks, if shards are to be rewritten.

What is read and written is decided by one snapshot, and takes a while; the change is made of the snapshot that is there then.
Files that other writers have added meanwhile stay beside the new ones. Where one that was merged is gone, all begins anew.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from tensorbank.catalog import COLUMNS_FOLDER, KEYS, Catalog, Change, LevelChange, TableVersion
from tensorbank.engines import BankSetting, Executor, ThreadExecutor, Workers, executor_for
from tensorbank.errors import ConflictError, ErrorKind, InvalidInputError
from tensorbank.index_files import IndexFile
from tensorbank.layout import index_key
from tensorbank.maintenance.merge import Merge, look, merged_keys, write_levels
from tensorbank.maintenance.merged_level import reused_memory
from tensorbank.maintenance.rewritten_shards import N_COPIES
from tensorbank.maintenance.sorting import renew_sorted_copies, stale_columns

__all__ = ["Compaction", "LevelSize", "compact"]

MAX_TRIES = 3
"""The number of times that all begins anew since a merged file was replaced meanwhile."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class LevelSize:
    """The index files of one level before and after a compaction, and their bytes."""

    files_before: int
    files_after: int
    bytes_before: int
    bytes_after: int


@dataclass(frozen=True)
class Compaction:
    """The outcome of a compaction, or with ``dry_run`` of one that would be made; the sizes after it are then those before.

    Parameters
    ----------
    version
        The version that shows it; the newest one if there was nothing to do.
    changed
        True if there was something to do.
    n_dropped
        The rows of samples that did not count any more.
    merged
        The number of files that were merged, by level.
    n_rewritten, n_wasted_bytes
        The shards that were written anew, and the bytes of blocks that were left out of them.
    sorted_copies, dropped_copies
        The columns whose sorted copies were written anew, since they lacked samples, and those that are gone, whose copies were
        dropped. With ``dry_run``, ``sorted_copies`` has both as far as they follow from what is there.
    """

    table: str
    version: int
    changed: bool
    n_dropped: int = 0
    merged: Mapping[str, int] = field(default_factory=dict)
    levels: Mapping[str, LevelSize] = field(default_factory=dict)
    n_rewritten: int = 0
    n_wasted_bytes: int = 0
    sorted_copies: tuple[str, ...] = ()
    dropped_copies: tuple[str, ...] = ()


class _Replaced(Exception):  # noqa: N818 - no error: all begins anew
    """A file that was merged is gone from the newest snapshot."""


def compact(
    catalog: Catalog,
    table: str,
    *,
    rewrite_shards: bool = False,
    dry_run: bool = False,
    workers: Workers | None = None,
    progress: Progress | None = None,
) -> Compaction:
    """Merge the small index files of a table, drop the rows that were deleted, and renew the sorted copies.

    Every snapshot before it answers as before, and the new one as the last of them. Bytes of the files that it replaces go with
    :func:`tensorbank.removal.collect`.

    Parameters
    ----------
    rewrite_shards
        True to write shards anew that hold blocks of samples which do not count, without them. All other blocks are copied as
        they are stored.
    workers
        Workers that copy shards in the place of threads: processes, or those of a Dask cluster. What is written is the same.
    progress
        Callable for what is done, the rows or shards so far and all of them.

    Raises
    ------
    NotFoundError
        There is no such table.
    ConflictError
        Other writers replaced merged files, again and again (``kind`` is ``lost-race``).
    IntegrityError, FormatError
        A block that is to be copied, or the document of its array, is not what was written.
    StorageError
        The store cannot be written, or the disk has no room for the rows on their way.
    InvalidInputError
        There are workers, and no shards to rewrite are asked for.
    TensorBankError
        Workers were lost (``kind`` is ``worker-lost``), or the engine has none that could take tasks (``scheduler-lost``,
        ``no-workers``, ``other-release``); nothing has changed.
    """
    if workers is not None and not rewrite_shards:
        raise InvalidInputError(
            "workers copy shards, and rows of the index are sorted in this process; ask for shards to be rewritten as well"
        )
    if catalog.head(table).pins is None and not dry_run:
        catalog.publish(table, _nothing)  # a table of format 1 is upgraded first
    for _ in range(MAX_TRIES):
        at = look(catalog, catalog.head(table), rewrite_shards)
        before = Compaction(
            table,
            at.version.version,
            bool(at.chosen) or bool(at.dead),
            merged={level: len(files) for level, files in at.chosen.files.items() if files},
            levels={level: _size(files, files) for level, files in at.files.items()},
            n_rewritten=len(at.wasted),
            n_wasted_bytes=sum(at.wasted.n_bytes.values()),
        )
        if dry_run:
            stale = stale_columns(catalog, at.version)
            return replace(before, changed=before.changed or bool(stale), sorted_copies=stale)
        try:
            done = before
            if before.changed:
                with closing(_executor(catalog, table, workers)) as executor:
                    if at.wasted:
                        executor.open()
                    done = _compacted(catalog, at, before, executor, progress or _untold)
        except _Replaced:
            continue
        return _with_sorted_copies(catalog, done, progress or _untold)
    raise ConflictError(
        f"other writers replaced index files of {table} {MAX_TRIES} times while they were merged; compact "
        "again when they are done",
        kind=ErrorKind.LOST_RACE,
    )


def _with_sorted_copies(catalog: Catalog, done: Compaction, progress: Progress) -> Compaction:
    """Renew the sorted copies, each by a commit of its own."""
    renewal = renew_sorted_copies(catalog, done.table, progress)
    if renewal.version is None:
        return done
    return replace(
        done,
        version=renewal.version,
        changed=True,
        sorted_copies=renewal.written,
        dropped_copies=renewal.dropped,
    )


def _executor(catalog: Catalog, table: str, workers: Workers | None) -> Executor:
    setting = BankSetting(catalog.store, index_key(table, "samples"))
    return ThreadExecutor(N_COPIES, setting) if workers is None else executor_for(workers, setting)


def _nothing(_head: TableVersion) -> None:
    """Change nothing."""


def _untold(_what: str, _done: int, _total: int) -> None:
    """Tell nobody."""


def _compacted(
    catalog: Catalog, at: Merge, before: Compaction, executor: Executor, progress: Progress
) -> Compaction:
    table = at.version.table
    with tempfile.TemporaryDirectory(prefix="tensorbank-") as scratch, reused_memory():
        added, n_dropped = write_levels(catalog, at, Path(scratch), executor, progress)
    replaced = at.removed

    def make(head: TableVersion) -> Change | None:
        if head.schema != at.version.schema:
            raise _Replaced
        changes = {}
        for level, removed in replaced.items():
            if level == KEYS or not (removed or added.get(level)):
                continue
            there = {f.key for f in catalog.state(head, level).files.files} if head.has(level) else set()
            if not there.issuperset(f.key for f in removed):
                if level.startswith(f"{COLUMNS_FOLDER}/"):
                    continue  # its values were replaced or dropped meanwhile: they stay as they are
                raise _Replaced
            changes[level] = LevelChange(added.get(level, ()), removed)
        keys = merged_keys(catalog, at, head)
        if keys:
            changes[KEYS] = keys
        merged = {level: [len(c.removed), len(c.added)] for level, c in sorted(changes.items())}
        types = {
            level: catalog.state(head, level).columns
            for level in changes
            if level.startswith(f"{COLUMNS_FOLDER}/")
        }
        details = {"merged": merged, "dropped_samples": n_dropped}
        if at.wasted:
            details |= {"rewritten_shards": len(at.wasted), "wasted_bytes": before.n_wasted_bytes}
        return Change("compact", changes, details, column_types=types)

    done = catalog.publish(table, make)
    catalog.checkpoint(table)
    now = catalog.version(table, done.version)
    sizes = {level: _size(files, catalog.state(now, level).files.files) for level, files in at.files.items()}
    return replace(before, version=done.version, n_dropped=n_dropped, levels=sizes)


def _size(before: Iterable[IndexFile], after: Iterable[IndexFile]) -> LevelSize:
    old, new = tuple(before), tuple(after)
    return LevelSize(len(old), len(new), sum(f.n_bytes for f in old), sum(f.n_bytes for f in new))
