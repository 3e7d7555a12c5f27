"""Requests for byte ranges that end: in data, or in an error. Counted, retried, and made again where they are late.

A read that takes longer than nearly all of its size did lately is *hedged*: the same range is asked for once more, and the first
answer wins (Dean and Barroso, "The Tail at Scale", 2013). Hedges are few, a share of all requests, since a store that is slow
as a whole would only get slower. A read that is late beyond doubt counts as *stalled* and is asked for again whatever the
share. The loser's bytes are thrown away when they come.

Requests are threads: each asks for a range and hands the bytes on in the same thread, which costs less than an event loop or a
second hand-over (obstore's async API takes a third more CPU a GB). One more thread looks for reads that are late.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from tensorbank.crew import Crew
from tensorbank.depth import Depth
from tensorbank.errors import StorageError
from tensorbank.fetch_stats import FetchStats
from tensorbank.latencies import Latencies, by_rate_s
from tensorbank.pending import Pending
from tensorbank.ranges import ByteRange
from tensorbank.store import Store
from tensorbank.throttling import backoff_s

__all__ = ["Deliver", "Requests", "Wanted"]

N_TRIES = {"unreachable": 10, "throttled": 8, "short-read": 2}
"""Tries by kind of error: about half a minute. A short read is the object's fault far more often than the network's, so it has
one more only."""

HEDGE_QUANTILE = 0.95
HEDGE_FACTOR = 2.0
MIN_PATIENCE_S = 0.05
STALL_FACTOR = 3.0
"""Times that percentile, and at least ``stall_s``, since it was asked for last: a read that is late beyond doubt."""
FIRST_STALL_S = 1.0
"""While too few reads are known to tell what is late."""
RECENT = 32
"""Answers that tell how fast they come."""
MAX_ASKED = 4
"""Requests for one range under way at once."""
MAX_THREADS = 1024
"""With so many, most of which wait for answers that nobody waits for any more, nothing is asked twice."""
WATCH_S = 0.025
"""How often reads under way are looked at: half of the shortest patience."""

FIRST_PAUSE_S = 0.05
"""Before the second try; doubled each time. The store's client has asked three times more at once by then."""
FIRST_PAUSE_WHEN_BUSY_S = 0.25
"""The same, of a store that is busy and does not say for how long."""


Deliver = Callable[[memoryview], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A range that somebody wants.

    Parameters
    ----------
    deliver
        Called once with the bytes, read-only, in the thread that read them.
    n_asked_bytes
        How many of them hold wanted blocks, for the statistics.
    spans
        Which bytes ``[start, end)`` of the object these are; all if empty.
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
    """What is wanted, and the requests for it."""

    wanted: Wanted
    number: int
    pending: Pending
    at_s: float = 0.0
    asked_at_s: float = 0.0
    resumes_at_s: float = 0.0
    n_asked: int = 0
    n_running: int = 0
    is_late: bool = False
    is_answered: bool = False

    def end(self, error: Exception | None = None) -> None:
        self.pending.end(self.number, error)


class Requests:
    """Reads ranges of a store's objects in threads of its own. May be called from many threads at once.

    Parameters
    ----------
    store
        Where the objects are. One of local files is read as it is: a disk that is late is not hurried by asking twice.
    n_threads
        Requests under way at once; None: as many as their latency and rate ask for.
    max_hedge_share
        Second requests for late reads, as a share of all requests.
    stall_s
        After which a read is asked for again at the earliest, whatever the share.
    """

    def __init__(
        self, store: Store, *, n_threads: int | None, max_hedge_share: float, stall_s: float
    ) -> None:
        self.store = store
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
        ] = []  # of requests whose answers nobody waits for: their threads are replaced
        self._crew: Crew | None = None
        self._pid = 0

    @property
    def stats(self) -> FetchStats:
        with self._lock:
            p50, p99 = self._latencies.all_s()
            return FetchStats(
                **self._counts,  # type: ignore[arg-type]  # each an int
                fetch_s=self._fetch_s,
                latency_p50_s=p50,
                latency_p99_s=p99,
                depth=self._depth.n,
            )

    def submit(self, n: int, wanted: Callable[[int], Wanted]) -> Pending:
        """Start reads, behind those that were asked for before.

        The store's client has asked three times more at once; what it gives up is tried some times more, with growing, jittered
        pauses, or after the time that the store asks for.

        Parameters
        ----------
        n
            How many.
        wanted
            What is wanted, by number in ``[0, n)``; asked when its turn has come.

        Returns
        -------
        What tells of their end. Errors are those of ``deliver``, and NotFoundError or StorageError: the object is gone, access is
        refused, or the store kept failing.
        """
        pending, crew = Pending(n), self._open()
        with self._lock:
            self._pending.add(pending)
        crew.submit((partial(self._start, number, wanted, pending, crew) for number in pending.numbers()), n)
        return pending

    def now(self, wanted: Wanted) -> None:
        """Read at once, and return when it is over; raises what ended it."""
        pending, crew = Pending(1), self._open()
        for number in pending.numbers():
            crew.spawn(partial(self._start, number, lambda _: wanted, pending, crew))
        for error in pending.wait(for_all=True).values():
            raise error

    def close(self) -> None:
        """Drop reads that are not answered, wait for those that are, and let the threads end.

        They can be used again.
        """
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
            item.end(StorageError("the reader was closed", kind="closed"))
        if crew is not None and self._pid == os.getpid():
            crew.close()

    def _open(self) -> Crew:
        with self._lock:
            if self._crew is None or self._pid != os.getpid():  # threads do not survive a fork
                self._lost = []
                depth, lost = self._depth, self._lost
                self._crew = crew = Crew(lambda: depth.n + len(lost))
                self._pid = os.getpid()
                weakref.finalize(self, crew.dismiss).atexit = False
                if self.store.local_path is None:
                    crew.spawn(partial(_watch, weakref.ref(self), crew))
            return self._crew

    def _start(self, number: int, wanted: Callable[[int], Wanted], pending: Pending, crew: Crew) -> None:
        self._ask(_Asked(wanted(number), number, pending), crew)

    def _ask(self, item: _Asked, crew: Crew) -> None:
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
        data, error, retries, seconds = self._try(item, crew)
        with self._lock:
            item.n_running -= 1
            if item.is_answered and item in self._lost:
                self._lost.remove(item)
            if item.is_answered or (error is not None and item.n_running):
                return  # another request was first, or may still be
            item.is_answered = True
            self._lost += [item] * item.n_running
            self._running.discard(item)
            if data is not None:
                now_s = time.perf_counter()
                self._latencies.add(len(data), seconds)
                self._answers_at_s.append(now_s)
                self._depth.add(seconds, now_s)
                counts = self._counts
                counts["requests"] += 1
                counts["bytes_read"] += len(data)
                counts["bytes_asked"] += item.wanted.n_asked_bytes
                counts["refetches"] += item.wanted.again
                counts["retries"] += retries
                counts["hedges_won"] += number > 1
                self._fetch_s += now_s - item.at_s
        if item.n_running:
            crew.staff()
        if data is None:
            item.end(error)
            return
        try:
            item.wanted.deliver(data)
        except Exception as failed:  # noqa: BLE001 - the edge of a thread: whoever waits gets it
            item.end(failed)
        else:
            item.end()

    def _try(self, item: _Asked, crew: Crew) -> tuple[memoryview | None, Exception | None, int, float]:
        """Bytes or the last error, how often it was tried again, and how long the last try took."""
        retries = 0
        while True:
            started = time.perf_counter()
            try:
                return self._get(item.wanted.range), None, retries, time.perf_counter() - started
            except StorageError as error:
                first_s = FIRST_PAUSE_WHEN_BUSY_S if error.kind == "throttled" else FIRST_PAUSE_S
                pause_s = backoff_s(retries, first_s, error.retry_after_s)
                item.resumes_at_s = time.perf_counter() + pause_s  # it is not late before
                hopeless = retries + 1 >= N_TRIES.get(error.kind, 1)
                if hopeless or item.is_answered or crew.closing.wait(pause_s):
                    return None, error, retries, 0.0
                retries += 1
            except Exception as error:  # noqa: BLE001 - the edge of a thread: whoever waits gets it
                return None, error, retries, 0.0

    def _get(self, wanted: ByteRange) -> memoryview:
        return self.store.get_range(wanted.key, wanted.start, wanted.end)

    def _hurry(self, crew: Crew) -> None:
        """Ask again for what is late."""
        with self._lock:
            late = [item for item in self._running if self._is_due(item, crew)]
            for item in late:
                item.is_late = True
                item.asked_at_s = time.perf_counter()  # its thread says so too late: it would be due again
        for item in late:
            crew.spawn(partial(self._ask, item, crew))

    def _is_due(self, item: _Asked, crew: Crew) -> bool:
        """Whether to ask again for a read: as a hedge, the first time and if there is budget, or since it has stalled."""
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
        """What a read takes that is not late, None while too few are known.

        By those of its size, and, where answers wait for a busy processor, by how fast they come.
        """
        usual_s = self._latencies.usual_s(n_bytes, HEDGE_QUANTILE)
        if usual_s is None or len(self._answers_at_s) < 2:
            return usual_s
        found_s = by_rate_s(self._answers_at_s, len(self._running), time.perf_counter())
        return max(usual_s, min(found_s, FIRST_STALL_S / STALL_FACTOR))


def _watch(requests: weakref.ref[Requests], crew: Crew) -> None:
    while not crew.closing.wait(WATCH_S):
        alive = requests()
        if alive is not None:
            alive._hurry(crew)
        del alive
