"""Versions of Delta tables, read through delta-rs from copies of their logs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake import exceptions as delta_errors

from tensorbank.arrow_numpy import as_table
from tensorbank.errors import ErrorKind, FormatError, IntegrityError, NotFoundError, TensorBankError
from tensorbank.index_files import FINITE, LOG, LevelFiles, LogCopy, files_of, require_readable
from tensorbank.storage import Store, as_ours, bucket_and_prefix, is_panic, of_system

__all__ = ["VersionState", "read_version", "translated", "unlisted"]

_OF_CLIENT = re.compile(r"Generic \w+ error: | error performing ", re.IGNORECASE)
"""The words of delta-rs' client of files. Its errors have no class of their own, but come as plain ``DeltaError``."""


@dataclass(frozen=True)
class VersionState:
    """One version of a Delta table: its columns, the transactions and settings that its commits have left, and its files.

    ``transactions`` has those of the names that were asked for. The files are listed when they are asked for.
    """

    table_id: str
    version: int
    columns: pa.Schema
    transactions: Mapping[str, int]
    configuration: Mapping[str, str]
    list_files: Callable[[], LevelFiles] = field(compare=False, repr=False)

    @property
    def files(self) -> LevelFiles:
        return self.list_files()


def unlisted() -> LevelFiles:
    """Stand in for the list of files in a state that was read without."""
    raise ValueError("the files of this state were not read")


def read_version(
    log: LogCopy, key: str, level: str, store: Store, asked: Callable[[Mapping[str, str]], Collection[str]]
) -> VersionState:
    """Return what a version holds.

    Parameters
    ----------
    key
        Key of the table in the bank.
    asked
        Callable from the settings of the table to the application ids whose transactions are wanted.

    Raises
    ------
    FormatError
        delta-rs does not understand the log, or it uses what is not read here.
    """
    where = f"{store.url}/{key}"
    with translated(where, store):
        delta = DeltaTable(log.folder, version=log.version)
        protocol, metadata = delta.protocol(), delta.metadata()
        configuration = dict(metadata.configuration)
        require_readable(protocol.min_reader_version, protocol.reader_features, configuration, where)
        columns = pa.schema(delta.schema().to_arrow())
        actions = as_table(delta.get_add_actions())
        table_id, version = str(metadata.id), int(delta.version())
    wanted = {FINITE, *asked(configuration)}
    found = {name: n for name, n in _transactions(log, where).items() if name in wanted}
    files, statistics = files_of(actions, key, where)
    of_level = LevelFiles(level, table_id, version, files, statistics, FINITE in found)
    return VersionState(table_id, version, columns, found, configuration, lambda: of_level)


def _transactions(log: LogCopy, where: str) -> dict[str, int]:
    """Return the last transaction of every application. delta-rs reads the log anew for each that it is asked for.

    Raises
    ------
    IntegrityError
        A file of the log cannot be read.
    """
    found: dict[str, int] = {}
    for name in log.names:  # the checkpoint first, then commits in their order
        path = log.folder / LOG / name
        try:
            if path.suffix == ".parquet":
                rows = pq.read_table(path, columns=["txn"])
                for said in rows["txn"].drop_null().to_pylist() if rows.num_columns else []:
                    found[said["appId"]] = int(said["version"])
            elif path.suffix == ".json":
                for line in path.read_bytes().splitlines():
                    if b'"txn"' in line[:32] and (said := json.loads(line).get("txn")):
                        found[said["appId"]] = int(said["version"])
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            raise IntegrityError(
                f"the log file {where}/{LOG}/{name} cannot be read: {error}; restore it",
                kind=ErrorKind.DAMAGED_LOG,
            ) from error
    return found


@contextmanager
def translated(where: str, store: Store) -> Iterator[None]:
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


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]
