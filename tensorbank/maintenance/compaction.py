"""Compaction: many small index files become few, sorted ones, and rows that do not count any more are left out of them; so
are their blocks, if shards are to be rewritten.

What is read and written is decided by one snapshot, and takes a while; the change is made of the snapshot that is there then.
Files that other writers have added meanwhile stay beside the new ones. Where one that was merged is gone, all begins anew.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tensorbank.arrow_numpy import as_arrow, as_numpy
from tensorbank.catalog import COLUMNS_FOLDER, DELETED, KEYS, Catalog, Change, LevelChange, TableVersion
from tensorbank.engines import BankSetting, Executor, ThreadExecutor, Workers, executor_for
from tensorbank.errors import ConflictError, ErrorKind, InvalidInputError
from tensorbank.index_files import IndexFile, NewFile, parquet_writer, upload
from tensorbank.layout import LEVELS, index_key
from tensorbank.maintenance.dead_rows import DeadRows, without
from tensorbank.maintenance.level_columns import level_schema
from tensorbank.maintenance.merged_level import (
    LevelFilesToMerge,
    merged_samples,
    merged_shards,
    merged_tiles,
    orders_of,
    read_groups,
    reused_memory,
)
from tensorbank.maintenance.rewritten_shards import N_COPIES, WastedShards, rewrite, wasted_shards
from tensorbank.maintenance.rolled_up_again import RollUps
from tensorbank.maintenance.sample_order import ORDER_COLUMNS, SampleOrder
from tensorbank.maintenance.small_files import Chosen, choose

__all__ = ["Compaction", "LevelSize", "compact"]

MAX_TRIES = 3
"""The number of times that all begins anew since a merged file was replaced meanwhile."""
MAX_KEYS_PER_FILE = 8 << 20

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
    """

    table: str
    version: int
    changed: bool
    n_dropped: int = 0
    merged: Mapping[str, int] = field(default_factory=dict)
    levels: Mapping[str, LevelSize] = field(default_factory=dict)
    n_rewritten: int = 0
    n_wasted_bytes: int = 0


class _Replaced(Exception):  # noqa: N818 - no error: all begins anew
    """A file that was merged is gone from the newest snapshot."""


@dataclass(frozen=True)
class _Snapshot:
    """The files of all levels of one version, the rows of it that do not count, and what is to be written anew."""

    version: TableVersion
    files: Mapping[str, tuple[IndexFile, ...]]
    dead: DeadRows
    chosen: Chosen
    wasted: WastedShards

    @property
    def removed(self) -> dict[str, tuple[IndexFile, ...]]:
        """The files that the new ones replace, by level."""
        gone = self.files.get(DELETED, ()) if self.dead else ()
        return {**self.chosen.files, DELETED: gone}


def compact(
    catalog: Catalog,
    table: str,
    *,
    rewrite_shards: bool = False,
    dry_run: bool = False,
    workers: Workers | None = None,
    progress: Progress | None = None,
) -> Compaction:
    """Merge the small index files of a table, and drop the rows that were deleted.

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
        at = _look(catalog, catalog.head(table), rewrite_shards)
        before = Compaction(
            table,
            at.version.version,
            bool(at.chosen) or bool(at.dead),
            merged={level: len(files) for level, files in at.chosen.files.items() if files},
            levels={level: _size(files, files) for level, files in at.files.items()},
            n_rewritten=len(at.wasted),
            n_wasted_bytes=sum(at.wasted.n_bytes.values()),
        )
        if dry_run or not before.changed:
            return before
        try:
            with closing(_executor(catalog, table, workers)) as executor:
                if at.wasted:
                    executor.open()
                return _compacted(catalog, at, before, executor, progress or _untold)
        except _Replaced:
            continue
    raise ConflictError(
        f"other writers replaced index files of {table} {MAX_TRIES} times while they were merged; compact "
        "again when they are done",
        kind=ErrorKind.LOST_RACE,
    )


def _executor(catalog: Catalog, table: str, workers: Workers | None) -> Executor:
    setting = BankSetting(catalog.store, index_key(table, "samples"))
    return ThreadExecutor(N_COPIES, setting) if workers is None else executor_for(workers, setting)


def _nothing(_head: TableVersion) -> None:
    """Change nothing."""


def _untold(_what: str, _done: int, _total: int) -> None:
    """Tell nobody."""


def _look(catalog: Catalog, head: TableVersion, rewrite_shards: bool) -> _Snapshot:
    """Decide what there is to do."""
    levels = [*LEVELS, *(level for level in head.pins or {} if level != DELETED)]
    files = {level: tuple(catalog.state(head, level).files.files) for level in levels}
    if head.has(DELETED):
        files[DELETED] = tuple(catalog.state(head, DELETED).files.files)
    dead = DeadRows.of(catalog.deleted(head))
    gone: dict[str, frozenset[str]] = {}
    if dead:
        for level in ("samples", "tiles"):
            gone[level] = frozenset(f.key for f in files[level] if _has_dead(catalog, f, dead))
        gone["shards"] = frozenset(f.key for f in files["shards"] if f.part is None or f.part in dead.parts)
        gone[KEYS] = frozenset(f.key for f in files[KEYS])
        for level in levels:
            if level.startswith(f"{COLUMNS_FOLDER}/"):
                gone[level] = frozenset(f.key for f in files[level])
    wasted = WastedShards()
    if rewrite_shards:
        wasted = wasted_shards(catalog, head.schema, files["samples"], dead)
        for level in LEVELS:
            gone[level] = gone.get(level, frozenset()) | wasted.files(catalog, files[level])
    chosen = choose({k: f for k, f in files.items() if k != DELETED}, gone)
    return _Snapshot(head, files, dead, chosen, wasted)


def _has_dead(catalog: Catalog, file: IndexFile, dead: DeadRows) -> bool:
    if file.part is not None and file.part not in dead.parts:
        return False
    return any(dead.mask(rows).any() for rows in read_groups([catalog.path(file)], ["key", "part"]))


def _compacted(
    catalog: Catalog, at: _Snapshot, before: Compaction, executor: Executor, progress: Progress
) -> Compaction:
    table = at.version.table
    with tempfile.TemporaryDirectory(prefix="tensorbank-") as scratch, reused_memory():
        added, n_dropped = _write(catalog, at, Path(scratch), executor, progress)
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
        keys = _merged_keys(catalog, at, head)
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


def _write(
    catalog: Catalog, at: _Snapshot, scratch: Path, executor: Executor, progress: Progress
) -> tuple[dict[str, tuple[NewFile, ...]], int]:
    """Write the new files of all levels but the keys, by level; and count the rows of samples that are dropped."""
    table = at.version.table
    added: dict[str, tuple[NewFile, ...]] = {}
    chosen = at.chosen.of

    def keep(level: str, new: Iterable[Path]) -> None:
        written = []
        for path in new:
            written.append(upload(catalog.store, index_key(table, level), path))
            path.unlink()
        added[level] = tuple(written)

    moved = rewrite(
        catalog, table, at.version.schema, at.files["samples"], at.dead, at.wasted, executor, progress
    )
    n_rows = 0

    def alive() -> Iterator[pa.Table]:
        nonlocal n_rows
        for rows in orders_of(chosen("samples"), catalog.path):
            n_rows += rows.num_rows
            yield at.dead.drop(rows)

    order = SampleOrder.of(alive())
    n_dropped = n_rows - len(order)
    for level, merged in (("samples", merged_samples), ("tiles", merged_tiles)):
        if not chosen(level):
            continue
        folder = scratch / level
        folder.mkdir()
        schema = level_schema(level, at.version.schema, catalog.state(at.version, level).columns)
        if level == "tiles":
            order = _with_others(catalog, at, order)
        told = _Told(progress, level, 2 * sum(f.n_rows for f in chosen(level)))
        files = LevelFilesToMerge(chosen(level), catalog.path, schema, at.dead, moved)
        keep(level, merged(files, order, folder, told.more))
    if chosen("shards"):
        schema = level_schema("shards", at.version.schema, catalog.state(at.version, "shards").columns)
        tables = [pq.ParquetFile(catalog.path(file)).read() for file in chosen("shards")]
        if at.dead:
            tables = _rolled_up_again(catalog, at, tables)
        tables = list(map(moved.redirect_roll_ups, tables))
        keep("shards", [merged_shards(tables, schema, scratch)] if sum(t.num_rows for t in tables) else [])
    for level in at.chosen.files:
        if level.startswith(f"{COLUMNS_FOLDER}/") and chosen(level):
            keep(level, _merged_column(map(catalog.path, chosen(level)), _gone(catalog, at), scratch))
    return added, n_dropped


def _with_others(catalog: Catalog, at: _Snapshot, order: SampleOrder) -> SampleOrder:
    """Return the order with the samples of merged tiles whose own rows stay where they are."""
    if len(at.chosen.of("samples")) == len(at.files["samples"]):
        return order  # no rows stay
    unknown = [np.zeros(0, np.int64)]
    for rows in read_groups(map(catalog.path, at.chosen.of("tiles")), ["key"]):
        keys = np.unique(as_numpy(rows["key"], 0))
        unknown.append(keys[order.places_of(keys) == len(order)])
    wanted = np.unique(np.concatenate(unknown))
    if not len(wanted):
        return order
    every = read_groups(map(catalog.path, at.files["samples"]), ORDER_COLUMNS)
    known = as_arrow(np.union1d(wanted, order.keys))
    alive = map(at.dead.drop, every)
    return SampleOrder.of(rows.filter(pc.is_in(rows["key"], value_set=known)) for rows in alive)


def _rolled_up_again(catalog: Catalog, at: _Snapshot, tables: list[pa.Table]) -> list[pa.Table]:
    """Return the rows of shards, with those of shards that lost samples made anew."""
    rows = pa.concat_tables(tables, promote_options="permissive")
    rolled = RollUps(rows, at.version.schema, at.dead.parts)
    for file in at.files["samples"]:
        if file.part is None or file.part in at.dead.parts:
            for samples in read_groups([catalog.path(file)]):
                rolled.add(at.dead.drop(samples))
    return [rolled.rows()]


def _gone(catalog: Catalog, at: _Snapshot) -> npt.NDArray[np.int64]:
    """Return the keys that no row of samples has any more once the deleted ones are dropped."""
    if not at.dead:
        return np.zeros(0, np.int64)
    alive = catalog.membership(at.version).has_samples(at.dead.keys)
    return at.dead.keys[~alive]


def _merged_column(paths: Iterable[str], gone: npt.NDArray[np.int64], folder: Path) -> list[Path]:
    """Return a new file of an added column without some keys, or none if no row is left."""
    path = folder / "column.parquet"
    dead = as_arrow(gone)
    writer: pq.ParquetWriter | None = None
    n_rows = 0
    for rows in read_groups(paths):
        kept = rows.filter(pc.invert(pc.is_in(rows["key"], value_set=dead))) if len(gone) else rows
        writer = writer or parquet_writer(path, kept.schema)
        n_rows += kept.num_rows
        if kept.num_rows:
            writer.write_table(kept.cast(writer.schema))
    if writer is not None:
        writer.close()
    return [path] if n_rows else []


def _merged_keys(catalog: Catalog, at: _Snapshot, head: TableVersion) -> LevelChange | None:
    """Return the change of ``keys``, made of the files that are there now; None if they stay."""
    files = catalog.state(head, KEYS).files.files
    small = choose({KEYS: files}, {KEYS: frozenset(f.key for f in files)} if at.dead else {}).of(KEYS)
    if not small:
        return None
    pairs = np.concatenate([catalog.keys(f) for f in small])
    deleted = [catalog.keys(f) for f in at.files.get(DELETED, ())] if at.dead else []
    pairs = without(pairs, np.concatenate(deleted) if deleted else np.zeros((0, 2), np.int64))
    added = []
    for start in range(0, len(pairs), MAX_KEYS_PER_FILE):
        some = pairs[start : start + MAX_KEYS_PER_FILE]
        columns = [as_arrow(some[:, i]) for i in (0, 1)]
        rows = pa.Table.from_arrays(columns, names=["key", "stem_key"])
        added.append(catalog.write(head.table, KEYS, rows))
    return LevelChange(tuple(added), small)


def _size(before: Iterable[IndexFile], after: Iterable[IndexFile]) -> LevelSize:
    old, new = tuple(before), tuple(after)
    return LevelSize(len(old), len(new), sum(f.n_bytes for f in old), sum(f.n_bytes for f in new))


class _Told:
    """A count of rows that is told as it grows."""

    def __init__(self, progress: Progress, what: str, total: int) -> None:
        self._progress, self._what, self._total, self._done = progress, what, total, 0

    def more(self, n_rows: int) -> None:
        """Count some rows more."""
        self._done = min(self._done + n_rows, self._total)
        self._progress(self._what, self._done, self._total)
