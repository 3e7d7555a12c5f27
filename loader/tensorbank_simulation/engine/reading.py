"""The reads of one process: threads that fetch and decode, and reads that are late and asked for again.

It does what :mod:`tensorbank.fetch` does, and what decides there decides here: :class:`Concurrency` how many reads are under
way, and :class:`Lateness` which are late.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tensorbank.fetch.concurrency import Concurrency
from tensorbank.fetch.fetcher import N_LOOKING, FetchOptions
from tensorbank.fetch.lateness import MIN_LATE_S, Lateness
from tensorbank.fetch.range_requests import MAX_ASKED, WATCH_S
from tensorbank.fetch.tries import FIRST_PAUSE_WHEN_BUSY_S
from tensorbank.storage import MAX_PAUSE_S
from tensorbank_simulation.engine.clock import Action, Clock
from tensorbank_simulation.engine.draws import draw
from tensorbank_simulation.engine.shared import OneAtATime, SharedResource, Wire
from tensorbank_simulation.engine.store import Requests

__all__ = ["NodeResources", "ReadCost", "Reading"]

PAUSE, HIT = 3, 4
"""The names of draws."""
QUESTION = 1 << 15
"""The distance of the draws of a question for the pause from those of the try before it."""


@dataclass(frozen=True, slots=True)
class ReadCost:
    """One read: its bytes, and the CPU seconds that it takes.

    Parameters
    ----------
    n_bytes
        Stored bytes that come.
    request_s, decode_s
        CPU seconds of the request and the arrival of its bytes, and those of verifying and decoding.
    lock_s
        Those of all CPU seconds in which the interpreter does nothing else.
    hit_s, miss_s
        CPU seconds of finding the bytes in the cache; and of looking in vain, and keeping them.
    """

    n_bytes: int
    request_s: float
    decode_s: float
    lock_s: float = 0.0
    hit_s: float = 0.0
    miss_s: float = 0.0


@dataclass(frozen=True, slots=True)
class NodeResources:
    """The network and the cores of a node, which its processes share."""

    network: Wire
    cores: SharedResource


class _Race:
    """One read under way, and the requests for it, as :class:`tensorbank.fetch.races.Race`."""

    __slots__ = (
        "asked_s",
        "came",
        "done",
        "is_decided",
        "late_s",
        "n_asked",
        "n_running",
        "number",
        "read",
        "resumes_s",
    )

    def __init__(self, number: int, read: ReadCost, came: Callable[[], float], done: Action) -> None:
        self.number, self.read, self.came, self.done = number, read, came, done
        self.asked_s = self.resumes_s = self.late_s = 0.0
        self.n_asked = self.n_running = 0
        self.is_decided = False


class Reading:
    """The reads of one process, in the order in which they are asked for.

    Parameters
    ----------
    rank
        Number of the process, for the draws.
    options
        Options of the loader. The cache is on if they have a folder.
    hit_share
        Share of reads that the cache has.
    is_local
        True if the bytes come from a disk of this machine, which is never asked twice.
    """

    def __init__(
        self,
        clock: Clock,
        node: NodeResources,
        requests: Requests,
        *,
        rank: int,
        seed: int,
        options: FetchOptions,
        hit_share: float = 0.0,
        is_local: bool = False,
    ) -> None:
        self._clock, self._node, self._requests = clock, node, requests
        self._rank, self._seed = rank, seed
        self._hit_share = hit_share
        self._has_cache = options.cache_dir is not None
        self.lock = OneAtATime(clock)
        self._lateness = Lateness(options.max_hedge_share, options.stall_s)
        self._concurrency = Concurrency(options.n_threads)
        self._looking: deque[_Race] = deque()  # reads that wait for a look into the cache
        self._asking: deque[_Race] = deque()  # and for a request
        self._races: dict[_Race, None] = {}
        self._n_submitted = self._n_serving = self._n_workers = self._n_lost = 0
        self._watches = not is_local
        self._is_watching = False
        self.n_answers = self.n_hedges = self.n_stalls = self.n_hits = self.n_reads = self.n_done = 0
        self.read_bytes = self.hit_bytes = 0

    @property
    def depth(self) -> int:
        """The number of requests that may be under way."""
        return self._concurrency.n

    def submit(self, reads: Sequence[ReadCost], allocate: Callable[[], float], done: Action) -> None:
        """Queue the reads of a batch, and do something when all have been decoded.

        Parameters
        ----------
        allocate
            Callable that is asked once, when the first bytes have come, for the CPU seconds of making the batch's memory.
        """
        left = len(reads)
        if not left:
            self._clock.after(0.0, done)
            return
        is_first = True

        def one_done() -> None:
            nonlocal left
            left -= 1
            self.n_done += 1
            if not left:
                done()

        def came() -> float:
            nonlocal is_first
            was_first, is_first = is_first, False
            return allocate() if was_first else 0.0

        for read in reads:
            race = _Race(self._n_submitted, read, came, one_done)
            self._n_submitted += 1
            (self._looking if self._has_cache else self._asking).append(race)
        self._staff()

    def _staff(self) -> None:
        """Let threads begin with what waits, as many as may run."""
        while self._looking and self._n_serving < self.depth + N_LOOKING:
            self._n_serving += 1
            self._look(self._looking.popleft())
        while self._asking and self._n_workers < self.depth + self._n_lost:
            self._n_workers += 1
            self._begin(self._asking.popleft())

    def _look(self, race: _Race) -> None:
        """Look into the cache, in a thread that waits for what it lacks and decodes it."""
        race.done = self._then(race.done, self._served)
        if draw(self._seed, HIT, self._rank, race.number) >= self._hit_share:
            self._asking.append(race)
            return
        read = race.read
        self.n_reads += 1
        self.n_hits += 1
        self.hit_bytes += read.n_bytes
        self._compute(read.hit_s + read.decode_s + race.came(), read.lock_s, race.done)

    def _served(self) -> None:
        self._n_serving -= 1
        self._staff()

    def _begin(self, race: _Race) -> None:
        """Begin with the requests for a read, in a thread of the pool."""
        self.n_reads += 1
        if not self._races:
            self._lateness.forget_rate()
        self._races[race] = None
        self._ask(race, is_worker=True)
        if self._watches and not self._is_watching:
            self._is_watching = True
            self._clock.after(WATCH_S, self._watch)

    def _release(self) -> None:
        self._n_workers -= 1
        self._staff()

    def _then(self, first: Action, second: Action) -> Action:
        def both() -> None:
            first()
            second()

        return both

    def _ask(self, race: _Race, *, is_worker: bool) -> None:
        race.n_asked += 1
        race.n_running += 1
        race.asked_s = self._clock.now_s
        self._try(race, race.n_asked << 16, 0, is_worker=is_worker)

    def _try(self, race: _Race, key: int, n_retries: int, *, is_worker: bool) -> None:
        started_s = self._clock.now_s
        is_first = key == 1 << 16
        name = (self._rank, race.number, key + n_retries)

        def answered() -> None:
            self.read_bytes += race.read.n_bytes
            self._node.cores.add(race.read.request_s, finished)

        def finished() -> None:
            self._finish(race, self._clock.now_s - started_s, is_first=is_first, is_worker=is_worker)

        def paused(pause_s: float) -> None:
            race.resumes_s = self._clock.now_s + pause_s
            self._clock.after(pause_s, resumed)

        def resumed() -> None:
            if race.is_decided:
                self._finish(race, 0.0, is_first=is_first, is_worker=is_worker)
            else:
                self._try(race, key, n_retries + 1, is_worker=is_worker)

        def refused() -> None:
            # The store is asked for how long it wants to be left alone. If it serves that question, not at all; if it
            # refuses it, too, pauses grow (tensorbank.storage.retries).
            drawn = draw(self._seed, PAUSE, *name)
            grown_s = min(MAX_PAUSE_S, FIRST_PAUSE_WHEN_BUSY_S * 2.0 ** min(n_retries, 64))
            self._requests.ask(
                (self._rank, race.number, key + n_retries + QUESTION),
                0,
                self._node.network,
                lambda: paused(FIRST_PAUSE_WHEN_BUSY_S * drawn),
                lambda: paused(grown_s * (0.5 + drawn)),
            )

        self._requests.ask(name, race.read.n_bytes, self._node.network, answered, refused)

    def _finish(self, race: _Race, seconds: float, *, is_first: bool, is_worker: bool) -> None:
        """End a request: the first that is answered decides, and its thread decodes."""
        race.n_running -= 1
        if race.is_decided:
            self._n_lost -= 1
            if is_worker:
                self._release()
            return
        race.is_decided = True
        del self._races[race]
        now_s = self._clock.now_s
        self._lateness.learn(race.read.n_bytes, seconds, now_s, late_s=race.late_s, is_first=is_first)
        self._concurrency.add(seconds, now_s, late_s=0.0 if is_first else race.late_s)
        self.n_answers += 1
        self._n_lost += race.n_running
        self._staff()
        work_s = race.read.decode_s + race.came()
        if self._has_cache:  # the thread that looked keeps the bytes and decodes them
            self._compute(work_s + race.read.miss_s, race.read.lock_s, race.done)
            if is_worker:
                self._release()
        else:
            release = self._release if is_worker else _nothing
            self._compute(work_s, race.read.lock_s, self._then(race.done, release))

    def _compute(self, seconds: float, lock_s: float, done: Action) -> None:
        """Take the interpreter's lock for a while, and a core for all of the work."""
        if lock_s:
            self.lock.add(lock_s, lambda: self._node.cores.add(seconds, done))
        else:
            self._node.cores.add(seconds, done)

    def _watch(self) -> None:
        """Ask again for what is late, as long as reads are under way."""
        if not self._races:
            self._is_watching = False
            return
        now_s = self._clock.now_s
        n_running = sum(not race.late_s for race in self._races)
        for race in list(self._races):
            waited_s = now_s - max(race.asked_s, race.resumes_s)
            if waited_s < MIN_LATE_S or race.n_asked >= MAX_ASKED:
                continue
            verdict = self._lateness.verdict(
                race.read.n_bytes,
                waited_s,
                now_s,
                is_hedged=race.late_s > 0,
                n_running=n_running,
            )
            if verdict is not None:
                self.n_hedges += verdict == "hedge"
                self.n_stalls += verdict == "stall"
                race.late_s += waited_s
                self._ask(race, is_worker=False)
        self._clock.after(WATCH_S, self._watch)


def _nothing() -> None:
    pass
