"""Requests for byte ranges that end: in data, or in an error. Counted, retried, and made again where they are late.

A store that is out of reach, or busy, is asked again until a stated time is over, and the first answer of any read wakes all
others: a store that comes back is read at once. While they wait, that is logged and counted.

A read that takes longer than nearly all of its size did lately is *hedged*: the same range is asked for once more, and the first
answer wins (Dean and Barroso, "The Tail at Scale", 2013). Hedges are few, a share of all requests, since a store that is slow
as a whole would only get slower. A read that is late beyond doubt counts as *stalled* and is asked for again whatever the
share. The loser's bytes are thrown away when they come.

Requests are threads: each asks for a range and hands the bytes on in the same thread, which costs less than an event loop or a
second hand-over (obstore's async API takes a third more CPU a GB). One more thread looks for reads that are late.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from tensorbank.errors import ErrorKind, StorageError, as_error
from tensorbank.fetch.concurrency import Depth
from tensorbank.fetch.fetch_stats import FetchStats
from tensorbank.fetch.latencies import Latencies, by_rate_s
from tensorbank.fetch.outage import Outage
from tensorbank.fetch.range_reader import RangeReader
from tensorbank.fetch.read_group import Pending, forked
from tensorbank.fetch.threads import Crew
from tensorbank.ranges import ByteRange
from tensorbank.storage import MAX_PAUSE_S, RetryPolicy

__all__ = ["PATIENCE_S", "Deliver", "Requests", "Wanted"]

PATIENCE_S = 300.0
"""The default of the seconds a read waits for a store that is out of reach or busy:
longer than a restart takes."""
AWAY = frozenset({ErrorKind.UNREACHABLE, ErrorKind.THROTTLED})
"""The kinds of errors of the store as a whole, which pass."""
N_SHORT_TRIES = 4
"""The most tries of a read that brings too few bytes:
that is the object's fault far more often than the network's."""

HEDGE_QUANTILE = 0.95
HEDGE_FACTOR = 2.0
MIN_PATIENCE_S = 0.05
STALL_FACTOR = 3.0
"""The multiple of the hedging percentile after which, and at least ``stall_s`` after it was asked for last,
a read is late beyond doubt."""
FIRST_STALL_S = 1.0
"""Seconds after which a read counts as stalled while too few reads are known to tell what is late."""
RECENT = 32
"""The number of recent answers that tell how fast they come."""
MAX_ASKED = 4
"""The most requests for one range under way at once."""
MAX_THREADS = 1024
"""The most threads: with so many, most of which wait for answers that nobody waits for any more,
nothing is asked twice."""
WATCH_S = 0.025
"""Seconds between two looks at the reads under way: half of the shortest patience."""

FIRST_PAUSE_S = 0.02
"""Seconds before the second try; doubled each time.
A lost connection or a cut body, which are the usual reasons, should cost no more than a slow answer."""
MAX_PAUSE_WHEN_AWAY_S = 5.0
"""Seconds of the longest pause while a store is out of reach; the first answer ends all such pauses."""
FIRST_PAUSE_WHEN_BUSY_S = 0.25
"""Seconds before the second try with a store that is busy and does not say for how long."""
MAX_TRY_S = 30.0
"""The most seconds that one try counts for: it took longer only if the process was suspended,
which is not the store's fault."""
LOOK_S = 0.25
"""The most seconds that one look at the reads under way counts for, for the same reason."""
LAST_TRY_S = 5.0
"""Seconds for the last try of a read, beyond its patience;
then its error is raised, even if the try has not ended."""
SILENCE_S = 60.0
"""Seconds beyond the time limit of every read:
after so long without any end, a thread must have been lost."""

_log = logging.getLogger(__name__)

Deliver = Callable[[memoryview], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A range that somebody wants.

    Parameters
    ----------
    deliver
        Function that is called once with the bytes, read-only, in the thread that read them.
    n_asked_bytes
        Bytes that hold wanted blocks, for the statistics.
    spans
        Spans ``[start, end)`` of the object that these bytes are; all if empty.
    again
        This repeats a read that brought a bad block, for the statistics.
    """

    range: ByteRange
    deliver: Deliver
    n_asked_bytes: int = 0
    spans: Sequence[tuple[int, int]] = ()
    again: bool = False


@dataclass(slots=True, eq=False)
class _Asked:
    """A read that is wanted, and the requests for it."""

    wanted: Wanted
    number: int
    pending: Pending
    at_s: float = 0.0
    asked_at_s: float = 0.0
    resumes_at_s: float = 0.0
    age_s: float = 0.0
    n_asked: int = 0
    n_running: int = 0
    is_late: bool = False
    is_answered: bool = False
    last_error: StorageError | None = None


class Requests:
    """A reader of ranges of a store's objects in threads of its own. May be called from many threads at once.

    Parameters
    ----------
    ranges
        Reader of the ranges. One of local files is read as it is: a disk that is late is not hurried by asking twice.
    n_threads
        Requests under way at once; None: as many as their latency and rate ask for.
    max_hedge_share
        Second requests for late reads, as a share of all requests.
    stall_s
        Seconds after which a read is asked for again at the earliest, whatever the share.
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
        self._policies = {
            "unreachable": RetryPolicy(FIRST_PAUSE_S, MAX_PAUSE_WHEN_AWAY_S, patience_s),
            "throttled": RetryPolicy(FIRST_PAUSE_WHEN_BUSY_S, MAX_PAUSE_S, patience_s),
            "short-read": RetryPolicy(FIRST_PAUSE_S, MAX_PAUSE_WHEN_AWAY_S, patience_s, N_SHORT_TRIES),
        }
        self._outage = Outage(ranges.url, patience_s)
        self._n_over = 0
        self._looked_at_s = 0.0
        self._max_hedge_share = max_hedge_share
        self._stall_s = stall_s
        self._counts: Counter[str] = Counter()
        self._fetch_s = 0.0
        self._latencies = Latencies()
        self._answers_at_s: deque[float] = deque(maxlen=RECENT)
        self._depth = Depth(n_threads)
        self._lock = threading.Lock()
        self._running: set[_Asked] = set()
        self._pending: weakref.WeakSet[Pending] = weakref.WeakSet()
        self._lost: list[
            _Asked
        ] = []  # one for each request whose answer nobody waits for: threads replace them
        self._crew: Crew | None = None
        self._pid = 0

    @property
    def stats(self) -> FetchStats:
        self._check_process()
        with self._lock:
            p50, p99 = self._latencies.all_s()
            return FetchStats(
                **self._counts,  # type: ignore[arg-type]  # each an int
                fetch_s=self._fetch_s,
                latency_p50_s=p50,
                latency_p99_s=p99,
                depth=self._depth.n,
                away_s=self._outage.lasts_s if self._running else 0.0,
            )

    def submit(self, n: int, wanted: Callable[[int], Wanted]) -> Pending:
        """Start reads, behind those that were asked for before.

        The store's client has asked three times more at once; what it gives up is tried again, with growing, jittered pauses, or
        after the time that the store asks for, until the patience is over.

        Parameters
        ----------
        n
            Number of reads.
        wanted
            What is wanted, by number in ``[0, n)``; asked when its turn has come.

        Returns
        -------
        What tells of their end. Errors are those of ``deliver``, and NotFoundError or StorageError: the object is gone, access is
        refused, or the store kept failing.

        Raises
        ------
        StorageError
            The system gives no threads, or this process is a fork of the one that reads; its kind says which.
        """
        crew = self._open()
        pending = self._pending_of(n)
        with self._lock:
            self._pending.add(pending)
        crew.submit((partial(self._start, number, wanted, pending, crew) for number in pending.numbers()), n)
        return pending

    def now(self, wanted: Wanted) -> None:
        """Read at once, and return when it is over; raises what ended it."""
        crew = self._open()
        pending = self._pending_of(1)
        for number in pending.numbers():
            crew.spawn(partial(self._start, number, lambda _: wanted, pending, crew))
        for error in pending.wait(for_all=True).values():
            raise error

    def close(self) -> None:
        """Drop reads that are not answered, wait for those that are, and let the threads end.

        They can be used again.
        """
        if self._pid not in (0, os.getpid()):
            return  # the threads are another process's, and so may be the locks
        with self._lock:
            crew, self._crew = self._crew, None
            dropped = [item for item in self._running if not item.is_answered]
            for item in dropped:
                item.is_answered = True
            self._running.clear()
            pending = list(self._pending)
        for some in pending:
            some.cancel()
        for item in dropped:
            self._end(item, StorageError("the reader was closed", kind=ErrorKind.CLOSED))
        if crew is not None:
            crew.close()

    def _pending_of(self, n: int) -> Pending:
        """Return an account of reads whose waits end, too, if a thread is lost."""
        return Pending(n, stall_s=self._patience_s + SILENCE_S, beats=lambda: self._n_over)

    def _check_process(self) -> None:
        """Raise in a fork of the process that reads, before any lock: a thread of the parent may have held it."""
        if self._pid not in (0, os.getpid()):
            raise forked()

    def _open(self) -> Crew:
        self._check_process()
        with self._lock:
            if self._crew is None:
                self._lost = []
                depth, lost = self._depth, self._lost
                self._crew = crew = Crew(lambda: depth.n + len(lost))
                self._pid = os.getpid()
                weakref.finalize(self, crew.dismiss).atexit = False
                if not self.ranges.is_local:
                    crew.spawn(partial(_watch, weakref.ref(self), crew))
            return self._crew

    def _start(self, number: int, wanted: Callable[[int], Wanted], pending: Pending, crew: Crew) -> None:
        """Start one of the reads, whose end is told whatever happens."""
        try:
            item = _Asked(wanted(number), number, pending)
        except BaseException as failed:  # noqa: BLE001 - the edge of a thread: whoever waits gets it
            self._n_over += 1
            pending.end(number, as_error(failed))
            return
        self._ask(item, crew)

    def _ask(self, item: _Asked, crew: Crew) -> None:
        """Request a range, hand it on, and tell the end: of the bytes, of the error, or of what failed here."""
        try:
            self._race(item, crew)
        except BaseException as failed:  # noqa: BLE001 - the edge of a thread: whoever waits gets it
            with self._lock:
                told = item.is_answered
                item.is_answered = True
                self._running.discard(item)
            if not told:
                self._end(item, as_error(failed))

    def _end(self, item: _Asked, error: Exception | None = None) -> None:
        self._n_over += 1
        if isinstance(error, StorageError) and error.kind in AWAY:
            item.pending.cancel()  # the rest would wait as long once more, and whoever waits for them as well
        item.pending.end(item.number, error)

    def _race(self, item: _Asked, crew: Crew) -> None:
        """Request a range until it comes, or somebody else has it, or there is no hope; and hand it on."""
        with self._lock:
            item.n_asked += 1
            item.n_running += 1
            number = item.n_asked
            item.asked_at_s = time.perf_counter()
            if number == 1:
                item.at_s = item.asked_at_s
                if not self._running:
                    self._answers_at_s.clear()  # a pause of the consumer says nothing of how fast answers come
                self._running.add(item)
        data, error, seconds = self._try(item, crew)
        with self._lock:
            item.n_running -= 1
            if item.is_answered and item in self._lost:
                self._lost.remove(item)
            if item.is_answered or (error is not None and item.n_running):
                return  # another request was first, or may still be
            item.is_answered = True
            self._lost += [item] * item.n_running
            self._running.discard(item)
        try:
            if data is not None:
                self._count(item, len(data), seconds, is_hedge=number > 1)
            if item.n_running:
                crew.staff()
            if data is not None:
                item.wanted.deliver(data)
        except BaseException as failed:  # noqa: BLE001 - the edge of a thread: whoever waits gets it
            error = as_error(failed)
        self._end(item, error)

    def _count(self, item: _Asked, n_bytes: int, seconds: float, *, is_hedge: bool) -> None:
        """Learn from an answer."""
        with self._lock:
            now_s = time.perf_counter()
            self._latencies.add(n_bytes, seconds)
            self._answers_at_s.append(now_s)
            self._depth.add(seconds, now_s)
            counts = self._counts
            counts["requests"] += 1
            counts["bytes_read"] += n_bytes
            counts["bytes_asked"] += item.wanted.n_asked_bytes
            counts["refetches"] += item.wanted.again
            counts["hedges_won"] += is_hedge
            self._fetch_s += now_s - item.at_s

    def _try(self, item: _Asked, crew: Crew) -> tuple[memoryview | None, Exception | None, float]:
        """Return the bytes or the last error, and how long the last try took."""
        retries, waited_s = 0, item.age_s  # a second request for a late read has no patience of its own
        while True:
            started = time.perf_counter()
            try:
                data = self._get(item.wanted.range)
            except StorageError as error:
                waited_s += min(time.perf_counter() - started, MAX_TRY_S)
                item.last_error = error
                policy = self._policies.get(error.kind)
                pause_s = None if policy is None else policy.pause_s(retries, waited_s, error.retry_after_s)
                if pause_s is None:
                    return None, _over(error, waited_s) if retries else error, 0.0
                if error.kind in AWAY:
                    self._outage.note(error, len(self._running))
                item.resumes_at_s = time.perf_counter() + pause_s  # it is not late before
                if item.is_answered or self._outage.pause(
                    pause_s, crew.closing, may_wake=error.kind == ErrorKind.UNREACHABLE
                ):
                    return None, error, 0.0
                waited_s += pause_s
                retries += 1
                with self._lock:
                    self._counts["retries"] += 1
            except BaseException as error:  # noqa: BLE001 - the edge of a thread: whoever waits gets it
                return None, as_error(error), 0.0
            else:
                self._outage.end()
                return data, None, time.perf_counter() - started

    def _get(self, wanted: ByteRange) -> memoryview:
        return self.ranges.get_range(wanted.key, wanted.start, wanted.end)

    def _hurry(self, crew: Crew) -> None:
        """Ask again for what is late, and end what is beyond its time."""
        now_s = time.perf_counter()
        passed_s = min(now_s - self._looked_at_s, LOOK_S)  # longer: this process was suspended
        self._looked_at_s = now_s
        with self._lock:
            for item in self._running:
                item.age_s += passed_s
            over = [i for i in self._running if i.age_s > self._patience_s + LAST_TRY_S]
            for item in over:
                item.is_answered = True
                self._lost += [item] * item.n_running
                self._running.discard(item)
            late = [item for item in self._running if self._is_due(item, crew)]
            for item in late:
                item.is_late = True
                item.asked_at_s = time.perf_counter()  # its thread says so too late: it would be due again
        for item in over:
            error = item.last_error or StorageError(
                f"{self.ranges.url}/{item.wanted.range.key} does not answer", kind=ErrorKind.UNREACHABLE
            )
            self._end(item, _over(error, item.age_s))
        if over:
            crew.staff()
        for item in late:
            crew.spawn(partial(self._ask, item, crew))

    def _is_due(self, item: _Asked, crew: Crew) -> bool:
        """Tell whether to repeat a read: once as a hedge, if the budget allows it,
        or because it has stalled."""
        waited_s = time.perf_counter() - max(item.asked_at_s, item.resumes_at_s)
        if waited_s < MIN_PATIENCE_S or item.n_asked >= MAX_ASKED or crew.n_threads >= MAX_THREADS:
            return False
        usual_s = self._usual_s(item.wanted.range.n_bytes)
        late_s = FIRST_STALL_S if usual_s is None else max(self._stall_s, STALL_FACTOR * usual_s)
        if waited_s >= late_s:
            self._counts["stalls"] += 1
            return True
        if item.is_late or usual_s is None or waited_s < HEDGE_FACTOR * usual_s:
            return False
        if self._counts["hedges"] + 1 > self._max_hedge_share * (self._counts["requests"] + 1):
            return False
        self._counts["hedges"] += 1
        return True

    def _usual_s(self, n_bytes: int) -> float | None:
        """Return the seconds that a read takes that is not late; None while too few are known.

        By reads of its size, and, where answers wait for a busy processor, by the rate of answers.
        """
        usual_s = self._latencies.usual_s(n_bytes, HEDGE_QUANTILE)
        if usual_s is None or len(self._answers_at_s) < 2:
            return usual_s
        found_s = by_rate_s(self._answers_at_s, len(self._running), time.perf_counter())
        return max(usual_s, min(found_s, FIRST_STALL_S / STALL_FACTOR))


def _over(error: StorageError, waited_s: float) -> StorageError:
    """Return the same error with the seconds that were spent on trying again."""
    told = StorageError(f"{error}; tried again for {waited_s:.0f} s (patience_s)", kind=error.kind)
    told.retry_after_s = error.retry_after_s
    told.__cause__ = error
    return told


def _watch(requests: weakref.ref[Requests], crew: Crew) -> None:
    while not crew.closing.wait(WATCH_S):
        alive = requests()
        if alive is not None:
            try:
                alive._hurry(crew)
            except Exception:  # noqa: BLE001 - the edge of a thread, without which late reads would stay late
                _log.exception("late reads could not be asked for again")
        del alive
