"""Tables, snapshots and commits: the one module that knows Delta Lake, but for the files of its logs.

Those are :mod:`tensorbank.catalog.delta_log`'s.

A table is three Delta tables. A commit appends to ``tiles`` and ``shards`` first and to ``samples`` last; rows of the first
two count only when their part is in the samples snapshot, so a reader sees all of a part or none of it. Every append
carries a Delta application transaction: a part can be appended to a level once only, however often and from
wherever it is tried, and two writers of the samples table cannot overlook each other.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import (
    ColumnProperties,
    CommitProperties,
    DeltaTable,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake import exceptions as delta_errors

from tensorbank.arrow_numpy import as_arrow, as_table
from tensorbank.catalog.delta_log import LOG, check_commit, data_path, find_damage, require_readable
from tensorbank.catalog.level_files import IndexFile, LevelFiles
from tensorbank.catalog.mirror import IndexMirror, LogCopy
from tensorbank.catalog.nan_columns import FINITE, with_nan
from tensorbank.catalog.static_bank import has_log, is_static, table_names
from tensorbank.errors import (
    ConflictError,
    ErrorKind,
    FormatError,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    StorageError,
    TensorBankError,
    nearest,
)
from tensorbank.index_schema import samples_schema, shards_schema, table_schema, tiles_schema
from tensorbank.layout import LEVELS, Level, check_table_name, index_key
from tensorbank.schema import TableSchema
from tensorbank.storage import (
    BACKOFF_BASE,
    CLIENT_POLICY,
    CONNECT_TIMEOUT_S,
    Store,
    as_ours,
    bucket_and_prefix,
    certificates,
    is_panic,
    of_system,
    quoted_url,
    surroundings,
)

__all__ = ["Catalog", "Commit", "Published", "SnapshotInfo"]

ROW_GROUP_ROWS = 122_880
MAX_FACTS = 32
N_THREADS = 16
Fact = TypeVar("Fact")
DELTA_REQUEST_TIMEOUT_S = 30  # of a whole request; delta-rs knows no time-out of a silence
SQL_SCHEMAS = frozenset({"main", "temp", "system", "information_schema", "pg_catalog"})
_SAMPLES_WRITERS = "tensorbank.samples"
_OF_CLIENT = re.compile(r"Generic \w+ error: ")
"""The beginning of an error report from delta-rs' client of the store."""


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """One version of the samples table in the history. ``timestamp_ms`` is since 1970."""

    version: int
    timestamp_ms: int
    operation: str
    part: str | None
    n_rows: int

    @property
    def when(self) -> datetime:
        """The time in UTC, to the second."""
        return datetime.fromtimestamp(self.timestamp_ms // 1000, UTC)


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
    the newest version if another writer ``added`` the part."""

    version: int
    added: bool


class Catalog:
    """The tables of one bank. Every call looks whether the store has something newer;
    what is known of a version is kept.

    Readers have delta-rs read a copy of the log, which takes two requests in a row rather than four, and our client's patience
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
        self._tables: set[str] = set()
        self._levels: dict[LogCopy, LevelFiles] = {}
        self._schemas: dict[LogCopy, TableSchema] = {}
        self._pinned: dict[tuple[str, int], LogCopy] = {}
        self._facts: dict[Hashable, Any] = {}
        self._lock = threading.Lock()
        self._turns: dict[tuple[str, Level], threading.Lock] = {}

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.store, self.mirror))

    def tables(self) -> list[str]:
        """Return the names of the tables, sorted."""
        if is_static(self.store):
            return table_names(self.store)
        return self._with_logs(self.store.folders())

    def among(self, names: Collection[str]) -> list[str]:
        """Return the tables that some names may mean, whatever their case.
        The store is asked only for names not met before."""
        meant = {n.lower() for n in names}
        with self._lock:
            known = {table for table in self._tables if table.lower() in meant}
        if meant <= {n.lower() for n in known}:
            return sorted(known)
        if is_static(self.store):
            with suppress(NotFoundError):
                known |= {table for table in table_names(self.store) if table.lower() in meant}
            unknown = [n for n in names if n.lower() not in {table.lower() for table in known}]
            known |= {n for n in unknown if has_log(self.store, index_key(n, "samples"))}
        else:
            known |= set(self._with_logs([n for n in self.store.folders() if n.lower() in meant]))
        return sorted(known)

    def _with_logs(self, folders: Sequence[str]) -> list[str]:
        """Return the folders that hold tables."""
        keys = [f"{index_key(name, 'samples')}/{LOG}" for name in folders]
        with ThreadPoolExecutor(N_THREADS) as pool:
            return [
                name for name, log in zip(folders, pool.map(self.store.objects, keys), strict=True) if log
            ]

    def fact(self, table_id: str, version: int, what: Hashable, find: Callable[[], Fact]) -> Fact:
        """Return a fact about one version of a table, found once: versions never change."""
        key = (table_id, version, what)
        if key not in self._facts:
            self._facts[key] = find()
            while len(self._facts) > MAX_FACTS:
                self._facts.pop(next(iter(self._facts)), None)
        found: Fact = self._facts[key]
        return found

    def require_arbitration(self) -> None:
        """Try whether the store arbitrates between writers, with a probe object of its own.

        Raises
        ------
        ConflictError
            It does not: a second conditional write of one key wins.
        """
        if not self.store.arbitrates_writers():
            raise ConflictError(
                f"{self.store.url} lets a second conditional write win, so concurrent commits could be lost; "
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
        makers: dict[Level, Callable[[TableSchema], Any]] = {
            "samples": samples_schema,
            "tiles": tiles_schema,
            "shards": shards_schema,
        }
        missing = {level: makers[level] for level in LEVELS[::-1] if not self._has_log(table, level)}
        if not missing:
            return
        self.mirror.require_writable()
        self._check_free(table)
        if not single_writer:
            self.require_arbitration()
        for level, make in missing.items():
            # One try only: delta-rs would repeat a lost race as a second version with another id and another schema.
            try:
                options, environment = self._settings()
                with self._translated(self._where(table, level)), surroundings(environment):
                    DeltaTable.create(
                        self._uri(table, level),
                        schema=make(schema),
                        mode="ignore",
                        configuration={"delta.dataSkippingNumIndexedCols": "-1"},
                        storage_options=options,
                        commit_properties=CommitProperties(max_commit_retries=0),
                    )
            except delta_errors.CommitFailedError as error:
                if not self._has_log(table, level):
                    raise StorageError(
                        f"{self.store.url}/{table} cannot be made: {_first_line(error)}",
                        kind=ErrorKind.UNREACHABLE,
                    ) from error

    def _has_log(self, table: str, level: Level) -> bool:
        with suppress(NotFoundError):
            return bool(self.store.objects(f"{index_key(table, level)}/{LOG}"))
        return False

    def _check_free(self, table: str) -> None:
        """Raise InvalidInputError if SQL, which does not tell the case of names,
        would take the table for something else."""
        if table.lower() in SQL_SCHEMAS:
            raise InvalidInputError(f"{table!r} cannot name a table, since SQL has its own {table.lower()}")
        with suppress(NotFoundError):
            for other in self.store.folders():
                if other != table and other.lower() == table.lower() and other in self.tables():
                    raise InvalidInputError(
                        f"there is a table {other!r} already, and SQL cannot tell {table!r} from it"
                    )

    def schema(self, table: str, version: int | None = None) -> TableSchema:
        """Return the modalities of a table."""
        return self._schemas[self._read(table, "samples", version)]

    def files(self, table: str, level: Level, version: int | None = None) -> LevelFiles:
        """Return the files of a level: of the samples table at a version, of the others at their newest."""
        return self._levels[self._read(table, level, version if level == "samples" else None)]

    def _read(self, table: str, level: Level, version: int | None) -> LogCopy:
        """Read the log of a level up to a version, or to the newest there is now, unless it is known."""
        with self._lock:
            turn = self._turns.setdefault((table, level), threading.Lock())
            log = None if version is None else self._pinned.get((table, version))
        with turn:
            log = log or self._log(table, level, version)
            if log not in self._levels:
                try:
                    self._load(log, table, level)
                except IntegrityError:
                    if not self.mirror.forget(log):
                        raise
                    log = self._log(
                        table, level, version
                    )  # the copy may be damaged, and not what it was made of
                    self._load(log, table, level)
            with self._lock:
                self._tables.add(table)
                if level == "samples":
                    self._pinned[table, log.version] = log
        return log

    def _load(self, log: LogCopy, table: str, level: Level) -> None:
        """Find out what a version holds.

        Raises
        ------
        IntegrityError
            A file of the log is damaged.
        FormatError
            The log is of a kind that is not read here.
        """
        where = self._where(table, level)
        files = {f"{where}/{LOG}/{name}": log.folder / LOG / name for name in log.names}
        for url, path in files.items():
            if path.suffix == ".json":
                check_commit(_read_bytes(path, url), url)
        try:
            with self._translated(self._where(table, level)):
                delta = DeltaTable(log.folder, version=log.version)
                _require_readable(delta, where)
                schema = pa.schema(delta.schema().to_arrow())
                found = _level_files(index_key(table, level), level, delta, where)
        except FormatError as error:
            raise find_damage(files) or error from error
        if level == "samples":
            self._schemas[log] = table_schema(schema)
        self._levels[log] = found

    def _log(self, table: str, level: Level, version: int | None, *, whole: bool = False) -> LogCopy:
        try:
            return self.mirror.log(index_key(table, level), version, whole=whole)
        except NotFoundError:
            raise self._missing(table, version) from None

    def _missing(self, table: str, version: int | None = None) -> NotFoundError:
        """Return the error that names what is missing: the table, its version, or the bank."""
        tables = self.told_tables()
        if version is not None and table in tables:
            return NotFoundError(
                f"table {table} has no version {version}; see `tensorbank history`",
                kind=ErrorKind.UNKNOWN_SNAPSHOT,
            )
        hint = nearest(table, tables) or (
            "" if tables or is_static(self.store) else " There is no table at all."
        )
        return NotFoundError(f"{self.store.url} has no table {table!r}.{hint}", kind=ErrorKind.UNKNOWN_TABLE)

    def told_tables(self) -> list[str]:
        """Return the names of the tables, or of those met so far where no list is to be had."""
        try:
            return self.tables()
        except NotFoundError as error:
            if error.kind != ErrorKind.NO_LIST_OF_TABLES:
                raise
            return sorted(self._tables)

    def history(self, table: str) -> list[SnapshotInfo]:
        """Return the versions of a table, newest first."""
        log = self._log(table, "samples", None, whole=True)
        with self._translated(self._where(table, "samples")):
            entries = DeltaTable(log.folder, version=log.version).history()
        return [
            SnapshotInfo(
                version=int(e["version"]),
                timestamp_ms=int(e["timestamp"]),
                operation=str(e.get("operation", "")).lower(),
                part=e.get("tensorbank.part"),
                n_rows=int((e.get("operationMetrics") or {}).get("num_added_rows", 0)),
            )
            for e in entries
        ]

    def committed_keys(self, table: str) -> pa.Table:
        """Return the columns split, subset, sample_id and stem of every sample of the newest snapshot.

        Raises
        ------
        NotFoundError
            There is no such table, and nothing else: whoever ingests takes that for an empty one.
        """
        self._read(table, "samples", None)  # finds damage that delta-rs reads over
        delta = self._open(table, "samples")
        with self._translated(self._where(table, "samples")):
            return delta.to_pyarrow_table(columns=["split", "subset", "sample_id", "stem"])

    def commit(self, table: str, commit: Commit) -> int:
        """Make a part visible as :meth:`publish` does; returns the samples version that shows it."""
        return self.publish(table, commit).version

    def publish(self, table: str, commit: Commit) -> Published:
        """Make a part visible, unless it is visible already: whoever commits it, it is committed once.

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
                    f"part {commit.part} has NaN in {', '.join(sorted(names))}; an index says NULL where there is no number",
                    kind=ErrorKind.NAN,
                )
        self._append(table, "tiles", commit.part, commit.tiles)
        self._append(table, "shards", commit.part, commit.shards)
        for _ in range(50):
            delta = self._open(table, "samples")
            if delta.transaction_version(commit.part) is not None:
                return Published(int(delta.version()), added=False)
            turn = (delta.transaction_version(_SAMPLES_WRITERS) or 0) + 1
            if n_taken := _n_common(commit.samples, self.committed_keys(table)):
                if self._open(table, "samples").transaction_version(commit.part) is not None:
                    continue  # they are its own samples: another run committed the part since it was looked for
                raise ConflictError(
                    f"another writer committed {n_taken} of the samples of part {commit.part} meanwhile; run again",
                    kind=ErrorKind.LOST_RACE,
                )
            transactions = [Transaction(commit.part, 1), Transaction(_SAMPLES_WRITERS, turn)]
            transactions += [Transaction(FINITE, 1)] if turn == 1 else []
            try:
                self._write(delta, commit.part, commit.samples, transactions)
            except delta_errors.CommitFailedError:
                continue
            return Published(int(self._open(table, "samples").version()), added=True)
        raise ConflictError(
            f"part {commit.part} of {table} lost 50 commits to other writers; try again later"
        )

    def _append(self, table: str, level: Level, part: str, rows: pa.Table) -> None:
        delta = self._open(table, level)
        if delta.transaction_version(part) is not None:
            return
        try:
            self._write(delta, part, rows, [Transaction(part, 1)])
        except delta_errors.CommitFailedError as error:
            if self._open(table, level).transaction_version(part) is None:
                raise ConflictError(
                    f"part {part} of {table} lost its commit to other writers; try again later"
                ) from error

    def _write(self, delta: DeltaTable, part: str, rows: pa.Table, transactions: list[Transaction]) -> None:
        with self._translated(unquote(delta.table_uri).rstrip("/")):
            write_deltalake(
                delta,
                rows,
                mode="append",
                schema_mode="merge",
                writer_properties=WriterProperties(
                    compression="ZSTD",
                    compression_level=3,
                    max_row_group_size=ROW_GROUP_ROWS,
                    default_column_properties=ColumnProperties(dictionary_enabled=True),
                ),
                commit_properties=CommitProperties(
                    custom_metadata={"tensorbank.part": part},
                    max_commit_retries=50,
                    app_transactions=transactions,
                ),
            )

    def _open(self, table: str, level: Level) -> DeltaTable:
        """Open a level at its newest version, by the store itself."""
        self.mirror.require_writable()
        options, environment = self._settings()
        try:
            with self._translated(self._where(table, level)), surroundings(environment):
                delta = DeltaTable(self._uri(table, level), storage_options=options)
        except NotFoundError as error:
            if error.kind == ErrorKind.NO_BUCKET:
                raise
            raise self._missing(table) from None
        except FormatError:
            self.mirror.log(index_key(table, level))
            self._read(table, level, None)  # names the file, if one is damaged
            raise
        _require_readable(delta, self._where(table, level))
        return delta

    def _uri(self, table: str, level: Level) -> str:
        local = self.store.local_path
        return f"{local if local is not None else quoted_url(self.store.url)}/{index_key(table, level)}"

    def _settings(self) -> tuple[dict[str, str], dict[str, str | None]]:
        """Return the options for delta-rs, and the variables it must find in the environment,
        which it reads in any case."""
        if not self.store.url.startswith("s3:"):
            return {}, {}
        options, keys = self.store.settings()
        given: dict[str, str | None] = {
            "connect_timeout": f"{CONNECT_TIMEOUT_S}s",
            "timeout": f"{DELTA_REQUEST_TIMEOUT_S}s",
            "max_retries": str((CLIENT_POLICY.n_tries or 1) - 1),
            "retry_timeout": f"{CLIENT_POLICY.deadline_s:g}s",
            "backoff_config.init_backoff": f"{1000 * CLIENT_POLICY.first_pause_s:g}ms",
            "backoff_config.max_backoff": f"{CLIENT_POLICY.max_pause_s:g}s",
            "backoff_config.base": str(BACKOFF_BASE),
            "AWS_ENDPOINT_URL": options.endpoint,
            "AWS_REGION": options.region,
            "AWS_ALLOW_HTTP": "true",
            "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "false" if options.endpoint else None,
            "AWS_SKIP_SIGNATURE": "true" if options.anonymous else None,
        }
        if keys is not None:
            found = keys()
            given["AWS_ACCESS_KEY_ID"] = found["access_key_id"]
            given["AWS_SECRET_ACCESS_KEY"] = found["secret_access_key"]
            given["AWS_SESSION_TOKEN"] = found.get("token")
        environment: dict[str, str | None] = {}
        if keys is not None and given["AWS_SESSION_TOKEN"] is None:
            environment["AWS_SESSION_TOKEN"] = None  # of other keys
        if (authorities := certificates(options)) is not None:
            environment["SSL_CERT_FILE"] = str(authorities)
        return {k: v for k, v in given.items() if v is not None}, environment

    def _where(self, table: str, level: Level) -> str:
        return f"{self.store.url}/{index_key(table, level)}"

    @contextmanager
    def _translated(self, where: str) -> Iterator[None]:
        """Raise errors of delta-rs as ours, by their class;
        what its client of the store says, as our client's."""
        try:
            yield
        except TensorBankError:
            raise
        except BaseException as error:  # a breakdown of the client is none of Exception's
            found = _as_ours(error, where, self.store)
            if found is None:
                raise
            raise found from error


def _as_ours(error: BaseException, where: str, store: Store) -> TensorBankError | None:
    """Translate an error of delta-rs; None if the error is not its own, or the commit lost a race."""
    place = bucket_and_prefix(store.url)[0], store.options.endpoint
    if is_panic(error):
        return as_ours(error, where, *place)
    if not isinstance(error, OSError | delta_errors.DeltaError):
        return None
    of_store = (
        isinstance(error, OSError)
        or " error performing " in str(error).lower()
        or _OF_CLIENT.search(str(error))
    )
    system = of_system(error, where)
    if system is not None:
        return system
    if isinstance(error, delta_errors.CommitFailedError):
        return None
    if isinstance(error, delta_errors.TableNotFoundError):
        return NotFoundError(f"there is no table at {where}")
    if isinstance(error, FileNotFoundError):
        return IntegrityError(
            f"a file that the log of {where} names is gone: {_first_line(error)}; restore it",
            kind=ErrorKind.MISSING_FILE,
        )
    if of_store:
        return as_ours(error, where, *place)
    return FormatError(f"the index {where} cannot be read: {_first_line(error)}", kind=ErrorKind.LOG_FORMAT)


def _require_readable(delta: DeltaTable, where: str) -> None:
    protocol = delta.protocol()
    require_readable(
        protocol.min_reader_version, protocol.reader_features, delta.metadata().configuration, where
    )


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]


def _read_bytes(path: Path, url: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise of_system(error, url) or StorageError(
            f"{url} cannot be read: {error}", kind=ErrorKind.DISK
        ) from error


def _level_files(prefix: str, level: Level, delta: DeltaTable, where: str) -> LevelFiles:
    actions = as_table(delta.get_add_actions())
    keys = [
        (part or "", path)
        for part, path in zip(_parts(actions, "min"), actions["path"].to_pylist(), strict=True)
    ]
    order = sorted(range(len(keys)), key=keys.__getitem__)  # part by part, as samples lie in the bank
    if order != list(range(len(keys))):  # a column for each statistic of each band takes long to move
        actions = actions.take(as_arrow(np.array(order, np.int64)))
    low, high = (_parts(actions, side) for side in ("min", "max"))
    columns = (actions[name].to_pylist() for name in ("path", "size_bytes", "num_records"))
    files = tuple(
        IndexFile(
            f"{prefix}/{data_path(path, where)}", int(size), int(rows or 0), first if first == last else None
        )
        for path, size, rows, first, last in zip(*columns, low, high, strict=True)
    )
    statistics = actions.select([n for n in ("min", "max") if n in actions.column_names])
    finite = delta.transaction_version(FINITE) is not None
    return LevelFiles(level, str(delta.metadata().id), int(delta.version()), files, statistics, finite)


def _parts(actions: pa.Table, side: str) -> list[str | None]:
    """Return the smallest or largest part of each file, None where the log does not say."""
    bounds = actions.column(side).combine_chunks() if side in actions.column_names else None
    if bounds is None or bounds.type.get_field_index("part") < 0:
        return [None] * actions.num_rows
    return list(bounds.field("part").to_pylist())


def _n_common(rows: pa.Table, committed: pa.Table) -> int:
    """Count the rows whose (split, sample_id) is committed already."""
    mine, theirs = (
        pc.binary_join_element_wise(t["split"].cast(pa.string()), t["sample_id"].cast(pa.string()), "/")
        for t in (rows, committed)
    )
    return int(pc.sum(pc.is_in(mine, value_set=theirs)).as_py() or 0)
