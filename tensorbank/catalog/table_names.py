"""The names of a bank's tables, and what is said of names that are none."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from tensorbank.errors import ErrorKind, InvalidInputError, NotFoundError, nearest
from tensorbank.index_files import LOG, commit_name, commits_in, is_static, static_bank, table_names
from tensorbank.layout import index_key
from tensorbank.storage import ObjectInfo, Store

__all__ = ["RENAMED", "TableNames"]

N_THREADS = 16
RENAMED = "renamed.json"
"""The name of the marker in the log of a table that has another name now."""
SQL_SCHEMAS = frozenset({"main", "temp", "system", "information_schema", "pg_catalog"})


class TableNames:
    """The names of the tables in one store. May be used from many threads at once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._met: set[str] = set()  # of tables that exist, so the bank bounds their number
        self._lock = threading.Lock()

    def meet(self, table: str) -> None:
        """Remember that a table exists."""
        with self._lock:
            self._met.add(table)

    def all(self) -> list[str]:
        """Return the names of the tables, sorted."""
        if is_static(self._store):
            return table_names(self._store)
        return self._with_logs(self._store.folders())

    def among(self, names: Collection[str]) -> list[str]:
        """Return the tables that some names may mean, whatever their case.
        The store is asked only for names not met before.
        """
        if (met := self.met(names)) is not None:
            return met
        meant = {n.lower() for n in names}
        known = self._met_among(meant)
        if is_static(self._store):
            with suppress(NotFoundError):
                known |= {table for table in table_names(self._store) if table.lower() in meant}
            unknown = [n for n in names if n.lower() not in {table.lower() for table in known}]
            known |= {n for n in unknown if static_bank.has_log(self._store, index_key(n, "samples"))}
        else:
            known |= set(self._with_logs([n for n in self._store.folders() if n.lower() in meant]))
        return sorted(known)

    def met(self, names: Collection[str]) -> list[str] | None:
        """Return the tables that some names mean, whatever their case; None if a name was not met before."""
        meant = {n.lower() for n in names}
        known = self._met_among(meant)
        return sorted(known) if meant <= {n.lower() for n in known} else None

    def _met_among(self, meant: Collection[str]) -> set[str]:
        """Return the tables met before whose names in lower case are among some."""
        with self._lock:
            return {table for table in self._met if table.lower() in meant}

    def _with_logs(self, folders: Sequence[str]) -> list[str]:
        """Return the folders that hold tables."""
        keys = [f"{index_key(name, 'samples')}/{LOG}" for name in folders]
        with ThreadPoolExecutor(N_THREADS) as pool:
            return [
                name
                for name, log in zip(folders, pool.map(self._store.objects, keys), strict=True)
                if _is_log(log)
            ]

    def missing(self, table: str, version: int | None = None) -> NotFoundError:
        """Return the error that names what is missing: the table, its version, or the bank."""
        tables = self.told()
        if version is not None and table in tables:
            return NotFoundError(
                f"table {table} has no version {version}; see `tensorbank history`",
                kind=ErrorKind.UNKNOWN_SNAPSHOT,
            )
        hint = nearest(table, tables) or (
            "" if tables or is_static(self._store) else " There is no table at all."
        )
        return NotFoundError(f"{self._store.url} has no table {table!r}.{hint}", kind=ErrorKind.UNKNOWN_TABLE)

    def told(self) -> list[str]:
        """Return the names of the tables, or of those met so far where no list is to be had."""
        try:
            return self.all()
        except NotFoundError as error:
            if error.kind != ErrorKind.NO_LIST_OF_TABLES:
                raise
            return sorted(self._met)

    def has_log(self, table: str, level: str) -> bool:
        """Tell whether a level of a table has been made."""
        with suppress(NotFoundError):
            log = f"{index_key(table, level)}/{LOG}"
            return self._store.exists(f"{log}/{commit_name(0)}") or _is_log(self._store.objects(log))
        return False

    def check_free(self, table: str) -> None:
        """Raise InvalidInputError if SQL, which does not tell the case of names,
        would take the table for something else.
        """
        if table.lower() in SQL_SCHEMAS:
            raise InvalidInputError(f"{table!r} cannot name a table, since SQL has its own {table.lower()}")
        with suppress(NotFoundError):
            for other in self._store.folders():
                if other != table and other.lower() == table.lower() and other in self.all():
                    raise InvalidInputError(
                        f"there is a table {other!r} already, and SQL cannot tell {table!r} from it"
                    )


def _is_log(objects: Sequence[ObjectInfo]) -> bool:
    """Tell whether a folder is the log of a table that has its name still: there are commits, and no marker of another name."""
    names = [info.key.rpartition("/")[2] for info in objects]
    return bool(commits_in(names)) and RENAMED not in names
