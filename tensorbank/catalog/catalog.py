"""The tables of a bank: their snapshots, and who makes them.

A table is some Delta tables, one a level. The version of ``samples`` is that of the table, and says which versions of the
others belong to it; :mod:`tensorbank.catalog.publishing` says in which order they are written, so that readers see all of a
change or none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tensorbank.catalog.changes import (
    COLUMNS_FOLDER,
    DELETED,
    KEYS,
    SORTED_FOLDER,
    Change,
    Published,
    TableVersion,
)
from tensorbank.catalog.commits import Commit, IndexReader, Replaced, adding
from tensorbank.catalog.copies import copy_table, origins_of
from tensorbank.catalog.key_files import StoredKeys, key_pairs, read_keys
from tensorbank.catalog.membership import (
    KEY_COLUMNS,
    KeysInMemory,
    KeysOfFile,
    Membership,
    rows_of_keys,
)
from tensorbank.catalog.publishing import (
    COLUMNS,
    FORMAT,
    INDEX_VERSION,
    PIN,
    SORTED,
    create_tables,
    publish,
)
from tensorbank.catalog.renaming import NAME, leads_to, new_name_of, raise_renamed, rename_table
from tensorbank.catalog.table_names import TableNames
from tensorbank.catalog.upgrade import upgrading
from tensorbank.delta import (
    CHECKPOINT_INTERVAL,
    KnownVersions,
    Lifetimes,
    LogReader,
    SnapshotInfo,
    VersionState,
    read_history,
    read_lifetimes,
    write_checkpoint,
)
from tensorbank.errors import (
    ConflictError,
    ErrorKind,
    FormatError,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    StorageError,
    TensorBankError,
)
from tensorbank.index_files import (
    IndexFile,
    IndexMirror,
    LevelFiles,
    LogCopy,
    NewFile,
    checkpoint_name,
    is_static,
    write_rows,
)
from tensorbank.index_schema import table_schema
from tensorbank.layout import check_table_name, index_key, part_key
from tensorbank.schema import TableSchema
from tensorbank.storage import PASSING, Store

__all__ = ["Catalog"]

KNOWN_BYTES = 256 << 20
"""The most bytes of what is remembered of versions. The statistics of a level take about 5 kB a file: 30 MB for the 6,000 files
of a hundred million samples."""
KNOWN_KEYS_BYTES = 256 << 20
"""The most bytes of keys that are remembered: those of 16 million samples."""
PINNED = ("tiles", "shards", KEYS, DELETED)
Fact = TypeVar("Fact")


class Catalog:
    """The tables of one bank. Every call looks whether the store has something newer;
    what is known of a version is kept.

    Logs are read in copies, which takes two requests in a row, and index files where the mirror has them.

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
        self._known_keys = KnownVersions(KNOWN_KEYS_BYTES)
        self._logs = LogReader(store, mirror, _asked, self._known)

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

    def met(self, names: Collection[str]) -> list[str] | None:
        """Return the tables that some names mean, whatever their case; None if the store would have to be asked."""
        return self._names.met(names)

    def knows(self, version: TableVersion, level: str) -> bool:
        """Tell whether :meth:`state` answers without asking the store."""
        owner = "" if level == "samples" else version.table_id
        return self._logs.knows(version.table, level, version.pinned(level), owner)

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
        """Create a table without samples; what exists already is kept, and nothing is written where all does.

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
        if self._names.has_log(table, "samples"):
            return
        self.mirror.require_writable()
        self._require_own_name(table)
        self._names.check_free(table)
        if not single_writer:
            self.require_arbitration()
        create_tables(self.store, table, schema, lambda level: not self._names.has_log(table, level))

    def copy(self, table: str, new: str, version: int | None = None) -> int:
        """Make another table of a version of one, with the same tensors; see :func:`tensorbank.catalog.copies.copy_table`."""
        check_table_name(new)
        self.mirror.require_writable()
        source = self.version(table, version)
        self._names.check_free(new)
        self._require_own_name(new)
        try:
            return copy_table(self, source, new)
        except (NotFoundError, IntegrityError):
            raise_renamed(table, new_name_of(self.store, table))  # its log was moved meanwhile
            raise

    def rename(self, table: str, new: str) -> int:
        """Give a table another name; see :func:`tensorbank.catalog.renaming.rename_table`."""
        check_table_name(new)
        self.mirror.require_writable()
        self._names.check_free(new)
        if leads_to(self.store, new) != table:
            self._require_own_name(new)
        if new == table:
            raise InvalidInputError(f"the table has the name {new!r} already", kind=ErrorKind.EXISTS)
        return rename_table(self, table, new)

    def names_of(self, version: TableVersion) -> tuple[str, ...]:
        """Return the name of a table, and others below which something of it may lie: of a copy, those of its source; the names
        that it had before; and the one that it is getting, which it may have had before, too.
        """
        state = self.state(version, "samples")
        getting = state.configuration.get(NAME, version.table)
        return tuple(dict.fromkeys((version.table, *origins_of(state), getting)))

    def said_name(self, table: str) -> str:
        """Return the name that a table has by now, its own if it was not renamed."""
        return self._name_in(table, self._read(table, "samples", None)[0])

    def renamed_head(self, table: str) -> tuple[str | None, TableVersion]:
        """Return the name that the newest version of a table says, None for its own, and that version."""
        state, _ = self._read(table, "samples", None)
        said = state.configuration.get(NAME, table)
        return (None if said == table else said), self.version(table, state.version)

    def _name_in(self, table: str, state: VersionState) -> str:
        """Return the name that a version of a table says, its own as long as the other one leads to it."""
        said = state.configuration.get(NAME, table)
        return table if said != table and new_name_of(self.store, said) == table else said

    def _require_own_name(self, table: str) -> None:
        """Raise InvalidInputError if a name is that of a table which was renamed: its tensors lie there."""
        said = new_name_of(self.store, table)
        if said is not None:
            raise InvalidInputError(
                f"{table} is the name that {said} had before, whose tensors lie there; take another name",
                kind=ErrorKind.EXISTS,
            )

    def part_folder(self, version: TableVersion, part: str) -> str:
        """Return the key of the folder of a part: below the table's own name, or that of a table that it was copied from."""
        names = self.names_of(version)
        for name in names if len(names) > 1 else ():
            if self.store.exists(f"{part_key(name, part)}/zarr.json"):
                return part_key(name, part)
        return part_key(version.table, part)

    def schema(self, table: str, version: int | None = None) -> TableSchema:
        """Return the modalities of a table."""
        return self.version(table, version).schema

    def version(self, table: str, version: int | None = None, ahead: LogCopy | None = None) -> TableVersion:
        """Return what is known of a version of a table, of the newest if None: of that which was read :meth:`ahead` just now.

        Raises
        ------
        NotFoundError
            There is no such table or version.
        """
        try:
            state, log = self._read(table, "samples", version, ahead=ahead)
        except (NotFoundError, IntegrityError):
            said = new_name_of(self.store, table)
            raise_renamed(table, said)
            raise
        if version is None:
            raise_renamed(table, self._name_in(table, state))
        if state.transactions.get(FORMAT, 1) > INDEX_VERSION:
            raise FormatError(
                f"{self.store.url}/{table} has format {state.transactions[FORMAT]}, and this version of TensorBank reads formats "
                f"up to {INDEX_VERSION}; install a newer one",
                kind=ErrorKind.LOG_FORMAT,
            )
        pins = {
            name.removeprefix(PIN): n
            for name, n in state.transactions.items()
            if name.startswith(PIN) and n >= 0
        }
        return self._known.found(
            ("version", table, log),
            lambda: TableVersion(
                table,
                state,
                table_schema(state.columns),
                pins or None,
                _names(state.configuration, COLUMNS),
                _names(state.configuration, SORTED),
            ),
        )

    def head(self, table: str) -> TableVersion:
        """Return the newest version of a table, as a writer needs it.

        Raises
        ------
        InvalidInputError
            The bank cannot be written to.
        NotFoundError
            There is no such table, or it is being renamed.
        """
        self.mirror.require_writable()
        head = self.version(table)
        said = self.state(head, "samples").configuration.get(NAME, table)
        if said != table:
            raise NotFoundError(
                f"{table} is being renamed to {said}; complete that by the same renaming, and write to {said} then",
                kind=ErrorKind.UNKNOWN_TABLE,
            )
        return head

    def files(self, table: str, level: str, version: int | None = None) -> LevelFiles:
        """Return the files of a level that belong to a version of the table."""
        return self.levels(self.version(table, version), [level])[level]

    def levels(self, version: TableVersion, levels: Collection[str]) -> dict[str, LevelFiles]:
        """Return the files of some levels that belong to a version of a table."""
        return {level: self.state(version, level).files for level in levels}

    def state(self, version: TableVersion, level: str, ahead: LogCopy | None = None) -> VersionState:
        """Return a level as it is in a version of its table, from a log that was read :meth:`ahead` if it is the one."""
        owner = "" if level == "samples" else version.table_id
        return self._read(version.table, level, version.pinned(level), owner, ahead)[0]

    def ahead(self, table: str, level: str) -> LogCopy | None:
        """Read the newest log of a level before it is known which version of it a table pins; None if there is none to be read.

        Raises
        ------
        StorageError
            The store is out of reach, or busy, and was asked often enough.
        """
        try:
            log = self._logs.read(table, level, None)[1]
        except TensorBankError as error:
            if error.kind in PASSING:
                raise
            return None
        self._names.meet(table)
        return log

    def newest(self, table: str, level: str) -> VersionState | None:
        """Return the newest version of a level, whatever the table shows of it; None if there is no such Delta table."""
        with suppress(NotFoundError):
            return self._read(table, level, None)[0]
        return None

    def _read(
        self,
        table: str,
        level: str,
        version: int | None,
        owner: str = "",
        ahead: LogCopy | None = None,
    ) -> tuple[VersionState, LogCopy]:
        """Read the log of a level as :meth:`tensorbank.delta.LogReader.read` does."""
        with self._found(table, version):
            found = self._logs.read(table, level, version, owner, ahead)
        self._names.meet(table)
        return found

    def _log(self, table: str, level: str, version: int | None, *, whole: bool = False) -> LogCopy:
        with self._found(table, version):
            return self.mirror.log(index_key(table, level), version, whole=whole)

    @contextmanager
    def _found(self, table: str, version: int | None) -> Iterator[None]:
        """Name what is missing where a log is not found."""
        try:
            yield
        except NotFoundError as error:
            if error.kind == ErrorKind.UNKNOWN_SNAPSHOT:
                raise
            raise self._names.missing(table, version) from None

    def history(self, table: str) -> list[SnapshotInfo]:
        """Return the versions of a table whose commits are there, newest first."""
        log = self._log(table, "samples", None, whole=True)
        return read_history(log, f"{self.store.url}/{index_key(table, 'samples')}")

    def lifetimes(self, table: str, level: str) -> Lifetimes:
        """Return what the commits of a level say of its files and versions, all of them."""
        log = self._log(table, level, None, whole=True)
        key = index_key(table, level)
        return read_lifetimes(
            log, lambda version: self._log(table, level, version), key, f"{self.store.url}/{key}"
        )

    def checkpoint_at(self, table: str, level: str, version: int) -> None:
        """Write a checkpoint of one version of a level, so that it needs no commits before it; one that is there stays.

        Raises
        ------
        StorageError
            The store cannot be written.
        """
        log = self._log(table, level, version)
        if checkpoint_name(version) not in log.names:
            write_checkpoint(self.store, index_key(table, level), log, newest=False)

    def membership(self, version: TableVersion) -> Membership:
        """Return the keys of the samples of a version."""
        if not version.has(KEYS):  # of format 1: they follow from all rows
            rows = [
                pq.read_table(self.path(file), columns=list(KEY_COLUMNS)) for file in version.samples.files
            ]
            return Membership([KeysInMemory(key_pairs(rows_of_keys(table))) for table in rows])
        held = self.state(version, KEYS).files.files
        deleted = self.state(version, DELETED).files.files if version.has(DELETED) else ()
        return Membership(self._keys_of(held), self._keys_of(deleted))

    def _keys_of(self, files: Sequence[IndexFile]) -> list[KeysOfFile]:
        paths = self.mirror.readable(files)
        return [StoredKeys(file.key, path, self._known_keys) for file, path in zip(files, paths, strict=True)]

    def deleted(self, version: TableVersion) -> pa.Table | None:
        """Return ``key`` and ``part`` of the rows that do not count in a version, None if all do."""
        files = self.state(version, DELETED).files.files if version.has(DELETED) else ()
        if not files:
            return None
        return pa.concat_tables(pq.read_table(self.path(file), columns=["key", "part"]) for file in files)

    def keys(self, file: IndexFile) -> npt.NDArray[np.int64]:
        """Return the (n, 2) keys of a file of ``keys`` or ``deleted``."""
        return self._known_keys.found(file.key, lambda: read_keys(Path(self.path(file))))

    def path(self, file: IndexFile) -> str:
        """Return the local path of an index file that may be opened."""
        (path,) = self.mirror.readable([file])
        return str(path)

    def write(self, table: str, level: str, rows: pa.Table) -> NewFile:
        """Write rows as an index file of a level, which a change may then add."""
        return write_rows(self.store, index_key(table, level), rows)

    def commit(self, table: str, commit: Commit) -> int:
        """Make a part visible, unless it is; returns the version that shows it, the newest if it was visible."""
        return self.add(table, commit).version

    def add(self, table: str, commit: Commit, replaced: Replaced | None = None) -> Published:
        """Make a part visible, unless it is: whoever commits it, it is committed once.

        Parameters
        ----------
        replaced
            Callable that returns the rows of a version in whose place those of the part come, as
            :func:`tensorbank.catalog.commits.adding` takes it.

        Raises
        ------
        ConflictError
            Another writer committed some of the same samples meanwhile (``kind`` is ``lost-race``), or other
            writers won every one of many tries.
        InvalidInputError
            A plain column holds NaN.
        """
        return self.publish(table, adding(commit, self.reader(), self._writer(table), replaced))

    def publish(self, table: str, make: Callable[[TableVersion], Change | None]) -> Published:
        """Make a change visible as :func:`tensorbank.catalog.publishing.publish` does. A table of format 1 is upgraded first."""
        upgrade = upgrading(lambda v, level: self.state(v, level).files, self.path, self._writer(table))
        done = publish(self, table, make, upgrade)
        if done.added and done.version % CHECKPOINT_INTERVAL == 0:
            self.checkpoint(table)
        return done

    def checkpoint(self, table: str) -> None:
        """Write checkpoints of the newest versions of all levels; a store that fails now leaves them to the next commit."""
        version = self.version(table)
        for level in ("samples", *(version.pins or {})):
            with suppress(StorageError):
                log = self._log(table, level, version.pinned(level))
                write_checkpoint(self.store, index_key(table, level), log)

    def reader(self) -> IndexReader:
        """Return what changes are made by."""
        return IndexReader(
            self.membership, self.deleted, self.keys, lambda v, level: self.state(v, level).files, self.path
        )

    def _writer(self, table: str) -> Callable[[str, pa.Table], NewFile]:
        return lambda level, rows: self.write(table, level, rows)


def _asked(level: str, configuration: Mapping[str, str]) -> list[str]:
    """Return the transactions that say which versions of other levels belong to one of samples."""
    if level != "samples":
        return []
    added = [f"{COLUMNS_FOLDER}/{name}" for name in _names(configuration, COLUMNS)]
    copies = [f"{SORTED_FOLDER}/{name}" for name in _names(configuration, SORTED)]
    return [FORMAT, *(f"{PIN}{level}" for level in (*PINNED, *added, *copies))]


def _names(configuration: Mapping[str, str], setting: str) -> tuple[str, ...]:
    """Return the names that a setting lists."""
    return tuple(filter(None, configuration.get(setting, "").split(",")))
