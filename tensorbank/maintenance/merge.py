"""The merge of the index files of one version: what there is to do, and the new files of each level. Nothing of it is visible."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tensorbank.arrow_numpy import as_arrow, as_numpy
from tensorbank.catalog import (
    COLUMNS_FOLDER,
    DELETED,
    KEYS,
    SORTED_FOLDER,
    Catalog,
    LevelChange,
    TableVersion,
)
from tensorbank.engines import Executor
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
)
from tensorbank.maintenance.rewritten_shards import WastedShards, rewrite, wasted_shards
from tensorbank.maintenance.rolled_up_again import RollUps
from tensorbank.maintenance.sample_order import ORDER_COLUMNS, SampleOrder
from tensorbank.maintenance.small_files import Chosen, choose

__all__ = ["Merge", "look", "merged_keys", "write_levels"]

MAX_KEYS_PER_FILE = 8 << 20

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Merge:
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


def look(catalog: Catalog, head: TableVersion, rewrite_shards: bool) -> Merge:
    """Decide what there is to do."""
    others = (v for v in head.pins or {} if v != DELETED and not v.startswith(f"{SORTED_FOLDER}/"))
    levels = [*LEVELS, *others]
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
    return Merge(head, files, dead, chosen, wasted)


def _has_dead(catalog: Catalog, file: IndexFile, dead: DeadRows) -> bool:
    if file.part is not None and file.part not in dead.parts:
        return False
    return any(dead.mask(rows).any() for rows in read_groups([catalog.path(file)], ["key", "part"]))


def write_levels(
    catalog: Catalog, at: Merge, scratch: Path, executor: Executor, progress: Progress
) -> tuple[dict[str, tuple[NewFile, ...]], int]:
    """Write the new files of all levels but the keys, by level; and count the rows of samples that are dropped."""
    table = at.version.table
    added: dict[str, tuple[NewFile, ...]] = {}
    chosen = at.chosen.of

    def put(level: str, path: Path) -> NewFile:
        return upload(catalog.store, index_key(table, level), path)

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
        added[level] = tuple(merged(files, order, folder, partial(put, level), told.more))
    if chosen("shards"):
        schema = level_schema("shards", at.version.schema, catalog.state(at.version, "shards").columns)
        tables = [pq.ParquetFile(catalog.path(file)).read() for file in chosen("shards")]
        if at.dead:
            tables = _rolled_up_again(catalog, at, tables)
        tables = list(map(moved.redirect_roll_ups, tables))
        is_any = any(t.num_rows for t in tables)
        added["shards"] = (put("shards", merged_shards(tables, schema, scratch)),) if is_any else ()
    for level in at.chosen.files:
        if level.startswith(f"{COLUMNS_FOLDER}/") and chosen(level):
            column = _merged_column(map(catalog.path, chosen(level)), _gone(catalog, at), scratch)
            added[level] = tuple(put(level, path) for path in column)
    return added, n_dropped


def _with_others(catalog: Catalog, at: Merge, order: SampleOrder) -> SampleOrder:
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


def _rolled_up_again(catalog: Catalog, at: Merge, tables: list[pa.Table]) -> list[pa.Table]:
    """Return the rows of shards, with those of shards that lost samples made anew."""
    rows = pa.concat_tables(tables, promote_options="permissive")
    rolled = RollUps(rows, at.version.schema, at.dead.parts)
    for file in at.files["samples"]:
        if file.part is None or file.part in at.dead.parts:
            for samples in read_groups([catalog.path(file)]):
                rolled.add(at.dead.drop(samples))
    return [rolled.rows()]


def _gone(catalog: Catalog, at: Merge) -> npt.NDArray[np.int64]:
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


def merged_keys(catalog: Catalog, at: Merge, head: TableVersion) -> LevelChange | None:
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


class _Told:
    """A count of rows that is told as it grows."""

    def __init__(self, progress: Progress, what: str, total: int) -> None:
        self._progress, self._what, self._total, self._done = progress, what, total, 0

    def more(self, n_rows: int) -> None:
        """Count some rows more."""
        self._done = min(self._done + n_rows, self._total)
        self._progress(self._what, self._done, self._total)
