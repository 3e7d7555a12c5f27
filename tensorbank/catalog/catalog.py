"""The tables of a bank: their snapshots, and who makes them.

A table is three Delta tables, one a level. :mod:`tensorbank.catalog.commits` says in which order they are written, so that
readers see all of a part or none of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from tensorbank.catalog.commits import KEY_COLUMNS, Commit, Published, publish
from tensorbank.catalog.delta import (
    DeltaLevel,
    LostCommitError,
    create_level,
    open_level,
    read_history,
    read_version,
)
from tensorbank.catalog.history import SnapshotInfo
from tensorbank.catalog.known_versions import KnownVersions
from tensorbank.catalog.table_names import TableNames
from tensorbank.errors import (
    ConflictError,
    ErrorKind,
    FormatError,
    IntegrityError,
    NotFoundError,
    StorageError,
)
from tensorbank.index_files import LOG, IndexMirror, LevelFiles, LogCopy, check_commit, find_damage, is_static
from tensorbank.index_schema import samples_schema, shards_schema, table_schema, tiles_schema
from tensorbank.layout import LEVELS, Level, check_table_name, index_key
from tensorbank.schema import TableSchema
from tensorbank.storage import Store, of_system

__all__ = ["Catalog"]

KNOWN_BYTES = 256 << 20
"""The most bytes of what is remembered of versions. The statistics of a level take about 5 kB a file: 30 MB for the 6,000 files
of a hundred million samples."""
N_TURNS = 32
"""The number of locks that tables share, so that of threads which need the same version one reads it."""
Fact = TypeVar("Fact")


@dataclass(frozen=True, slots=True)
class _LevelVersion:
    """One version of a level: its files, and its modalities if it is ``samples``."""

    files: LevelFiles
    schema: TableSchema | None


class Catalog:
    """The tables of one bank. Every call looks whether the store has something newer;
    what is known of a version is kept.

    Readers have a copy of the log read, which takes two requests in a row rather than four, and our client's patience
    with a store that is busy. Writers, who need the store's own word, leave it to delta-rs.

    Parameters
    ----------
    store
        The bank.
    mirror
        Mirror where readers have their copies of logs.
    """

    def __init__(self, store: Store, mirror: IndexMirror) -> None:
        self.store = store
        self.mirror = mirror
        self._names = TableNames(store)
        self._known = KnownVersions(KNOWN_BYTES)
        self._turns = tuple(threading.Lock() for _ in range(N_TURNS))

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.store, self.mirror))

    def tables(self) -> list[str]:
        """Return the names of the tables, sorted."""
        return self._names.all()

    def told_tables(self) -> list[str]:
        """Return the names of the tables, or of those met so far where no list is to be had."""
        return self._names.told()

    def among(self, names: Collection[str]) -> list[str]:
        """Return the tables that some names may mean, whatever their case.
        The store is asked only for names not met before.
        """
        return self._names.among(names)

    def fact(self, table_id: str, version: int, what: Hashable, find: Callable[[], Fact]) -> Fact:
        """Return a fact about one version of a table, found once: versions never change."""
        return self._known.found(("fact", table_id, version, what), find)

    def require_arbitration(self) -> None:
        """Try whether the store arbitrates between writers, with a probe object of its own.

        Raises
        ------
        ConflictError
            It does not: a second conditional write of one key wins.
        """
        if not self.store.arbitrates_writers():
            raise ConflictError(
                f"{self.store.url} lets the second of two conditional writes succeed, so concurrent commits could be lost; "
                "use another store, or single_writer=True (--single-writer) if only one process ever writes",
                kind=ErrorKind.NO_CONDITIONAL_WRITES,
            )

    def create(self, table: str, schema: TableSchema, *, single_writer: bool = False) -> None:
        """Create the three index tables; what exists already is kept, and nothing is written where all do.

        Raises
        ------
        InvalidInputError
            The name cannot name a table, or the bank lies in a folder that cannot be written to.
        ConflictError
            The store does not honour conditional writes and ``single_writer`` was not chosen.
        StorageError
            The store cannot be written.
        """
        check_table_name(table)
        if is_static(self.store):
            self.mirror.require_writable()
        makers: dict[Level, Callable[[TableSchema], pa.Schema]] = {
            "samples": samples_schema,
            "tiles": tiles_schema,
            "shards": shards_schema,
        }
        missing = {level: makers[level] for level in LEVELS[::-1] if not self._names.has_log(table, level)}
        if not missing:
            return
        self.mirror.require_writable()
        self._names.check_free(table)
        if not single_writer:
            self.require_arbitration()
        for level, make in missing.items():
            try:
                create_level(self.store, index_key(table, level), make(schema))
            except LostCommitError as error:
                if not self._names.has_log(table, level):
                    raise StorageError(
                        f"{self.store.url}/{table} cannot be made: {error}", kind=ErrorKind.UNREACHABLE
                    ) from error

    def schema(self, table: str, version: int | None = None) -> TableSchema:
        """Return the modalities of a table."""
        schema = self._read(table, "samples", version).schema
        assert schema is not None, "the samples of each version have one"
        return schema

    def files(self, table: str, level: Level, version: int | None = None) -> LevelFiles:
        """Return the files of a level: of the samples table at a version, of the others at their newest."""
        return self._read(table, level, version if level == "samples" else None).files

    def _read(self, table: str, level: Level, version: int | None) -> _LevelVersion:
        """Read the log of a level up to a version, or to the newest there is now, unless it is known.

        A version is known by the copy of its log, since a table that was made anew has the same version numbers. Which copy that
        is, the store has to say, but for versions that were asked for before.
        """
        with self._turns[hash((table, level)) % N_TURNS]:
            log = None if version is None else self._known.get(("log", table, version))
            log = log or self._log(table, level, version)
            found: _LevelVersion | None = self._known.get(("level", log))
            if found is None:
                try:
                    found = self._load(log, table, level)
                except IntegrityError:
                    if not self.mirror.forget(log):
                        raise
                    log = self._log(
                        table, level, version
                    )  # the copy may be damaged, and not what it was made of
                    found = self._load(log, table, level)
                self._known.keep(("level", log), found, found.files.statistics.nbytes)
            if level == "samples":
                self._known.keep(("log", table, log.version), log)
        self._names.meet(table)
        return found

    def _load(self, log: LogCopy, table: str, level: Level) -> _LevelVersion:
        """Find out what a version holds.

        Raises
        ------
        IntegrityError
            A file of the log is damaged.
        FormatError
            The log is of a kind that is not read here.
        """
        where = f"{self.store.url}/{index_key(table, level)}"
        files = {f"{where}/{LOG}/{name}": log.folder / LOG / name for name in log.names}
        for url, path in files.items():
            if path.suffix == ".json":
                check_commit(_read_bytes(path, url), url)
        try:
            found, columns = read_version(log, index_key(table, level), level, self.store)
        except FormatError as error:
            raise find_damage(files) or error from error
        return _LevelVersion(found, table_schema(columns) if level == "samples" else None)

    def _log(self, table: str, level: Level, version: int | None, *, whole: bool = False) -> LogCopy:
        try:
            return self.mirror.log(index_key(table, level), version, whole=whole)
        except NotFoundError:
            raise self._names.missing(table, version) from None

    def history(self, table: str) -> list[SnapshotInfo]:
        """Return the versions of a table, newest first."""
        log = self._log(table, "samples", None, whole=True)
        return read_history(log, index_key(table, "samples"), self.store)

    def committed_keys(self, table: str) -> pa.Table:
        """Return the columns split, subset, sample_id and stem of every sample of the newest snapshot.

        Raises
        ------
        NotFoundError
            There is no such table, and nothing else: whoever ingests takes that for an empty one.
        """
        self._read(table, "samples", None)  # finds damage that delta-rs reads over
        return self._open(table, "samples").rows(KEY_COLUMNS)

    def commit(self, table: str, commit: Commit) -> int:
        """Make a part visible as :meth:`publish` does; returns the samples version that shows it."""
        return self.publish(table, commit).version

    def publish(self, table: str, commit: Commit) -> Published:
        """Make a part visible as :func:`tensorbank.catalog.commits.publish` does."""
        return publish(commit, partial(self._open, table), lambda: self.committed_keys(table), table)

    def _open(self, table: str, level: Level) -> DeltaLevel:
        """Open a level at its newest version, by the store itself."""
        self.mirror.require_writable()
        try:
            return open_level(self.store, index_key(table, level))
        except NotFoundError as error:
            if error.kind == ErrorKind.NO_BUCKET:
                raise
            raise self._names.missing(table) from None
        except FormatError:
            self.mirror.log(index_key(table, level))
            self._read(table, level, None)  # names the file, if one is damaged
            raise


def _read_bytes(path: Path, url: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise of_system(error, url) or StorageError(
            f"{url} cannot be read: {error}", kind=ErrorKind.DISK
        ) from error
