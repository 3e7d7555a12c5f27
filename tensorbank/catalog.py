"""Tables, snapshots and commits: the one module that knows Delta Lake, but for the names in its logs (:mod:`tensorbank.mirror`).

A table is three Delta tables. A commit appends to ``tiles`` and ``shards`` first and to ``samples`` last; rows of the first
two count only when their part is in the samples snapshot, so a reader sees all of a part or none of it. Every append
carries a Delta application transaction: a part can be appended to a level once only, however often and from
wherever it is tried, and two writers of the samples table cannot overlook each other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

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

from tensorbank.address import StorageOptions
from tensorbank.arrow_numpy import as_arrow, as_table
from tensorbank.errors import (
    ConflictError,
    FormatError,
    InvalidInputError,
    NotFoundError,
    StorageError,
    TensorBankError,
    nearest,
)
from tensorbank.hedging import hedged
from tensorbank.index import samples_schema, shards_schema, table_schema, tiles_schema
from tensorbank.index_files import IndexFile, LevelFiles
from tensorbank.layout import Level, check_table_name, index_key
from tensorbank.mirror import LOG, IndexMirror, LogCopy
from tensorbank.nan_columns import FINITE, with_nan
from tensorbank.schema import TableSchema
from tensorbank.store import CONNECT_TIMEOUT_S, MAX_RETRIES, RETRY_TIMEOUT_S, Store

__all__ = ["Catalog", "Commit", "SnapshotInfo"]

ROW_GROUP_ROWS = 122_880
MAX_FACTS = 32
N_THREADS = 16
N_TRIES = 6
"""Of opening a level, which takes some requests in a row that delta-rs tries again three times each."""
Fact = TypeVar("Fact")
DELTA_REQUEST_TIMEOUT_S = 30  # of a whole request; delta-rs knows no time-out of a silence
SQL_SCHEMAS = frozenset({"main", "temp", "system", "information_schema", "pg_catalog"})
_SAMPLES_WRITERS = "tensorbank.samples"


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
        """UTC, to the second."""
        return datetime.fromtimestamp(self.timestamp_ms // 1000, UTC)


@dataclass(frozen=True, slots=True)
class Commit:
    """What one commit adds: the rows of one part at every level."""

    part: str
    samples: pa.Table
    tiles: pa.Table
    shards: pa.Table


class Catalog:
    """Tables of one bank. Every call looks whether the store has something newer; what is known of a version is kept.

    Readers have delta-rs read a copy of the log, which takes two requests in a row rather than four, and our client's patience
    with a store that is busy. Writers, who need the store's own word, leave it to delta-rs.

    Parameters
    ----------
    store
        The bank.
    mirror
        Where readers have their copies of logs.
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
        """Names of the tables, sorted."""
        return self._with_logs(self.store.folders())

    def among(self, names: Collection[str]) -> list[str]:
        """Tables that some names may mean, whatever their case. The store is asked only for names not met before."""
        meant = {n.lower() for n in names}
        with self._lock:
            known = {table for table in self._tables if table.lower() in meant}
        if not meant <= {n.lower() for n in known}:
            known |= set(self._with_logs([n for n in self.store.folders() if n.lower() in meant]))
        return sorted(known)

    def _with_logs(self, folders: Sequence[str]) -> list[str]:
        """Those that are tables."""
        keys = [f"{index_key(name, 'samples')}/{LOG}" for name in folders]
        with ThreadPoolExecutor(N_THREADS) as pool:
            return [
                name for name, log in zip(folders, pool.map(self.store.objects, keys), strict=True) if log
            ]

    def fact(self, table_id: str, version: int, what: Hashable, find: Callable[[], Fact]) -> Fact:
        """Something about one version of a table, found once: versions never change."""
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
                kind="no-conditional-writes",
            )

    def create(self, table: str, schema: TableSchema, *, single_writer: bool = False) -> None:
        """Create the three index tables; what exists already is kept.

        Raises
        ------
        ConflictError
            The store does not honour conditional writes and ``single_writer`` was not chosen.
        """
        check_table_name(table)
        self._check_free(table)
        if not single_writer:
            self.require_arbitration()
        makers = {"tiles": tiles_schema, "shards": shards_schema, "samples": samples_schema}
        for level, make in makers.items():
            # One try only: delta-rs would repeat a lost race as a second version with another id and another schema.
            with suppress(delta_errors.CommitFailedError), _translated(f"{self.store.url}/{table}"):
                DeltaTable.create(
                    self._uri(table, level),  # type: ignore[arg-type]
                    schema=make(schema),
                    mode="ignore",
                    configuration={"delta.dataSkippingNumIndexedCols": "-1"},
                    storage_options=self._options(),
                    commit_properties=CommitProperties(max_commit_retries=0),
                )

    def _check_free(self, table: str) -> None:
        """InvalidInputError if SQL, which does not tell the case of names, would take the table for something else."""
        if table.lower() in SQL_SCHEMAS:
            raise InvalidInputError(f"{table!r} cannot name a table, since SQL has its own {table.lower()}")
        with suppress(NotFoundError):
            for other in self.store.folders():
                if other != table and other.lower() == table.lower() and other in self.tables():
                    raise InvalidInputError(
                        f"there is a table {other!r} already, and SQL cannot tell {table!r} from it"
                    )

    def schema(self, table: str, version: int | None = None) -> TableSchema:
        """Modalities of a table."""
        return self._schemas[self._read(table, "samples", version)]

    def files(self, table: str, level: Level, version: int | None = None) -> LevelFiles:
        """Files of a level: of the samples table at a version, of the others at their newest."""
        return self._levels[self._read(table, level, version if level == "samples" else None)]

    def _read(self, table: str, level: Level, version: int | None) -> LogCopy:
        """Read the log of a level up to a version, or to the newest there is now, unless it is known."""
        with self._lock:
            turn = self._turns.setdefault((table, level), threading.Lock())
            log = None if version is None else self._pinned.get((table, version))
        with turn:
            log = log or self._log(table, level, version)
            if log not in self._levels:
                with _translated(f"{self.store.url}/{table}"):
                    delta = DeltaTable(log.folder, version=log.version)
                    if level == "samples":
                        self._schemas[log] = table_schema(pa.schema(delta.schema().to_arrow()))
                    self._levels[log] = _level_files(index_key(table, level), level, delta)
            with self._lock:
                self._tables.add(table)
                if level == "samples":
                    self._pinned[table, log.version] = log
        return log

    def _log(self, table: str, level: Level, version: int | None) -> LogCopy:
        try:
            return self.mirror.log(index_key(table, level), version)
        except NotFoundError:
            raise self._missing(table, version) from None

    def _missing(self, table: str, version: int | None = None) -> NotFoundError:
        """What is missing, if the bank is there."""
        tables = self.tables()
        if version is not None and table in tables:
            return NotFoundError(
                f"table {table} has no version {version}; see `tensorbank history`", kind="unknown-snapshot"
            )
        hint = nearest(table, tables) or " There is no table at all."
        return NotFoundError(f"{self.store.url} has no table {table!r}.{hint}", kind="unknown-table")

    def history(self, table: str) -> list[SnapshotInfo]:
        """Versions of a table, newest first."""
        with _translated(f"{self.store.url}/{table}"):
            entries = self._open(table, "samples").history()
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
        """Columns split, subset, sample_id and stem of every sample of the newest snapshot."""
        delta = self._open(table, "samples")
        with _translated(f"{self.store.url}/{table}"):
            return delta.to_pyarrow_table(columns=["split", "subset", "sample_id", "stem"])

    def commit(self, table: str, commit: Commit) -> int:
        """Make a part visible; returns the samples version that shows it, or the newest if it was there already.

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
                    kind="nan",
                )
        self._append(table, "tiles", commit.part, commit.tiles)
        self._append(table, "shards", commit.part, commit.shards)
        for _ in range(50):
            delta = self._open(table, "samples")
            if delta.transaction_version(commit.part) is not None:
                return int(delta.version())
            turn = (delta.transaction_version(_SAMPLES_WRITERS) or 0) + 1
            if n_taken := _n_common(commit.samples, self.committed_keys(table)):
                raise ConflictError(
                    f"another writer committed {n_taken} of the samples of part {commit.part} meanwhile; run again",
                    kind="lost-race",
                )
            transactions = [Transaction(commit.part, 1), Transaction(_SAMPLES_WRITERS, turn)]
            transactions += [Transaction(FINITE, 1)] if turn == 1 else []
            try:
                self._write(delta, commit.part, commit.samples, transactions)
            except delta_errors.CommitFailedError:
                continue
            return int(self._open(table, "samples").version())
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
        with _translated(delta.table_uri):
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
        """A level at its newest version, by the store itself."""
        for _ in range(N_TRIES):
            try:
                return self._opened(table, level)
            except StorageError:
                self.store.folders()  # a store that is out of reach says so here, in our words; one that is busy has time
        return self._opened(table, level)

    def _opened(self, table: str, level: Level) -> DeltaTable:
        def load() -> DeltaTable:
            return DeltaTable(self._uri(table, level), storage_options=self._options())

        try:
            with _translated(f"{self.store.url}/{table}"):
                return hedged(load)
        except NotFoundError:
            raise self._missing(table) from None

    def _uri(self, table: str, level: Level) -> str:
        local = self.store.local_path
        return f"{local if local is not None else self.store.url}/{index_key(table, level)}"

    def _options(self) -> dict[str, str]:
        return _storage_options(self.store.url, self.store.options.with_keys())


def _level_files(prefix: str, level: Level, delta: DeltaTable) -> LevelFiles:
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
        IndexFile(f"{prefix}/{path}", int(size), int(rows or 0), first if first == last else None)
        for path, size, rows, first, last in zip(*columns, low, high, strict=True)
    )
    statistics = actions.select([n for n in ("min", "max") if n in actions.column_names])
    finite = delta.transaction_version(FINITE) is not None
    return LevelFiles(level, str(delta.metadata().id), int(delta.version()), files, statistics, finite)


def _parts(actions: pa.Table, side: str) -> list[str | None]:
    """Smallest or largest part of each file, None where the log does not say."""
    bounds = actions.column(side).combine_chunks() if side in actions.column_names else None
    if bounds is None or bounds.type.get_field_index("part") < 0:
        return [None] * actions.num_rows
    return list(bounds.field("part").to_pylist())


def _n_common(rows: pa.Table, committed: pa.Table) -> int:
    """How many (split, sample_id) of the rows are committed already."""
    mine, theirs = (
        pc.binary_join_element_wise(t["split"].cast(pa.string()), t["sample_id"].cast(pa.string()), "/")
        for t in (rows, committed)
    )
    return int(pc.sum(pc.is_in(mine, value_set=theirs)).as_py() or 0)


def _storage_options(url: str, options: StorageOptions) -> dict[str, str]:
    """delta-rs' names for what the options give; the rest comes from its environment."""
    if not url.startswith("s3:"):
        return {}
    given: dict[str, str | None] = {
        "connect_timeout": f"{CONNECT_TIMEOUT_S}s",
        "timeout": f"{DELTA_REQUEST_TIMEOUT_S}s",
        "max_retries": str(MAX_RETRIES),
        "retry_timeout": f"{RETRY_TIMEOUT_S}s",
        "AWS_ENDPOINT_URL": options.endpoint,
        "AWS_ACCESS_KEY_ID": options.access_key,
        "AWS_SECRET_ACCESS_KEY": options.secret_key,
        "AWS_SESSION_TOKEN": options.session_token,
        "AWS_REGION": options.region or ("us-east-1" if options.endpoint else None),
        "AWS_ALLOW_HTTP": "true" if options.allow_http else None,
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "false" if options.endpoint else None,
        "AWS_SKIP_SIGNATURE": "true" if options.anonymous else None,
    }
    return {k: v for k, v in given.items() if v is not None}


@contextmanager
def _translated(where: str) -> Iterator[None]:
    try:
        yield
    except (delta_errors.TableNotFoundError, FileNotFoundError) as error:
        raise NotFoundError(f"there is no table at {where}") from error
    except delta_errors.CommitFailedError:
        raise
    except delta_errors.DeltaError as error:
        text = str(error).split("\n", 1)[0]
        if "No such file" in text or "not found" in text.lower() or "version" in text.lower():
            raise NotFoundError(f"{where}: {text[:200]}") from error
        raise FormatError(f"the index of {where} cannot be read: {text[:200]}") from error
    except OSError as error:
        if isinstance(error, TensorBankError):
            raise
        raise StorageError(f"{where} cannot be reached: {str(error).splitlines()[0][:240]}") from error
