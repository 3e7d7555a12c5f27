"""Newest logs of tables, read while a statement is parsed: most often they are the ones that it needs.

To know which tables a statement means takes a DuckDB to parse it. The first one takes its time to start, and so do the first
requests to a store; here neither waits for the other.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from tensorbank.catalog import Catalog
from tensorbank.index_files import LogCopy
from tensorbank.layout import LEVELS

__all__ = ["LogsAhead", "spelled"]

N_THREADS = 16
MAX_SPELLED = 4
"""The most names of a statement that logs are read of before it is parsed."""
MAX_LOOKED_AT = 10_000
"""The most characters of a statement that names are looked for in: behind them are lists of constants, most often."""
# No part of what matched is tried again in another way, so a long word or a long blank takes no longer than others.
_SPELLED = re.compile(r'\b(?:from|join)\s++"?+(\w++)"?+(?:\s*+\.\s*+"?+(\w++)"?+)?(?!\s*+\()', re.IGNORECASE)
_COMMON = re.compile(r'\b(\w++)"?+\s++as\s*+(?:(?:not\s++)?materialized\s*+)?\(', re.IGNORECASE)


class LogsAhead:
    """Reads of newest logs under way.

    A log that is missing or damaged is not there: whoever needs it reads it again, and is told why.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._pool = ThreadPoolExecutor(N_THREADS)
        self._begun: dict[tuple[str, str], Future[LogCopy | None]] = {}

    def __enter__(self) -> LogsAhead:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Locks that a thread holds would stay locked in a fork; an error need not wait for what was read in vain.
        self._pool.shutdown(wait=kind is None, cancel_futures=True)

    @property
    def has_begun(self) -> bool:
        """True if any log is read, or was."""
        return bool(self._begun)

    def begin(self, name: str, levels: Collection[str]) -> None:
        """Begin to read the logs of some levels of what may be a table.

        Of one that was met before, or that lies in a folder, none is read: of these the version is soon known, and then the logs.
        """
        if self._catalog.mirror.in_place is not None or self._catalog.met([name]) is not None:
            return
        for level in sorted({*levels} - {level for table, level in self._begun if table == name}):
            self._begun[name, level] = self._pool.submit(self._catalog.ahead, name, level)

    def log(self, name: str, level: str) -> LogCopy | None:
        """Return a log that was begun, as soon as it is read; None if it was not begun, or there is none to be read.

        Raises
        ------
        StorageError
            The store is out of reach, or busy, and was asked often enough.
        """
        begun = self._begun.get((name, level))
        return None if begun is None else begun.result()


def spelled(sql: str) -> dict[str, frozenset[str]]:
    """Return names that look like tables in a statement that is not parsed, and the levels of each beside ``samples``.

    Some may be none, and some tables may be missing.
    """
    looked_at = sql[:MAX_LOOKED_AT]
    common = {name.lower() for name in _COMMON.findall(looked_at)}
    found: dict[str, frozenset[str]] = {}
    for name, level in _SPELLED.findall(looked_at):
        if name.lower() not in common and (name in found or len(found) < MAX_SPELLED):
            found[name] = found.get(name, frozenset()) | ({level.lower()} & {*LEVELS})
    return found
