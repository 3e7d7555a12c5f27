"""Delta tables through delta-rs: the one module that knows it.

A log is read from a copy, and written where it lies. delta-rs has a client of the store of its own, which repeats requests as
:data:`tensorbank.storage.CLIENT_POLICY` says: opening a table and committing take several, of which only that client can repeat
one. It does not hand out ``Retry-After``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from urllib.parse import unquote

import pyarrow as pa
from deltalake import (
    ColumnProperties,
    CommitProperties,
    DeltaTable,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake import exceptions as delta_errors

from tensorbank.arrow_numpy import as_table
from tensorbank.catalog.delta_options import delta_options, delta_url
from tensorbank.catalog.history import SnapshotInfo
from tensorbank.errors import (
    ErrorKind,
    FormatError,
    IntegrityError,
    NotFoundError,
    StorageError,
    TensorBankError,
)
from tensorbank.index_files import FINITE, LevelFiles, LogCopy, files_of, require_readable
from tensorbank.layout import Level
from tensorbank.storage import (
    Store,
    as_ours,
    bucket_and_prefix,
    is_panic,
    of_system,
    surroundings,
)

__all__ = [
    "DeltaLevel",
    "LostCommitError",
    "create_level",
    "open_level",
    "read_history",
    "read_version",
]

ROW_GROUP_ROWS = 122_880
MAX_COMMIT_RETRIES = 50
"""The most versions that a commit tries to become where other writers are quicker, unless what they wrote rules it out."""
_OF_CLIENT = re.compile(r"Generic \w+ error: | error performing ", re.IGNORECASE)
"""The words of delta-rs' client of the store. Its errors have no class of their own, but come as plain ``DeltaError``."""


class LostCommitError(Exception):
    """Another writer's commit came first and rules out this one."""


# ---------------------------------------------------------------- logs that were copied


def read_version(log: LogCopy, key: str, level: Level, store: Store) -> tuple[LevelFiles, pa.Schema]:
    """Return the files and the columns of a version; ``key`` is the table's in the bank.

    Raises
    ------
    FormatError
        delta-rs does not understand the log, or it uses what is not read here.
    """
    where = f"{store.url}/{key}"
    with _translated(where, store):
        delta = DeltaTable(log.folder, version=log.version)
        _require_readable(delta, where)
        schema = pa.schema(delta.schema().to_arrow())
        actions = as_table(delta.get_add_actions())
        table_id, version = str(delta.metadata().id), int(delta.version())
        finite = delta.transaction_version(FINITE) is not None
    files, statistics = files_of(actions, key, where)
    return LevelFiles(level, table_id, version, files, statistics, finite), schema


def read_history(log: LogCopy, key: str, store: Store) -> list[SnapshotInfo]:
    """Return the versions up to that of a whole log, newest first."""
    with _translated(f"{store.url}/{key}", store):
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


# ---------------------------------------------------------------- tables where they lie


class DeltaLevel:
    """One level of a table at its newest version, by the store's own word."""

    def __init__(self, delta: DeltaTable, store: Store) -> None:
        self._delta = delta
        self._store = store

    @property
    def version(self) -> int:
        """The version that was the newest when the level was opened."""
        return int(self._delta.version())

    def transaction(self, name: str) -> int | None:
        """Return the version of an application's transaction, None if there was none."""
        return self._delta.transaction_version(name)

    def rows(self, columns: Sequence[str]) -> pa.Table:
        """Return some columns of all rows."""
        with self._translated():
            return self._delta.to_pyarrow_table(columns=list(columns))

    def append(self, part: str, rows: pa.Table, transactions: Mapping[str, int]) -> None:
        """Append the rows of a part, and raise the versions of some transactions.

        Raises
        ------
        LostCommitError
            Another writer raised one of the transactions meanwhile.
        """
        try:
            with self._translated():
                write_deltalake(
                    self._delta,
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
                        max_commit_retries=MAX_COMMIT_RETRIES,
                        app_transactions=[Transaction(name, n) for name, n in transactions.items()],
                    ),
                )
        except delta_errors.CommitFailedError as error:
            raise LostCommitError(_first_line(error)) from error

    @contextmanager
    def _translated(self) -> Iterator[None]:
        with _translated(unquote(self._delta.table_uri).rstrip("/"), self._store):
            yield


def open_level(store: Store, key: str) -> DeltaLevel:
    """Open the table below a key.

    Raises
    ------
    NotFoundError
        There is none.
    FormatError
        delta-rs does not understand its log, or uses what is not read here.
    StorageError
        The store cannot be read.
    """
    where = f"{store.url}/{key}"
    try:
        delta = _opened(store, key)
    except StorageError as error:  # keys may have expired before they said they would
        if error.kind != ErrorKind.DENIED or not store.forget_keys():
            raise
        delta = _opened(store, key)
    _require_readable(delta, where)
    return DeltaLevel(delta, store)


def _opened(store: Store, key: str) -> DeltaTable:
    options, environment = delta_options(store)
    with _translated(f"{store.url}/{key}", store), surroundings(environment):
        return DeltaTable(delta_url(store, key), storage_options=options)


def create_level(store: Store, key: str, schema: pa.Schema) -> None:
    """Create an empty table below a key; nothing happens if there is one.

    One try only: delta-rs would repeat a lost race as a second version, with another id and another schema.

    Raises
    ------
    LostCommitError
        Another writer was creating it, or the store cannot be written.
    """
    options, environment = delta_options(store)
    try:
        with _translated(f"{store.url}/{key}", store), surroundings(environment):
            DeltaTable.create(
                delta_url(store, key),
                schema=schema,
                mode="ignore",
                configuration={"delta.dataSkippingNumIndexedCols": "-1"},
                storage_options=options,
                commit_properties=CommitProperties(max_commit_retries=0),
            )
    except delta_errors.CommitFailedError as error:
        raise LostCommitError(_first_line(error)) from error


# ---------------------------------------------------------------- errors


@contextmanager
def _translated(where: str, store: Store) -> Iterator[None]:
    """Raise errors of delta-rs as ours, by their class;
    what its client of the store says, as our client's.
    """
    try:
        yield
    except TensorBankError:
        raise
    except BaseException as error:  # a breakdown of the client is none of Exception's
        found = _as_ours(error, where, store)
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
    if isinstance(error, OSError) or _OF_CLIENT.search(str(error)):
        return as_ours(error, where, *place)
    return FormatError(f"the index {where} cannot be read: {_first_line(error)}", kind=ErrorKind.LOG_FORMAT)


def _require_readable(delta: DeltaTable, where: str) -> None:
    protocol = delta.protocol()
    require_readable(
        protocol.min_reader_version, protocol.reader_features, delta.metadata().configuration, where
    )


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]
