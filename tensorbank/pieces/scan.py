"""Files that a statement reads one after the other: what it will ask for next is brought before it asks.

Columns that its conditions compare are read of every row group that they do not rule out, so these are brought at once. Which
others are read shows when they are: of a column that was read in n row groups, those of the next n are brought. So a column of
many row groups takes a few round trips rather than one each, and of one that is hardly read little is brought in vain.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tensorbank.errors import TensorBankError
from tensorbank.pieces.column_places import ColumnPlaces
from tensorbank.pieces.ranged_file import RangedFile

__all__ = ["Scan", "ScannedFile", "ServedFile"]

N_THREADS = 16
MAX_HELD_BYTES = 4 << 20
"""The largest column of a row group that comes as one, and that a thread holds while it reads it."""
MAX_AHEAD = 64
"""The most row groups of a column that are brought before they are asked for."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ScannedFile:
    """One file of a scan, and the row groups that may hold what is looked for, by number."""

    file: RangedFile
    places: ColumnPlaces
    groups: Sequence[int]


@dataclass(frozen=True, slots=True)
class _Held:
    """A column of a row group that a thread reads: the head of its page first, then what is in it."""

    number: int
    start: int
    end: int
    data: bytes


class Scan:
    """The files of one table's level as one statement reads them. May be used by many threads at once.

    Parameters
    ----------
    files
        In the order in which they are read.
    """

    def __init__(self, files: Sequence[ScannedFile]) -> None:
        self.files = files
        self._order = [(f, g) for f, scanned in enumerate(files) for g in scanned.groups]
        self._place = {group: place for place, group in enumerate(self._order)}
        self._turn = threading.Lock()
        self._read: defaultdict[str, set[int]] = defaultdict(set)
        self._brought: defaultdict[str, int] = defaultdict(int)
        self._pool: ThreadPoolExecutor | None = None
        self._is_closed = False
        self._own = threading.local()

    def bring(self, leaves: Collection[str]) -> None:
        """Begin to bring some columns of all row groups, which conditions compare."""
        for leaf in leaves:
            with self._turn:
                first, self._brought[leaf] = self._brought[leaf], len(self._order)
            self._begin(leaf, first, len(self._order))

    def read(self, number: int, start: int, n_bytes: int) -> bytes:
        """Return bytes of a file, by its number, as :meth:`RangedFile.read` does."""
        end = start + n_bytes
        held: _Held | None = getattr(self._own, "held", None)
        if held is not None and held.number == number and held.start <= start and end <= held.end:
            return held.data[start - held.start : end - held.start]
        scanned = self.files[number]
        touched = list(scanned.places.within(start, end))
        for group, column in touched:
            self._note(scanned.places.leaves[column], self._place.get((number, group)))
        if len(touched) == 1:
            first, last = scanned.places.interval(*touched[0])
            if first <= start and end <= last <= first + MAX_HELD_BYTES:
                held = _Held(number, first, last, scanned.file.read(first, last - first))
                self._own.held = held
                return held.data[start - first : end - first]
        return scanned.file.read(start, n_bytes)

    def close(self) -> None:
        """Bring nothing more."""
        with self._turn:
            self._is_closed = True
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)

    def _note(self, leaf: str, place: int | None) -> None:
        """Note that a column is read in a row group, and begin to bring it of those that follow."""
        if place is None:  # the conditions rule it out, and yet it is read
            return
        with self._turn:
            read = self._read[leaf]
            read.add(place)
            first = max(self._brought[leaf], place + 1)
            last = min(place + 1 + min(len(read), MAX_AHEAD), len(self._order))
            if last <= first:
                return
            self._brought[leaf] = last
        self._begin(leaf, first, last)

    def _begin(self, leaf: str, first: int, last: int) -> None:
        """Begin to bring a column of some row groups, by their place in the order."""
        for number, group in self._order[first:last]:
            scanned = self.files[number]
            column = scanned.places.numbers.get(leaf)
            if column is None:
                continue
            interval = scanned.places.interval(group, column)
            if not scanned.file.lacks(*interval):
                continue
            with self._turn:
                if self._is_closed:
                    return
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(N_THREADS, "index-pieces")
                try:
                    self._pool.submit(_brought, scanned.file, interval)
                except RuntimeError:  # the system gives no more threads: it comes when it is asked for
                    return


@dataclass(frozen=True, slots=True)
class ServedFile:
    """One file of a scan, by its number."""

    scan: Scan
    number: int

    @property
    def n_bytes(self) -> int:
        """The length of the file."""
        return self.scan.files[self.number].file.n_bytes

    def read(self, start: int, n_bytes: int) -> bytes:
        """Return bytes from a start on, fewer only where the file ends."""
        return self.scan.read(self.number, start, n_bytes)


def _brought(file: RangedFile, interval: tuple[int, int]) -> None:
    """Bring bytes of a file; who asks for them meets the error, where there is one."""
    try:
        file.bring(*interval)
    except TensorBankError as error:
        _log.debug("%s is not brought ahead: %s", file.where, error)
