"""The restoration of an earlier version: one more commit, after which the table is as it was at that version."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow.compute as pc
import pyarrow.parquet as pq

from tensorbank.catalog import DELETED, Catalog, Change, TableVersion
from tensorbank.delta import LevelChange, change_between
from tensorbank.errors import ErrorKind, InvalidInputError, NotFoundError
from tensorbank.index_files import IndexFile
from tensorbank.layout import is_shard_key
from tensorbank.retention import kept_meanwhile, telling_expired

__all__ = ["Restored", "restore"]

N_THREADS = 16


@dataclass(frozen=True, slots=True)
class Restored:
    """The outcome of a restoration.

    ``version`` shows what ``restored`` held; nothing was written (``changed`` is False) if the newest version held that already.
    """

    version: int
    restored: int
    changed: bool


def restore(catalog: Catalog, table: str, version: int) -> Restored:
    """Make the table what it was at a version: samples, deletions, modalities and columns. No version is lost by it.

    What other writers commit meanwhile is undone as well.

    Raises
    ------
    NotFoundError
        There is no such version, or it has expired; nothing is written then.
    InvalidInputError
        The version is of the earlier format of the index, or the table cannot be written to.
    """
    with telling_expired(catalog, {table: version}):
        wanted = catalog.version(table, version)
        catalog.levels(wanted, ["samples"])  # whose list may be gone
    if wanted.pins is None:
        raise InvalidInputError(
            f"version {version} of {table} is of format 1, and is restored by a version of format 2 that holds the same: see "
            "`tensorbank history` for the one whose operation is upgrade"
        )

    def make(head: TableVersion) -> Change | None:
        if _is_same(head, wanted):
            return None
        _require_files(catalog, head, wanted)
        dropped = {level: None for level in (head.pins or {}) if not wanted.has(level)}
        n_before, n_after = (_n_samples(catalog, v) for v in (head, wanted))
        return Change(
            "restore",
            {"samples": change_between(head.samples, wanted.samples, LevelChange())},
            {"restored_version": version, "n_samples_before": n_before, "n_samples_after": n_after},
            schema=None if wanted.schema == head.schema else wanted.schema,
            columns=None if wanted.columns == head.columns else wanted.columns,
            sorted_copies=None if wanted.sorted_copies == head.sorted_copies else wanted.sorted_copies,
            pins={**dropped, **(wanted.pins or {})},
        )

    head = catalog.head(table)
    if _is_same(head, wanted):
        return Restored(head.version, version, False)
    with kept_meanwhile(catalog, wanted, "restore"):
        done = catalog.publish(table, make)
    return Restored(done.version, version, done.added)


def _is_same(head: TableVersion, wanted: TableVersion) -> bool:
    return (
        {f.key for f in head.samples.files} == {f.key for f in wanted.samples.files}
        and head.pins == wanted.pins
        and head.schema == wanted.schema
        and head.columns == wanted.columns
        and head.sorted_copies == wanted.sorted_copies
    )


def _n_samples(catalog: Catalog, version: TableVersion) -> int:
    deleted = catalog.state(version, DELETED).files.n_rows if version.has(DELETED) else 0
    return version.samples.n_rows - deleted


def _require_files(catalog: Catalog, head: TableVersion, wanted: TableVersion) -> None:
    """Raise NotFoundError if an index file or shard of a version that is not of the newest one was removed.

    Roll-ups that both versions have lead to shards that are in use, so those alone are asked for that the other roll-ups name.
    """
    index: list[str] = []
    rollups: list[IndexFile] = []
    for level in ("samples", *(wanted.pins or {})):
        there: set[str] = set()
        if head.has(level):
            there = {f.key for f in catalog.state(head, level).files.files}
        files = catalog.state(wanted, level).files.files
        new = [f for f in files if f.key not in there]
        index += [f.key for f in new]
        if level == "shards":
            rollups = new
    _require_objects(catalog, wanted, index)
    shards: set[str] = set()
    for file in rollups:
        path = catalog.path(file)
        with pq.ParquetFile(path) as rollup:
            names = [name for name in wanted.schema.names if name in rollup.schema_arrow.names]
            rows = rollup.read(columns=[f"{name}.key" for name in names])
        for name in names:
            shards.update(pc.unique(pc.struct_field(rows[name], "key")).drop_null().to_pylist())
    _require_objects(catalog, wanted, sorted(filter(is_shard_key, shards)))


def _require_objects(catalog: Catalog, wanted: TableVersion, keys: Iterable[str]) -> None:
    every = list(keys)
    with ThreadPoolExecutor(N_THREADS) as pool:
        gone = [
            key for key, there in zip(every, pool.map(catalog.store.exists, every), strict=True) if not there
        ]
    if gone:
        more = f" and {len(gone) - 1} more of its files are" if len(gone) > 1 else " is"
        raise NotFoundError(
            f"version {wanted.version} of {wanted.table} cannot be restored: {catalog.store.url}/{gone[0]}{more} gone; choose "
            "a version that was kept, such as one with a tag",
            kind=ErrorKind.MISSING_FILE,
        )
