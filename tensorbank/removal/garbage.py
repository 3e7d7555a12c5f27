"""The objects of a bank as its kept snapshots see them: needed, garbage of one kind or another, or not ours to judge."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from tensorbank.catalog import COLUMNS_FOLDER, DELETED, KEYS, SORTED_FOLDER, Catalog, leads_to
from tensorbank.errors import ErrorKind, IntegrityError
from tensorbank.index_files import LAST_CHECKPOINT, LOG, IndexFile
from tensorbank.layout import LEVELS, index_key, is_shard_key
from tensorbank.removal.kept_versions import KeptLevel, KeptVersions, kept_versions
from tensorbank.removal.references import References, keys_in_samples, keys_in_shards, parts_in_shards
from tensorbank.storage import PROBE, ObjectInfo

__all__ = ["Garbage", "Kind", "Needs", "needs_of", "tables_of"]

_OF_LOG = re.compile(r"(\d{20})\.(?:json|checkpoint\.(?:parquet|crc32c))")
_OF_INDEX = re.compile(r"[0-9a-f]{32}-[0-9a-f]{8}\.parquet")
LEVEL_FOLDERS = frozenset({*LEVELS, KEYS, DELETED})
OF_MANY_LEVELS = (f"{COLUMNS_FOLDER}/", f"{SORTED_FOLDER}/")
PROGRESS = ".progress"
REPORT = ".ingest.json"


class Kind(StrEnum):
    """The kinds of objects that go."""

    PROBE = "tests of the store"
    UNFINISHED = "unfinished ingests"
    TENSORS = "tensors"
    INDEX = "index files"
    LOG = "log files"


@dataclass(frozen=True, slots=True)
class Garbage:
    """One object that goes, and what it is."""

    kind: Kind
    key: str
    n_bytes: int


@dataclass
class Needs:
    """The needs of the kept snapshots of all tables of a bank.

    Parameters
    ----------
    tables
        Versions that stay, by table.
    shards
        Shards that their roll-ups name.
    parts
        Names of the parts that their roll-ups name.
    cutoff_s
        The time, since 1970, after which nothing that was written goes.
    """

    catalog: Catalog
    tables: Mapping[str, KeptVersions]
    shards: References
    parts: frozenset[str]
    cutoff_s: float
    _samples: References | None = None

    def unnamed(self, keys: Sequence[str]) -> frozenset[str]:
        """Return the shards that no kept snapshot names: not in its roll-ups, and not in its samples."""
        left = self.shards.without(keys)
        return frozenset(self._in_samples().without(left) if left else ())

    def has_part(self, folder: str) -> bool:
        """Tell whether a kept snapshot names a shard of a part."""
        return self.shards.has_part(folder) or self._in_samples().has_part(folder)

    def has_rows_of(self, folder: str) -> bool:
        """Tell whether a kept snapshot has samples of a part, wherever their tensors lie: its documents say whence they came."""
        return folder.rpartition("/")[2] in self.parts or self.has_part(folder)

    def _in_samples(self) -> References:
        """Return the shards that samples name: asked only where something would go, for it takes a look at all rows."""
        if self._samples is None:
            keys = keys_in_samples(
                p for kept in self.tables.values() for p in _paths(self.catalog, kept, "samples")
            )
            self._samples = References(keys)
        return self._samples

    def of_bank(self, objects: Iterable[ObjectInfo]) -> Iterable[Garbage | str]:
        """Yield the garbage beside the tables, and the keys of objects that are not ours."""
        for found in objects:
            if not found.key.startswith(PROBE):
                yield found.key
            elif found.written_s <= self.cutoff_s:
                yield Garbage(Kind.PROBE, found.key, found.n_bytes)

    def of_part(
        self, folder: str, objects: Sequence[ObjectInfo], unfinished: bool
    ) -> Iterable[Garbage | str]:
        """Yield the garbage below the folder of a part, and the keys of objects that are not ours.

        Parameters
        ----------
        unfinished
            True if an ingest of this part was at work lately.
        """
        needed = self.has_part(folder)
        young = unfinished or any(o.written_s > self.cutoff_s for o in objects)
        shards = {o.key for o in objects if is_shard_key(o.key)}
        old = [o.key for o in objects if o.key in shards and o.written_s <= self.cutoff_s]
        unnamed = self.unnamed([] if young and not needed else old)
        for found in objects:
            if found.key in shards:
                if found.key in unnamed:
                    yield Garbage(Kind.TENSORS, found.key, found.n_bytes)
            elif found.key == f"{folder}/zarr.json" or re.fullmatch(
                r"[^/]+/zarr\.json", found.key[len(folder) + 1 :]
            ):
                if not young and not self.has_rows_of(folder):
                    yield Garbage(Kind.TENSORS, found.key, found.n_bytes)
            else:
                yield found.key

    def of_index(self, table: str, objects: Iterable[ObjectInfo]) -> Iterable[Garbage | str]:
        """Yield the garbage below the index of a table, log files last, and the keys of objects that are not ours."""
        kept = self.tables[table]
        logs = []
        for found in objects:
            level, name, of_log = _place(table, found.key)
            known = kept.levels.get(level)
            if known is None:
                ours = level in LEVEL_FOLDERS or level.startswith(OF_MANY_LEVELS)
                if not ours or of_log or not _OF_INDEX.fullmatch(name):
                    yield found.key
                elif (
                    found.written_s <= self.cutoff_s
                ):  # of a writer that was killed before the level's first commit
                    yield Garbage(Kind.INDEX, found.key, found.n_bytes)
            elif not of_log:
                if found.key in known.files or found.written_s > self.cutoff_s:
                    continue
                if _OF_INDEX.fullmatch(name) or found.key in known.lifetimes.files:
                    yield Garbage(Kind.INDEX, found.key, found.n_bytes)
                else:
                    yield found.key
            elif match := _OF_LOG.fullmatch(name):
                if int(match[1]) < known.oldest and found.written_s <= self.cutoff_s:
                    logs.append(Garbage(Kind.LOG, found.key, found.n_bytes))
            elif name != LAST_CHECKPOINT:
                yield found.key
        yield from sorted(logs, key=lambda g: (g.key.rpartition("/")[0].endswith("samples/" + LOG), g.key))


def _place(table: str, key: str) -> tuple[str, str, bool]:
    """Return level and name of an object of the index, and whether it is of a log."""
    folder, _, name = key.removeprefix(index_key(table, "")).rpartition("/")
    if folder.endswith(f"/{LOG}"):
        return folder.removesuffix(f"/{LOG}"), name, True
    return folder, name, False


def tables_of(catalog: Catalog) -> list[str]:
    """Return the names of the tables, the new one of a table whose renaming was stopped before its end.

    Raises
    ------
    IntegrityError
        A name leads to another one, and that to no table, so that a table would be overlooked.
    """
    tables = catalog.tables()
    for folder in catalog.store.folders():
        if folder not in tables and leads_to(catalog.store, folder) not in (folder, *tables):
            raise IntegrityError(
                f"{catalog.store.url}/{folder} is marked as renamed, and leads to no table; repeat the renaming",
                kind=ErrorKind.DAMAGED_LOG,
            )
    return sorted({catalog.said_name(name) for name in tables})


def needs_of(catalog: Catalog, now: datetime, older_than_s: float) -> Needs:
    """Find out what all tables of a bank need.

    Raises
    ------
    IntegrityError
        The log of a table is damaged, or an index file of a kept version is missing: nothing is known then.
    """
    tables = {name: kept_versions(catalog, name, now, older_than_s) for name in tables_of(catalog)}
    paths = [p for kept in tables.values() for p in _paths(catalog, kept, "shards")]
    cutoff_s = now.timestamp() - older_than_s
    return Needs(catalog, tables, References(keys_in_shards(paths)), parts_in_shards(paths), cutoff_s)


def _paths(catalog: Catalog, kept: KeptVersions, level: str) -> list[str]:
    """Return the local paths of all files of a level that kept versions have."""
    known: KeptLevel = kept.levels[level]
    if not known.files:
        return []
    sizes = {o.key: o.n_bytes for o in catalog.store.objects(index_key(kept.table, level))}
    missing = next((key for key in sorted(known.files - known.lost) if key not in sizes), None)
    if missing is not None:
        raise IntegrityError(
            f"index file {catalog.store.url}/{missing} is gone, though a version of {kept.table} that stays has it; restore it",
            kind=ErrorKind.MISSING_FILE,
        )
    files = [IndexFile(key, sizes[key], 0) for key in sorted(known.files & sizes.keys())]
    return list(map(str, catalog.mirror.readable(files)))
