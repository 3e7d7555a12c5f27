"""Requests for byte ranges that end: in data, or in an error. Counted, retried, and made again where they are late.

A store that is out of reach, or busy, is asked again until a stated time is over, and the first answer of any read wakes all
others: a store that comes back is read at once. While they wait, that is logged and counted.

A read that takes longer than nearly all of its size did lately is *hedged*: the same range is asked for once more, and the first
answer wins (Dean and Barroso, "The Tail at Scale", 2013). A read that is late beyond doubt counts as *stalled*. Second requests
are few, a share of all, since a store that is slow as a whole would only get slower, unless those before came sooner than the
first (:mod:`tensorbank.fetch.lateness.allowance`). The loser's bytes are thrown away when they come.

Requests are threads: each asks for a range and hands the bytes on in the same thread, which costs less than an event loop or a
second hand-over (obstore's async API takes a third more CPU a GB). One more thread looks for reads that are late.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial

from tensorbank.errors import ErrorKind, StorageError, as_error
from tensorbank.fetch.concurrency import Concurrency
from tensorbank.fetch.fetch_stats import FetchCounts, FetchStats
from tensorbank.fetch.lateness import Lateness, Verdict
from tensorbank.fetch.races import Race, Wanted
from tensorbank.fetch.range_reader import RangeReader
from tensorbank.fetch.read_group import ReadGroup, forked
from tensorbank.fetch.threads import ReadingThreads
from tensorbank.fetch.tries import Tries, over_time
from tensorbank.storage import PASSING

__all__ = ["PATIENCE_S", "Requests"]

PATIENCE_S = 300.0
"""The default of the seconds a read waits for a store that is out of reach or busy:
longer than a restart takes."""
MAX_ASKED = 8
"""The most requests for one range under way at once: of one late answer in five, so many in a row are one range in 400,000."""
MAX_THREADS = 1024
"""The most threads: with so many, most of which wait for answers that nobody waits for any more,
nothing is asked twice."""
WATCH_S = 0.025
"""Seconds between two looks at the reads under way: half of the shortest time after which one is late."""
LOOK_S = 0.25
"""The most seconds that one look at the reads under way counts for:
it took longer only if the process was suspended."""
LAST_TRY_S = 5.0
"""Seconds for the last try of a read, beyond its patience;
then its error is raised, even if the try has not ended."""
SILENCE_S = 60.0
"""Seconds beyond the time limit of every read:
after so long without any end, a thread must have been lost."""

_log = logging.getLogger(__name__)


class Requests:
    """A reader of ranges of a store's objects in threads of its own. May be called from many threads at once.

    One lock guards the races under way, the counts, and what is learned of latencies. It is held for microseconds: never while
    something is asked, delivered or told.

    Parameters
    ----------
    ranges
        Reader of the ranges. One of local files is read as it is: a disk that is late is not hurried by asking twice.
    n_threads
        Requests under way at once; None: as many as their latency and rate ask for.
    max_hedge_share
        Second requests for late reads, as a share of all requests, where they come no sooner than the first.
    stall_s
        Seconds after which a read counts as stalled at the earliest.
    patience_s
        Seconds that a read waits for a store that is out of reach or busy.
    """

    def __init__(
        self,
        ranges: RangeReader,
        *,
        n_threads: int | None,
        max_hedge_share: float,
        stall_s: float,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.ranges = ranges
        self._patience_s = patience_s
        self._tries = Tries(ranges, patience_s)
        self._lateness = Lateness(max_hedge_share, stall_s)
        self._concurrency = Concurrency(n_threads)
        self._counts = FetchCounts()
        self._races: set[Race] = set()  # those that are not decided
        self._groups: weakref.WeakSet[ReadGroup] = weakref.WeakSet()
        self._threads: ReadingThreads | None = None
        self._lock = threading.Lock()
        self._n_over = 0
        self._looked_s = 0.0
        self._pid = 0

    @property
    def stats(self) -> FetchStats:
        """The counts so far, and what is measured at present."""
        self._check_process()
        with self._lock:
            return self._counts.stats(
                retries=self._tries.n_retries,
                latencies_s=self._lateness.percentiles_s(),
                depth=self._concurrency.n,
                away_s=self._tries.outage.lasts_s if self._races else 0.0,
            )

    @property
    def depth(self) -> int:
        """The number of requests that may be under way at present."""
        return self._concurrency.n

    def submit(
        self, n: int, wanted: Callable[[int], Wanted], *, within: ReadGroup | None = None
    ) -> ReadGroup:
        """Start reads, behind those that were asked for before.

        What fails is tried again, with growing, jittered pauses, or after the time that the store asks for, until the patience
        is over.

        Parameters
        ----------
        n
            Number of reads.
        wanted
            Callable that says what is wanted, by number in ``[0, n)``; asked when its turn has come.
        within
            Group that is cancelled with them.

        Returns
        -------
        The group, which tells of their end. Errors are those of ``deliver``, and NotFoundError or StorageError: the object is
        gone, access is refused, or the store kept failing.

        Raises
        ------
        StorageError
            The system gives no threads, or this process is a fork of the one that reads; its kind says which.
        """
        threads = self._open()
        group = self._group_of(n, within)
        with self._lock:
            self._groups.add(group)
        threads.submit(
            (partial(self._start, number, wanted, group, threads) for number in group.numbers()), n
        )
        return group

    def in_turn(self, wanted: Wanted, *, within: ReadGroup) -> None:
        """Read behind what was asked for before, and return when it is over; raises what ended it.

        Parameters
        ----------
        within
            Group of the read for which this is asked. If it is cancelled before the turn has come, nothing is read; it is
            cancelled itself where the store is away.
        """

        def still_wanted(_: int) -> Wanted:
            if within.is_cancelled:
                raise _closed()
            return wanted

        still_wanted(0)
        group = self.submit(1, still_wanted, within=within)
        for error in group.wait(for_all=True).values():
            raise error
        if not group.succeeded:
            raise _closed()

    def now(self, wanted: Wanted) -> None:
        """Read at once, and return when it is over; raises what ended it."""
        threads = self._open()
        group = self._group_of(1)
        for number in group.numbers():
            threads.spawn(partial(self._start, number, lambda _: wanted, group, threads))
        for error in group.wait(for_all=True).values():
            raise error

    def close(self) -> None:
        """Drop reads that are not answered, wait for those that are, and let the threads end.

        They can be used again.
        """
        if self._pid not in (0, os.getpid()):
            return  # the threads are another process's, and so may be the locks
        with self._lock:
            threads, self._threads = self._threads, None
            dropped = [race for race in self._races if race.decide()]
            self._races.clear()
            groups = list(self._groups)
        for group in groups:
            group.cancel()
        for race in dropped:
            self._end(race, _closed())
        if threads is not None:
            threads.close()

    def _group_of(self, n: int, within: ReadGroup | None = None) -> ReadGroup:
        """Return an account of reads whose waits end, too, if a thread is lost."""
        silence_s = self._patience_s + SILENCE_S
        return ReadGroup(n, stall_s=silence_s, beats=lambda: self._n_over, within=within)

    def _check_process(self) -> None:
        """Raise in a fork of the process that reads, before any lock: a thread of the parent may have held it."""
        if self._pid not in (0, os.getpid()):
            raise forked()

    def _open(self) -> ReadingThreads:
        self._check_process()
        with self._lock:
            if self._threads is None:
                concurrency = self._concurrency
                self._threads = threads = ReadingThreads(lambda: concurrency.n)
                self._pid = os.getpid()
                weakref.finalize(self, threads.dismiss).atexit = False
                if not self.ranges.is_local:
                    threads.spawn(partial(_watch, weakref.ref(self), threads))
            return self._threads

    def _start(
        self, number: int, wanted: Callable[[int], Wanted], group: ReadGroup, threads: ReadingThreads
    ) -> None:
        """Start one of the reads, whose end is told whatever happens."""
        try:
            race = Race(wanted(number), group, number)
        except BaseException as failed:  # noqa: BLE001 - the edge of a thread: whoever waits gets it
            self._n_over += 1
            group.end(number, as_error(failed))
            return
        self._ask(race, threads)

    def _ask(self, race: Race, threads: ReadingThreads, verdict: Verdict | None = None) -> None:
        """Request a range, hand it on, and tell the end: of the bytes, of the error, or of what failed here."""
        try:
            self._run(race, threads, verdict)
        except BaseException as failed:  # noqa: BLE001 - the edge of a thread: whoever waits gets it
            with self._lock:
                is_mine = race.decide()
                self._races.discard(race)
            if is_mine:
                self._end(race, as_error(failed))

    def _run(self, race: Race, threads: ReadingThreads, verdict: Verdict | None) -> None:
        """Take part in a race; whoever decides it hands the bytes on and tells the end."""
        with self._lock:
            number = race.begin(time.perf_counter())
            if not number:
                self._count_again(verdict, -1)
                return
            is_first = number == 1
            if is_first:
                if not self._races:
                    self._lateness.forget_rate()
                self._races.add(race)
        data, error, seconds = self._tries.outcome(race, threads.closing)
        with self._lock:
            has_lost = race.is_decided
            has_decided = race.finish(has_bytes=data is not None)
            if has_decided:
                self._races.discard(race)
        if has_lost:
            threads.take_back()
        if not has_decided:
            return
        try:
            if data is not None:
                self._count(race, len(data), seconds, is_first=is_first)
            threads.replace(race.n_losers)
            if data is not None:
                race.wanted.deliver(data)
        except BaseException as failed:  # noqa: BLE001 - the edge of a thread: whoever waits gets it
            error = as_error(failed)
        self._end(race, error)

    def _count(self, race: Race, n_bytes: int, seconds: float, *, is_first: bool) -> None:
        """Learn from an answer."""
        with self._lock:
            now_s = time.perf_counter()
            self._lateness.learn(n_bytes, seconds, now_s, late_s=race.late_s, is_first=is_first)
            self._concurrency.add(seconds, now_s, late_s=0.0 if is_first else race.late_s)
            self._counts.record(race.wanted, n_bytes, now_s - race.begun_s, is_hedge=not is_first)

    def _end(self, race: Race, error: Exception | None = None) -> None:
        self._n_over += 1
        if isinstance(error, StorageError) and error.kind in PASSING:
            race.group.cancel()  # the rest would wait as long once more, and whoever waits for them as well
        race.group.end(race.number, error)

    def _look(self, threads: ReadingThreads) -> None:
        """Ask again for what is late, and end what is beyond its time."""
        now_s = time.perf_counter()
        passed_s = min(now_s - self._looked_s, LOOK_S)
        self._looked_s = now_s
        with self._lock:
            for race in self._races:
                race.age_s += passed_s
            n_running = sum(not race.late_s for race in self._races)
            over = [r for r in self._races if r.age_s > self._patience_s + LAST_TRY_S and r.decide()]
            self._races.difference_update(over)
            late = [
                (race, verdict)
                for race in self._races
                if (verdict := self._verdict(race, n_running, threads)) is not None
            ]
        for race in over:
            error = race.last_error or StorageError(
                f"{self.ranges.url}/{race.wanted.range.key} does not answer", kind=ErrorKind.UNREACHABLE
            )
            self._end(race, over_time(error, race.age_s))
            threads.replace(race.n_losers)
        for race, verdict in late:
            threads.spawn(partial(self._ask, race, threads, verdict))

    def _verdict(self, race: Race, n_running: int, threads: ReadingThreads) -> Verdict | None:
        """Tell why to ask for a range again, and count it; None if it is not to be."""
        if race.n_asked >= MAX_ASKED or threads.n_threads >= MAX_THREADS:
            return None
        now_s = time.perf_counter()
        waited_s = now_s - max(race.asked_s, race.resumes_s)
        verdict = self._lateness.verdict(
            race.wanted.range.n_bytes,
            waited_s,
            now_s,
            is_hedged=race.late_s > 0,
            n_running=n_running,
        )
        if verdict is None:
            return None
        self._count_again(verdict, 1)
        race.late_s += waited_s
        race.asked_s = now_s  # its thread says so too late: it would be due again
        return verdict

    def _count_again(self, verdict: Verdict | None, n: int) -> None:
        """Count requests beside late ones; the lock is held."""
        self._counts.stalls += n * (verdict == "stall")
        self._counts.hedges += n * (verdict == "hedge")


def _closed() -> StorageError:
    return StorageError("the reader was closed", kind=ErrorKind.CLOSED)


def _watch(requests: weakref.ref[Requests], threads: ReadingThreads) -> None:
    """Look for late reads until the threads end, or the reader is gone."""
    while not threads.closing.wait(WATCH_S):
        alive = requests()
        if alive is not None:
            try:
                alive._look(threads)
            except Exception:  # noqa: BLE001 - the edge of a thread, without which late reads would stay late
                _log.exception("late reads could not be asked for again")
        del alive
