"""A cache of stored bytes on a local disk, which all processes of a node share.

Kept are ranges of objects as they were asked for, under the object's address. Objects of a bank never change once they
are committed, so what is kept is valid for ever. Bytes lie in segments, large files that only grow, and are found by an SQLite
index (:mod:`tensorbank.cache.range_index`): a hit is one look-up and one read, whatever the size, and costs no file of its own.

There is no daemon. Whoever misses bytes locks them (:mod:`tensorbank.cache.locks`), fetches them and stores them; whoever
misses the same bytes meanwhile waits for that, so they cross the network once. A process that dies gives its locks back, and
leaves nothing but unused room. Every range is verified when it is read: a checksum over its bytes and their address.

The folder and its files are for this user alone: a folder of another user's is not used, and a name or number in the index that
was not written here is damage, which empties the cache.

On a disk that is full nothing more is kept, after one warning, and what is there is used; a cache that cannot be read, either,
turns itself off. Reads go on.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import crc32c as crc
import numpy as np

from tensorbank.cache.cached_range import CachedRange, match
from tensorbank.cache.folders import private_folder
from tensorbank.cache.intervals import Interval, disjoint, touching
from tensorbank.cache.locks import IntervalLocks
from tensorbank.cache.range_index import RangeIndex, is_damage, make_file
from tensorbank.cache.segments import Target, checksum, read_ranges, write_segment

__all__ = ["RangeCache", "CacheStats"]

Fetch = Callable[[Sequence[Interval]], Iterable[tuple[int, memoryview]]]
"""A callable that brings some intervals, disjoint and by start: pieces of the object by start, with the byte
that each begins at, which cover them together."""

WAIT_S = 10.0
"""Seconds to wait for bytes that another reader fetches before they are fetched here, too.
The owner of a fetch that hangs asks again sooner."""
FIRST_POLL_S = 0.001
MAX_POLL_S = 0.02
T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CacheStats:
    """The counts since the cache was made, of this process.

    Parameters
    ----------
    hits, misses
        Ranges found and not found.
    hit_bytes, miss_bytes
        Their sizes.
    waits
        Reads that waited for bytes which another fetched.
    dropped
        Ranges that were damaged on the disk, or gave blocks that were.
    evicted_bytes
        Bytes that this process removed to make room.
    refused_bytes
        Bytes that were not stored, since all that is stored was used lately.
    """

    hits: int = 0
    misses: int = 0
    hit_bytes: int = 0
    miss_bytes: int = 0
    waits: int = 0
    dropped: int = 0
    evicted_bytes: int = 0
    refused_bytes: int = 0

    def __add__(self, other: CacheStats) -> CacheStats:
        """Return the counts of two caches together."""
        return CacheStats(
            hits=self.hits + other.hits,
            misses=self.misses + other.misses,
            hit_bytes=self.hit_bytes + other.hit_bytes,
            miss_bytes=self.miss_bytes + other.miss_bytes,
            waits=self.waits + other.waits,
            dropped=self.dropped + other.dropped,
            evicted_bytes=self.evicted_bytes + other.evicted_bytes,
            refused_bytes=self.refused_bytes + other.refused_bytes,
        )


class RangeCache:
    """A cache of ranges of objects on a local disk. May be called from many threads and processes at once.

    Parameters
    ----------
    folder
        Folder on a disk of this node. It is made when it is first used.
    max_bytes
        Most stored bytes; the index comes on top, about 100 bytes a range.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder / "v1"
        self._locks = self.folder / "locks"
        self._index = RangeIndex(self.folder, max_bytes)
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._pid = 0
        self._is_full = self._is_off = False

    @property
    def stats(self) -> CacheStats:
        """The counts of this process so far."""
        return CacheStats(**self._counts)

    def read(self, name: str, wanted: Interval, spans: Iterable[Interval], fetch: Fetch) -> memoryview:
        """Read bytes of an object, of which only some spans matter.

        Parameters
        ----------
        name
            Address of the object, for ever that of the same bytes.
        wanted
            The bytes that the answer covers, read-only. Outside of the spans its content is undefined.
        spans
            Within ``wanted``, in any order; they may overlap. Kept as they are, so that they are found one by one.
        fetch
            Brings what is missing. Its errors are raised.
        """
        target = Target(wanted)
        missing = disjoint(spans)
        until_s, poll_s = time.monotonic() + WAIT_S, FIRST_POLL_S
        with IntervalLocks(self._locks) as locks:
            while missing := missing and self._attempt(self._load, name, missing, target, otherwise=missing):
                mine = missing
                if time.monotonic() < until_s and not self._is_full:
                    mine = self._attempt(self._claim, name, missing, locks, otherwise=missing)
                if not mine:
                    if poll_s == FIRST_POLL_S:
                        self._count(waits=1)
                    time.sleep(poll_s)
                    poll_s = min(2 * poll_s, MAX_POLL_S)
                    continue
                claimed = set(mine)
                others = [span for span in missing if span not in claimed]
                # Between the look and the lock another may have stored them.
                if mine := self._attempt(self._load, name, mine, target, otherwise=mine):
                    pieces = list(fetch(mine))
                    target.fill(pieces)
                    self._count(misses=len(mine), miss_bytes=sum(b - a for a, b in mine))
                    self._attempt(self._store, name, mine, pieces, otherwise=None, writes=True)
                locks.release()
                missing = others
        return target.data

    def drop(self, name: str, wanted: Interval) -> None:
        """Forget what is kept of some bytes, since it is not what was written."""
        self._attempt(self._drop, name, wanted, otherwise=None, writes=True)

    def _drop(self, name: str, wanted: Interval) -> None:
        self._remove(self._opened().find(name, *wanted))

    def _load(self, name: str, spans: list[Interval], target: Target) -> list[Interval]:
        """Read what is there into the target, and return what is not."""
        index = self._opened()
        found = match(spans, index.find(name, spans[0][0], spans[-1][1]))[0]
        bad, gone = read_ranges(str(self.folder), name, found, target)
        if bad:
            self._attempt(self._remove, bad, otherwise=None, writes=True)
        sound = [e for e in found if e not in bad and e not in gone]
        if sound:
            self._attempt(index.note, sound, otherwise=None, writes=True)
            self._count(hits=len(sound), hit_bytes=sum(e.n_bytes for e in sound))
        return match(spans, sound)[1]

    def _claim(self, name: str, spans: list[Interval], locks: IntervalLocks) -> list[Interval]:
        """Lock the spans that nobody else is fetching, and return them."""
        number = crc.crc32c(
            name.encode()
        )  # objects that share one wait for each other in vain: rare, and not for long
        return [
            span for run in touching(spans) if locks.try_lock(number, run[0][0], run[-1][1]) for span in run
        ]

    def _store(self, name: str, spans: list[Interval], pieces: list[tuple[int, memoryview]]) -> None:
        room = self._index.reserve(sum(b - a for a, b in spans))
        if room is None:
            self._count(refused_bytes=sum(b - a for a, b in spans))
            return
        self._count(evicted_bytes=room.n_evicted_bytes)
        datas = [_cut(pieces, span) for span in spans]
        ends = np.cumsum([len(d) for d in datas]).tolist()
        ranges = [
            CachedRange(a, b, room.segment, room.file, room.position + end - (b - a), checksum(name, a, data))
            for (a, b), end, data in zip(spans, ends, datas, strict=True)
        ]
        if write_segment(f"{self.folder}/{room.file}", room.position, datas):
            self._index.add(name, ranges)

    def _remove(self, ranges: list[CachedRange]) -> None:
        self._index.remove(ranges)
        self._count(dropped=len(ranges))

    def _opened(self) -> RangeIndex:
        if self._pid == 0:
            with self._lock:
                if self._pid == 0:
                    self._open()
                    self._pid = os.getpid()
        return self._index

    def _open(self) -> None:
        """Open the index while no other process does."""
        private_folder(self.folder)
        make_file(self._locks)
        until_s = time.monotonic() + WAIT_S
        with IntervalLocks(self._locks) as locks:
            while not locks.try_lock(0, 0, 1):
                if time.monotonic() > until_s:
                    raise TimeoutError("another process has kept the index locked for too long")
                time.sleep(MAX_POLL_S)
            self._index.open()

    def _attempt(self, step: Callable[..., T], *given: Any, otherwise: T, writes: bool = False) -> T:
        """Return the result of a step, or ``otherwise`` if the cache is off, is full,
        or has to be turned off now.
        """
        if self._is_off or self._pid not in (0, os.getpid()):  # SQLite does not survive a fork
            return otherwise
        if writes and self._is_full:
            return otherwise
        try:
            return step(*given)
        except (OSError, sqlite3.Error, UnicodeDecodeError) as error:
            self._give_up(error, writes=writes)
            return otherwise

    def _give_up(self, error: Exception, *, writes: bool) -> None:
        with self._lock:
            was_full, self._is_full = self._is_full, True
            self._is_off = self._is_off or not writes or is_damage(error)
        if not was_full:
            what = "is off" if self._is_off else "keeps nothing more"
            _log.warning("the cache in %s %s, reads go on: %s", self.folder, what, error)
        if is_damage(error):
            self._index.wipe()

    def _count(self, **more: int) -> None:
        with self._lock:
            self._counts.update(more)


def _cut(pieces: Sequence[tuple[int, memoryview]], span: Interval) -> memoryview:
    start, data = next(p for p in reversed(pieces) if p[0] <= span[0])
    return data[span[0] - start : span[1] - start]
