"""A reader of the logs of a bank's Delta tables: what a version holds is found once, from what is known where that is shorter.

Columns, transactions and settings are a few lines of a log, and all that most commits have to know. The files are a list that
grows with the table, and read when they are asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tensorbank.delta.advanced_files import advanced_files
from tensorbank.delta.known_versions import KnownVersions
from tensorbank.delta.own_files import read_own_files
from tensorbank.delta.own_logs import advanced, read_own_log
from tensorbank.delta.reading import VersionState, read_version
from tensorbank.errors import ErrorKind, FormatError, IntegrityError, NotFoundError, StorageError
from tensorbank.index_files import (
    LOG,
    IndexMirror,
    LevelFiles,
    LogCopy,
    check_commit,
    commit_name,
    find_damage,
    require_sealed,
)
from tensorbank.layout import index_key
from tensorbank.storage import Store, of_system

__all__ = ["LogReader"]

N_TURNS = 32
"""The number of locks that tables share, so that of threads which need the same version one reads it."""
Found = TypeVar("Found")
Asked = Callable[[str, Mapping[str, str]], Collection[str]]
"""A callable from a level and its settings to the application ids whose transactions are wanted."""


class LogReader:
    """A reader of logs, which keeps what it found. May be used from many threads at once.

    Parameters
    ----------
    store, mirror
        The bank, and where its logs are copied.
    asked
        Callable that says which transactions of a level are wanted.
    known
        Memory of what versions hold.
    """

    def __init__(self, store: Store, mirror: IndexMirror, asked: Asked, known: KnownVersions) -> None:
        self._store = store
        self._mirror = mirror
        self._asked = asked
        self._known = known
        self._turns = tuple(threading.Lock() for _ in range(N_TURNS))

    def read(
        self,
        table: str,
        level: str,
        version: int | None,
        owner: str = "",
        ahead: LogCopy | None = None,
    ) -> tuple[VersionState, LogCopy]:
        """Read the log of a level up to a version, or to the newest there is now, unless it is known.

        A version is known by the copy of its log, since a table that was made anew has the same version numbers. Which copy
        that is, the store has to say, but for versions that were asked for before. A level beside ``samples`` belongs to its
        ``owner``, the id of ``samples``, which the store did say. A copy of its log that was read ``ahead`` is the one if it has
        that version, or if the newest is asked for.

        Raises
        ------
        NotFoundError
            There is no such Delta table, or no such version.
        IntegrityError
            A file of the log is damaged.
        FormatError
            The log is of a kind that is not read here.
        """
        with self._turn(table, level):
            log = None if version is None else self._known.get(("log", table, level, version, owner))
            if log is None and ahead is not None and version in (None, ahead.version):
                log = ahead
            log = log or self._log(table, level, version)
            state = self._known.get(("state", level, log))
            if state is None:
                state, log = self._sound(log, table, level, self._state)
                self._keep("state", level, log, state)
            self._known.keep(("log", table, level, log.version, owner), log)
        return state, log

    def knows(self, table: str, level: str, version: int | None, owner: str = "") -> bool:
        """Tell whether a version was read before."""
        log = None if version is None else self._known.get(("log", table, level, version, owner))
        return log is not None and self._known.get(("state", level, log)) is not None

    def _files(self, table: str, level: str, log: LogCopy, state: VersionState) -> LevelFiles:
        """Return the files of a version whose log was read before, maybe long ago."""
        with self._turn(table, level):
            known: LevelFiles | None = self._known.get(("files", level, log))
            if known is not None:
                return known
            # Where it lies, the log may have become another table's, or begin later.
            now = log if self._mirror.in_place is None else self._log(table, level, log.version)
            known_state = state if now == log else None
            found, _ = self._sound(now, table, level, partial(self._list_files, known_state))
            if found.table_id != state.table_id:
                raise NotFoundError(
                    f"version {log.version} of {self._where(table, level)} is gone: the table was made anew",
                    kind=ErrorKind.UNKNOWN_SNAPSHOT,
                )
            self._keep("files", level, log, found, found.statistics.nbytes)
        return found

    def _turn(self, table: str, level: str) -> threading.Lock:
        return self._turns[hash((table, level)) % N_TURNS]

    def _log(self, table: str, level: str, version: int | None) -> LogCopy:
        return self._mirror.log(index_key(table, level), version)

    def _keep(self, what: str, level: str, log: LogCopy, found: object, n_bytes: int = 0) -> None:
        """Remember what was found of a version, and which version that was, if it is the newest."""
        self._known.keep((what, level, log), found, n_bytes)
        last: LogCopy | None = self._known.get(("last", what, level, log.folder, log.first))
        if last is None or last.version < log.version:
            self._known.keep(("last", what, level, log.folder, log.first), log)

    def _sound(
        self, log: LogCopy, table: str, level: str, read: Callable[[LogCopy, str, str], Found]
    ) -> tuple[Found, LogCopy]:
        """Read a copy of a log; once more if it is damaged and not what it was made of, or other files have taken its place."""
        try:
            return read(log, table, level), log
        except IntegrityError:
            self._known.keep(("checked", level, log), value=False)
            forgotten = self._mirror.forget(log)
            again = self._log(table, level, log.version)
            if not forgotten and again.names == log.names:
                raise
        return read(again, table, level), again

    def _state(self, log: LogCopy, table: str, level: str) -> VersionState:
        """Find out what a version says of itself: from one before it, from a log of ours, or by delta-rs."""
        asked = partial(self._asked, level)
        last, since = self._since("state", log, table, level)
        found = None if last is None else advanced(last, since, asked(last.configuration))
        if found is None:
            found = read_own_log(
                log.version, self._contents(log, table, level), self._where(table, level), asked
            )
        if found is None:
            found = self._by_delta(log, table, level)
            self._keep("files", level, log, found.files, found.files.statistics.nbytes)
        return replace(found, list_files=partial(self._files, table, level, log, found))

    def _list_files(self, state: VersionState | None, log: LogCopy, table: str, level: str) -> LevelFiles:
        """Find out which files a version has: from one before it, from a log of ours whose state is known, or by delta-rs."""
        key = index_key(table, level)
        last, since = self._since("files", log, table, level)
        if last is not None:
            found = advanced_files(last, key, since)
        elif state is not None:
            found = read_own_files(
                state, level, self._contents(log, table, level), key, self._where(table, level)
            )
        else:
            found = None
        return found or self._by_delta(log, table, level).files

    def _since(self, what: str, log: LogCopy, table: str, level: str) -> tuple[Any, list[bytes]]:
        """Return what is known of an earlier version, and the commits since, each checked; None if they do not lead here."""
        last: LogCopy | None = self._known.get(("last", what, level, log.folder, log.first))
        found = None if last is None else self._known.get((what, level, last))
        if last is None or found is None or last.version >= log.version:
            return None, []
        names = [commit_name(v) for v in range(last.version + 1, log.version + 1)]
        if not {*names} <= {*log.names}:
            return None, []
        url = f"{self._where(table, level)}/{LOG}"
        commits = [_read_bytes(log.folder / LOG / name, f"{url}/{name}") for name in names]
        for name, data in zip(names, commits, strict=True):
            check_commit(data, f"{url}/{name}")
        return found, commits

    def _contents(self, log: LogCopy, table: str, level: str) -> dict[str, bytes]:
        """Return the files of a log, the checkpoint first, then its commits in order, each compared with its checksum."""
        url = f"{self._where(table, level)}/{LOG}"
        found = {name: _read_bytes(log.folder / LOG / name, f"{url}/{name}") for name in log.names}
        for name, data in found.items():
            if name.endswith(".json"):
                check_commit(data, f"{url}/{name}")
            elif name.endswith(".crc32c"):
                checkpoint = f"{name.removesuffix('.crc32c')}.parquet"
                require_sealed(found[checkpoint], data, f"{url}/{name}")
        self._known.keep(("checked", level, log), value=True)
        return found

    def _by_delta(self, log: LogCopy, table: str, level: str) -> VersionState:
        """Let delta-rs read a log, whose files are checked before."""
        where = self._where(table, level)
        if not self._known.get(("checked", level, log)):
            self._contents(log, table, level)
        try:
            return read_version(log, index_key(table, level), level, self._store, partial(self._asked, level))
        except FormatError as error:
            files = {f"{where}/{LOG}/{name}": log.folder / LOG / name for name in log.names}
            raise find_damage(files) or error from error

    def _where(self, table: str, level: str) -> str:
        return f"{self._store.url}/{index_key(table, level)}"


def _read_bytes(path: Path, url: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise IntegrityError(f"the log file {url} is gone; restore it", kind=ErrorKind.DAMAGED_LOG) from error
    except OSError as error:
        raise of_system(error, url) or StorageError(
            f"{url} cannot be read: {error}", kind=ErrorKind.DISK
        ) from error
