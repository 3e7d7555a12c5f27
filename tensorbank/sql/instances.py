"""DuckDB instances to plan with: in memory, one statement at a time each, kept for the next statement.

Making an instance costs more than many a plan, and a kept one remembers the footers of the Parquet files that it has read. One
instance with a cursor for each statement would share too much: the number of threads, which some statements set, the functions
that are called back, and the schemas that are called as the bank's tables are, of which each statement has its own snapshot.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import duckdb

from tensorbank.errors import TensorBankError
from tensorbank.pieces import ServedFile
from tensorbank.sql.functions import MACRO_NAMES, MACROS

if TYPE_CHECKING:
    from tensorbank.pieces.served_files import ServedFiles

__all__ = ["Database"]

MAX_IDLE = 2
"""The most idle instances kept; each has the memory of the footers that it remembers."""
_CLOSED: dict[str, str | bool | int | float | list[str]] = {
    "python_enable_replacements": "false",
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
    "allow_community_extensions": "false",
    "allow_persistent_secrets": "false",
}
"""The settings by which nothing else on a machine answers a statement:
no variables of the caller, extensions and secrets of the user."""


class Database:
    """An instance of DuckDB. ``con`` runs the statement, ``side`` what has to run meanwhile."""

    def __init__(self) -> None:
        self.con = duckdb.connect(":memory:", config=_CLOSED)
        self.con.execute("SET GLOBAL TimeZone = 'UTC'")
        self.con.execute("SET GLOBAL Calendar = 'gregorian'")
        self.con.execute("SET parquet_metadata_cache = true")
        # DuckDB 2.0.0 fails inside where ORDER BY ... LIMIT meets an expression over a field of a struct
        self.con.execute("SET GLOBAL disabled_optimizers = 'late_materialization'")
        self.side = self.con.cursor()
        self._schemas: list[str] = []
        self._views: list[str] = []
        self._registered: list[str] = []
        self.is_used_up = False
        self._n_threads: int | None = None
        self._has_macros = False
        self._served: ServedFiles | None = None

    @property
    def failure(self) -> TensorBankError | None:
        """The error of reading a served file: to be raised in place of DuckDB's, which only says that it failed."""
        return None if self._served is None else self._served.failure

    def serve(self, files: Mapping[str, ServedFile]) -> None:
        """Let DuckDB read some files through us, by names that begin with ``tensorbank://``, until the end of the statement.

        While a statement runs, only more files may be served, not the first ones, which may be none.
        """
        if self._served is None:
            from tensorbank.pieces.served_files import ServedFiles

            self._served = ServedFiles()
            self.con.register_filesystem(self._served)
            # it would read a megabyte where a field of a struct is compared, be the column as small as it may
            self.con.execute("SET disable_parquet_prefetching = true")
        self._served.serve(files)

    def create_view(self, schema: str, name: str, sql: str) -> None:
        """Create a view until the end of the statement, in the schema ``main`` or in one of its own."""
        if schema != "main" and schema not in self._schemas:
            self.con.execute(f"CREATE SCHEMA {schema}")
            self._schemas.append(schema)
        self.con.execute(f"CREATE VIEW {schema}.{name} AS {sql}")
        if schema == "main":
            self._views.append(name)

    def register(self, name: str, rows: object) -> None:
        """Register Arrow rows under a name, until the end of the statement."""
        self.con.register(name, rows)
        self._registered.append(name)

    def add_macros(self, sql: str) -> None:
        """Add the functions that are macros, for good, if a statement may call one: few do, and making them takes its time."""
        if not self._has_macros and any(name in sql.lower() for name in MACRO_NAMES):
            self.con.execute(MACROS)
            self._has_macros = True

    def has_function(self, name: str) -> bool:
        """Tell whether DuckDB knows a function by this name, given in lower case."""
        found = self.side.execute(
            "SELECT count(*) FROM duckdb_functions() WHERE lower(function_name) = ?", [name]
        ).fetchall()
        return bool(found[0][0])

    def one_thread(self) -> None:
        """Take the rows in their order, by one thread, until the end of the statement."""
        if self._n_threads is None:
            ((self._n_threads,),) = self.con.execute("SELECT current_setting('threads')").fetchall()
            self.con.execute("SET threads = 1")

    def use_up(self) -> None:
        """Take the instance for no other statement: this one leaves something behind."""
        self.is_used_up = True

    def clear(self) -> None:
        """Forget what one statement needed."""
        if self._n_threads is not None:
            self.con.execute(f"SET threads = {self._n_threads}")
            self._n_threads = None
        for name in self._views:
            self.con.execute(f"DROP VIEW main.{name}")
        for name in self._schemas:
            self.con.execute(f"DROP SCHEMA {name} CASCADE")
        for name in self._registered:
            self.con.unregister(name)
        self._views, self._schemas, self._registered = [], [], []
        if self._served is not None:
            self._served.clear()

    def close(self) -> None:
        """Give its memory back."""
        if self._served is not None:
            self._served.clear()
        self.side.close()
        self.con.close()


class _Idle:
    """A set of the instances that wait for a statement, of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[tuple[int, Database]] = []

    def take(self) -> Database:
        with self._lock:
            # after a fork the parent's threads are missing: its instances neither work nor can be closed
            mine = [d for pid, d in self._waiting if pid == os.getpid()]
            if mine:
                self._waiting.remove((os.getpid(), mine[-1]))
                return mine[-1]
        return Database()

    def give(self, database: Database) -> None:
        with self._lock:
            if sum(pid == os.getpid() for pid, _ in self._waiting) < MAX_IDLE:
                self._waiting.append((os.getpid(), database))
                return
        database.close()


_IDLE = _Idle()


@contextmanager
def database() -> Iterator[Database]:
    """Lend an instance to one statement.

    An instance that failed at its statement is not used again; an error that TensorBank raised of its own accord leaves it sound.
    """
    found = _IDLE.take()
    sound = False
    try:
        try:
            yield found
            sound = True
        except (TensorBankError, duckdb.Error) as error:
            sound = isinstance(error, TensorBankError) and error.__cause__ is None
            if found.failure is not None and found.failure is not error:
                raise found.failure from error
            raise
        finally:
            if sound:
                sound = False
                found.clear()
                sound = True
    finally:
        if sound and not found.is_used_up:
            _IDLE.give(found)
        else:
            with suppress(duckdb.Error):
                found.close()
