"""A list of the ranges stored in the segments of a cache:
an SQLite database that all processes of a node share.

SQLite brings what is hard: transactions between processes without a daemon, and a state that a kill at any moment leaves sound.
Ranges of one object never overlap, so a look-up is one walk along the primary key.

Space is reserved before it is written, in the transaction that makes room for it. Segments are the unit of eviction: files that
only grow, at most 1/256 of the limit each. A writer that dies leaves a gap in a segment, which goes when the segment does.
"""

from __future__ import annotations

import os
import re
import sqlite3
import threading
import time
import uuid
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorbank.cache.cached_range import CachedRange
from tensorbank.cache.folders import FILE_MODE

__all__ = ["RangeIndex", "Reservation", "is_damage", "make_file"]

N_SEGMENTS = 256
BUSY_TIMEOUT_S = 10
KEEP_S = 600.0
"""Seconds since its last use in which a range is not evicted; what finds no room then is not stored.

An epoch in random order comes back to everything once: where only the share f of it fits, the least recently used are the very
ones that are wanted next, and evicting them leaves far less than f to be found (a fifth instead of a half at f = 0.5). Kept as
it is, a full cache serves f of every epoch, and what no run uses any more still goes.
"""

MAX_OFFSET = 1 << 45
"""The bound of offsets in bytes: more than a store allows an object, and than a segment has."""
_SEGMENT = re.compile(r"[0-9a-f]{32}\.segment")
# Tables are called as ever, so that folders of earlier versions serve on.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS segments (
    number INTEGER PRIMARY KEY AUTOINCREMENT, file TEXT NOT NULL, n_bytes INTEGER NOT NULL, used_s REAL NOT NULL);
CREATE TABLE IF NOT EXISTS extents (
    object INTEGER NOT NULL, start INTEGER NOT NULL, n_bytes INTEGER NOT NULL,
    segment INTEGER NOT NULL, position INTEGER NOT NULL, checksum INTEGER NOT NULL,
    PRIMARY KEY (object, start)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS extents_of_segment ON extents (segment, position);
"""

_OVERLAPPING = """
SELECT e.start, e.start + e.n_bytes, e.segment, s.file, e.position, e.checksum
FROM extents e JOIN segments s ON s.number = e.segment
WHERE object = :object AND start < :end AND start >= coalesce(
    (SELECT max(start) FROM extents WHERE object = :object AND start <= :start), :start)
ORDER BY start
"""


@dataclass(frozen=True, slots=True)
class Reservation:
    """The room in a segment, and how much was evicted for it."""

    segment: int
    file: str
    position: int
    n_evicted_bytes: int


class _BadRowError(sqlite3.DatabaseError):
    """A row that this module did not write: its names and numbers lead somewhere else."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


class RangeIndex:
    """The ranges of one folder. May be called from many threads and processes at once, not across a fork.

    Every method may raise ``sqlite3.Error`` and ``OSError``.

    Parameters
    ----------
    folder
        Folder that holds the database and the segments.
    max_bytes
        Most bytes of all segments together.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._objects: dict[str, int] = {}
        self._noted_s: dict[int, float] = {}
        self._reading = threading.Lock()
        self._writing = threading.Lock()
        self._reader: sqlite3.Connection
        self._writer: sqlite3.Connection

    @property
    def path(self) -> Path:
        """The file of the database."""
        return self.folder / "index.sqlite"

    def open(self) -> None:
        """Connect, and make what is not there. For one process at a time."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._connect()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            if not is_damage(error):
                raise
            self.wipe()
            self._connect()

    def wipe(self) -> None:
        """Remove everything. Readers with open segments finish; writes fail from now on."""
        for path in (*self.folder.glob("index.sqlite*"), *self.folder.glob("*.segment")):
            path.unlink(missing_ok=True)

    def find(self, name: str, start: int, end: int) -> list[CachedRange]:
        """Return the ranges that overlap bytes ``[start, end)`` of an object, by start. Writes nothing."""
        with self._reading:
            number = self._objects.get(name) or _number_of(self._reader, name)
            if number is None:
                return []
            self._objects[name] = number
            return _overlapping(self._reader, number, start, end)

    def note(self, ranges: Sequence[CachedRange]) -> None:
        """Remember that ranges were used, now and then."""
        now_s = time.time()
        stale = {e.segment for e in ranges if now_s - self._noted_s.get(e.segment, 0.0) > KEEP_S / 4}
        if stale:
            with self._transaction() as write:
                write.executemany(
                    "UPDATE segments SET used_s = ? WHERE number = ?", [(now_s, s) for s in stale]
                )
            self._noted_s.update(dict.fromkeys(stale, now_s))

    def reserve(self, n_bytes: int) -> Reservation | None:
        """Reserve room for some bytes; None if there is none, since all that is stored was used lately."""
        if n_bytes > self.max_bytes:
            return None
        with self._transaction() as write:
            (summed,) = write.execute("SELECT coalesce(sum(n_bytes), 0) FROM segments").fetchone()
            total = _number_below(summed, 1 << 62)
            n_evicted_bytes = 0
            now_s = time.time()
            while total + n_bytes > self.max_bytes:
                oldest = write.execute(
                    "SELECT number, file, n_bytes FROM segments WHERE used_s <= ? ORDER BY used_s, number LIMIT 1",
                    (now_s - KEEP_S,),
                ).fetchone()
                if oldest is None:
                    return None
                write.execute("DELETE FROM extents WHERE segment = ?", oldest[:1])
                write.execute("DELETE FROM segments WHERE number = ?", oldest[:1])
                (self.folder / _segment_name(oldest[1])).unlink(missing_ok=True)
                total -= _number_below(oldest[2], MAX_OFFSET)
                n_evicted_bytes += oldest[2]
            newest = write.execute(
                "SELECT number, file, n_bytes FROM segments ORDER BY number DESC LIMIT 1"
            ).fetchone()
            if (
                newest is None
                or _number_below(newest[2], MAX_OFFSET) + n_bytes > self.max_bytes // N_SEGMENTS
            ):
                file = f"{uuid.uuid4().hex}.segment"
                make_file(self.folder / file, exclusive=True)
                segment = write.execute(
                    "INSERT INTO segments (file, n_bytes, used_s) VALUES (?, ?, ?)", (file, n_bytes, now_s)
                ).lastrowid
                return Reservation(int(segment or 0), file, 0, n_evicted_bytes)
            write.execute(
                "UPDATE segments SET n_bytes = n_bytes + ?, used_s = ? WHERE number = ?",
                (n_bytes, now_s, newest[0]),
            )
            return Reservation(newest[0], _segment_name(newest[1]), newest[2], n_evicted_bytes)

    def add(self, name: str, ranges: Sequence[CachedRange]) -> None:
        """Make ranges of one segment known whose bytes are written.

        Left out are those that overlap others, and all if the segment has been evicted.

        Parameters
        ----------
        ranges
            Ranges, at least one; disjoint, by start.
        """
        with self._transaction() as write:
            if not write.execute("SELECT 1 FROM segments WHERE number = ?", (ranges[0].segment,)).fetchone():
                return
            write.execute("INSERT OR IGNORE INTO objects (name) VALUES (?)", (name,))
            number = _number_of(write, name)  # remembered by those who find it committed
            there = _overlapping(write, number, ranges[0].start, ranges[-1].end)
            write.executemany(
                "INSERT INTO extents VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (number, e.start, e.n_bytes, e.segment, e.position, e.checksum)
                    for e in ranges
                    if not any(o.start < e.end and e.start < o.end for o in there)
                ],
            )

    def remove(self, ranges: Sequence[CachedRange]) -> None:
        """Forget ranges, if they are still where they were."""
        with self._transaction() as write:
            write.executemany(
                "DELETE FROM extents WHERE segment = ? AND position = ?",
                [(e.segment, e.position) for e in ranges],
            )

    def _connect(self) -> None:
        make_file(self.path)  # SQLite makes its own for everybody to read, and follows links
        self._writer, self._reader = (
            sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
            for _ in range(2)
        )
        weakref.finalize(self, _close, self._writer, self._reader)
        # With a write-ahead log readers and writers do not wait for each other; NORMAL survives a loss of power.
        self._writer.executescript(f"PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; {_SCHEMA}")

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._writing:
            write = self._writer
            write.execute("BEGIN IMMEDIATE")
            try:
                yield write
                write.execute("COMMIT")
            except BaseException:
                if write.in_transaction:
                    write.execute("ROLLBACK")
                raise


def is_damage(error: Exception) -> bool:
    """Tell whether SQLite reports a corrupt database, as after a power failure or from a faulty disk.

    It quotes what it has read, and where that is no text, Python fails to say so.
    """
    if isinstance(error, UnicodeDecodeError):
        return True
    return getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _close(*connections: sqlite3.Connection) -> None:
    for connection in connections:
        connection.close()


def _number_of(connection: sqlite3.Connection, name: str) -> int | None:
    row = connection.execute("SELECT number FROM objects WHERE name = ?", (name,)).fetchone()
    return None if row is None else int(row[0])


def _overlapping(
    connection: sqlite3.Connection, number: int | None, start: int, end: int
) -> list[CachedRange]:
    given = {"object": number, "start": start, "end": end}
    return [e for e in map(_cached_range, connection.execute(_OVERLAPPING, given)) if e.end > start]


def _cached_range(row: tuple[Any, ...]) -> CachedRange:
    """Return a row of the index as a value, or refuse it: nothing is opened or allocated by its word alone."""
    start, end, segment, file, position, checksum = row
    _number_below(checksum, 1 << 32)
    if not _number_below(start, MAX_OFFSET) < _number_below(end, MAX_OFFSET):
        raise _BadRowError(f"a range of the cache runs from {start} to {end}")
    return CachedRange(
        start, end, segment, _segment_name(file), _number_below(position, MAX_OFFSET), checksum
    )


def _number_below(value: object, limit: int) -> int:
    if not isinstance(value, int) or not 0 <= value < limit:
        raise _BadRowError(f"the cache's index has {str(value)[:60]!r} for a number below {limit}")
    return value


def _segment_name(name: object) -> str:
    """Return the name of a segment, or refuse what is none: it must not lead out of the folder."""
    if not isinstance(name, str) or not _SEGMENT.fullmatch(name):
        raise _BadRowError(f"the cache's index names {str(name)[:60]!r}, which is no segment")
    return name


def make_file(path: Path, *, exclusive: bool = False) -> None:
    """Make an empty file for this user alone, if it is not there; a link in its place is an error."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_EXCL if exclusive else 0)
    file = os.open(path, flags, FILE_MODE)
    try:
        os.fchmod(file, FILE_MODE)
    finally:
        os.close(file)
