"""Reads of byte ranges that end: in data, or in an error. Counted, retried, and asked again where they are late.

Whether the bytes are sound is the reader's to find out: blocks carry their checksum.

A read that takes longer than nearly all of its size did lately is *hedged*: the same range is asked for once more, and the first
answer wins (Dean and Barroso, "The Tail at Scale", 2013). Hedges are few, a share of all requests, since a store that is slow
as a whole would only get slower. A read that is late beyond doubt counts as *stalled* and is asked for again whatever the
share. The loser's bytes are thrown away when they come.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from tensorbank.cache import BlockCache, CacheStats
from tensorbank.errors import InvalidInputError, StorageError
from tensorbank.latencies import Latencies
from tensorbank.ranges import ByteRange, coalesce
from tensorbank.store import Store
from tensorbank.throttling import backoff_s

__all__ = ["FetchOptions", "FetchStats", "Fetcher"]

N_TRIES = {"unreachable": 10, "throttled": 8, "short-read": 2}
"""Tries by kind of error: about half a minute. A short read is the object's fault far more often than the network's, so it has
one more only."""

HEDGE_QUANTILE = 0.95
HEDGE_FACTOR = 2.0
MIN_PATIENCE_S = 0.05
STALL_FACTOR = 10.0
"""Times that percentile, and at least ``stall_s``: a read that is late beyond doubt. Doubled with each request for it."""
FIRST_STALL_S = 1.0
"""While too few reads are known to tell what is late."""
MAX_ASKED = 4
"""Requests for one range under way at once."""
N_SPARE_THREADS = 240
"""Beyond ``n_threads``: those that wait for answers which nobody waits for any more."""

FIRST_PAUSE_S = 0.05
"""Before the second try; doubled each time. The store's client has asked three times more at once by then."""
FIRST_PAUSE_WHEN_BUSY_S = 0.25
"""The same, of a store that is busy and does not say for how long."""


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """How to read.

    Parameters
    ----------
    max_gap_bytes
        Largest hole that is read through rather than asked around: what a connection of 100 MB/s carries in a few ms.
    max_amplification
        Bytes read to bytes wanted within one read, at most; beyond 1.3 holes cost more than the requests they save.
    max_read_bytes
        Largest joined read, so that decoding starts early and spreads over threads.
    max_inflight_bytes
        Memory of batches that are read ahead, tensors and stored bytes together; two batches are always under way. 1 GiB is
        a tenth of a second at the rate of the fastest models, several times the latency of an object store.
    n_threads
        Reads in flight at once; each decodes what it read. More than cores, since most of them wait for the network.
    max_hedge_share
        Second requests for late reads, as a share of all requests; 0 to wait.
    stall_s
        After which a read is asked for again at the earliest, whatever the share: ten times what is usual, but not less.
    cache_dir
        Folder on a local disk where what was read is kept for later epochs, shared by all processes of the node; None for none.
        See :mod:`tensorbank.cache`.
    cache_bytes
        Of what is kept, by all of them together.

    Raises
    ------
    InvalidInputError
        A limit makes no sense.
    """

    max_gap_bytes: int = 256 << 10
    max_amplification: float = 1.25
    max_read_bytes: int = 8 << 20
    max_inflight_bytes: int = 1 << 30
    n_threads: int = 16
    max_hedge_share: float = 0.02
    stall_s: float = 0.1
    cache_dir: str | os.PathLike[str] | None = None
    cache_bytes: int = 64 << 30

    def __post_init__(self) -> None:
        if self.cache_bytes < 1:
            raise InvalidInputError(f"cache_bytes must be at least 1, got {self}")
        if self.n_threads < 1 or self.max_read_bytes < 1:
            raise InvalidInputError(f"n_threads and max_read_bytes must be at least 1, got {self}")
        if self.max_gap_bytes < 0 or self.max_inflight_bytes < 0 or not self.max_amplification >= 1:
            raise InvalidInputError(
                f"max_gap_bytes and max_inflight_bytes must not be negative, max_amplification not below 1, got {self}"
            )
        if not 0 <= self.max_hedge_share <= 1 or not self.stall_s > 0:
            raise InvalidInputError(f"max_hedge_share is a share and stall_s a time, got {self}")


@dataclass(frozen=True, slots=True)
class FetchStats:
    """Counts since the fetcher was made.

    Parameters
    ----------
    requests
        Ranges that arrived.
    bytes_read
        Their size, holes and refetches included.
    bytes_asked
        Bytes of blocks that somebody wanted; ``bytes_read / bytes_asked`` is the amplification.
    refetches
        Reads made again for a bad block.
    retries
        Reads made again for an error of the store, beyond the retries of its client.
    hedges, hedges_won
        Second requests for late reads, and those that were first to answer.
    stalls
        Requests made again since nothing came.
    fetch_s
        Time spent in requests and pauses, summed over threads.
    latency_p50_s, latency_p99_s
        Of the reads of the recent past.
    cache
        What the cache on the local disk did; all 0 without one. What it gave is in no other count.
    """

    requests: int = 0
    bytes_read: int = 0
    bytes_asked: int = 0
    refetches: int = 0
    retries: int = 0
    hedges: int = 0
    hedges_won: int = 0
    stalls: int = 0
    fetch_s: float = 0.0
    latency_p50_s: float = 0.0
    latency_p99_s: float = 0.0
    cache: CacheStats = field(default_factory=CacheStats)


class Fetcher:
    """Reads ranges of a store's objects. May be called from many threads at once.

    Setting ``hurry`` ends pauses between tries: the error at hand is raised instead of one more try.

    Parameters
    ----------
    store
        Where the objects are. One of local files is read as it is: a disk that is late is not hurried by asking twice.
    options
        How to read.
    """

    def __init__(self, store: Store, options: FetchOptions | None = None) -> None:
        self.store = store
        self.options = options or FetchOptions()
        self.hurry = threading.Event()
        self._stats = FetchStats()
        self._latencies = Latencies()
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._cache = (
            BlockCache(Path(self.options.cache_dir), self.options.cache_bytes)
            if self.options.cache_dir
            else None
        )

    @property
    def stats(self) -> FetchStats:
        p50, p99 = self._latencies.all_s()
        with self._lock:
            now = replace(self._stats, latency_p50_s=p50, latency_p99_s=p99)
        return now if self._cache is None else replace(now, cache=self._cache.stats)

    def fetch(
        self,
        wanted: ByteRange,
        *,
        n_asked_bytes: int = 0,
        again: bool = False,
        spans: Sequence[tuple[int, int]] = (),
    ) -> memoryview:
        """The bytes of a range, read-only.

        The store's client has asked three times more at once; what it gives up is tried some times more, with growing, jittered
        pauses, or after the time that the store asks for.

        Parameters
        ----------
        n_asked_bytes
            How many of them hold wanted blocks, for the statistics.
        again
            This repeats a read that brought a bad block, for the statistics.
        spans
            Which bytes ``[start, end)`` of the object these are, if not all: the cache keeps and looks for no others.

        Raises
        ------
        NotFoundError, StorageError
            The object is gone, access is refused, or the store kept failing.
        """
        cache = self._cache
        if cache is None:
            return self._request(wanted, n_asked_bytes, again=again)
        name = f"{self.store.options.endpoint or ''}|{self.store.url}/{wanted.key}"
        whole = (wanted.start, wanted.end)
        if again:
            cache.drop(name, whole)

        def bring(missing: Sequence[tuple[int, int]]) -> Iterable[tuple[int, memoryview]]:
            starts, ends = np.array(missing, np.int64).T
            first, last, owner = coalesce(
                starts,
                ends,
                max_gap_bytes=self.options.max_gap_bytes,
                max_amplification=self.options.max_amplification,
                max_read_bytes=self.options.max_read_bytes,
            )
            asked = np.bincount(owner, weights=ends - starts).astype(np.int64)
            for a, b, n in zip(first.tolist(), last.tolist(), asked.tolist(), strict=True):
                yield a, self._request(ByteRange(wanted.key, a, b), n, again=again)

        return cache.read(name, whole, spans or [whole], bring)

    def _request(self, wanted: ByteRange, n_asked_bytes: int, *, again: bool) -> memoryview:
        started = time.perf_counter()
        attempt = 1
        while True:
            try:
                data = self._read(wanted)
            except StorageError as error:
                first_s = FIRST_PAUSE_WHEN_BUSY_S if error.kind == "throttled" else FIRST_PAUSE_S
                pause_s = backoff_s(attempt - 1, first_s, error.retry_after_s)
                if attempt >= N_TRIES.get(error.kind, 1) or self.hurry.wait(pause_s):
                    raise
                attempt += 1
            else:
                self._count(
                    requests=1,
                    bytes_read=len(data),
                    bytes_asked=n_asked_bytes,
                    refetches=int(again),
                    retries=attempt - 1,
                    fetch_s=time.perf_counter() - started,
                )
                return data

    def close(self) -> None:
        """Let threads go that wait for late answers; the fetcher can be used again."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)

    def _read(self, wanted: ByteRange) -> memoryview:
        """One read; asked for again, up to some times, while it is late."""
        if self.store.local_path is not None:
            return self._get(wanted)[0]
        asked = [self._submit(wanted)]
        first, hedged = asked[0], False
        while True:
            patience_s, stalls = self._patience(wanted, len(asked), hedged=hedged)
            done, waiting = wait(asked, patience_s, FIRST_COMPLETED)
            for future in done:
                if future.exception() is None or not waiting:
                    data, seconds = future.result()
                    self._latencies.add(wanted.n_bytes, seconds)
                    if future is not first:
                        self._count(hedges_won=1)
                    return data
            if done:  # one failed; the others may not
                asked = list(waiting)
            elif patience_s is not None and (stalls or self._may_hedge()):
                self._count(**{"stalls" if stalls else "hedges": 1})
                hedged = True
                asked.append(self._submit(wanted))
            else:
                hedged = True  # there is no budget for a hedge: wait until the read has stalled

    def _patience(self, wanted: ByteRange, n_asked: int, *, hedged: bool) -> tuple[float | None, bool]:
        """How long to wait before asking again, None for as long as it takes; and whether the read has stalled then."""
        if n_asked >= MAX_ASKED or self.hurry.is_set():
            return None, False
        usual = self._latencies.quantile_s(wanted.n_bytes, HEDGE_QUANTILE)
        if not hedged and usual is not None and self.options.max_hedge_share:
            return max(MIN_PATIENCE_S, HEDGE_FACTOR * usual), False
        late_s = FIRST_STALL_S if usual is None else max(self.options.stall_s, STALL_FACTOR * usual)
        return late_s * 2 ** (n_asked - 1), True

    def _may_hedge(self) -> bool:
        with self._lock:
            return self._stats.hedges + 1 <= self.options.max_hedge_share * (self._stats.requests + 1) + 1

    def _submit(self, wanted: ByteRange) -> Future[tuple[memoryview, float]]:
        with self._lock:
            if self._pool is None:
                n_threads = self.options.n_threads + N_SPARE_THREADS
                self._pool = ThreadPoolExecutor(n_threads, thread_name_prefix="tensorbank-get")
            return self._pool.submit(self._get, wanted)

    def _get(self, wanted: ByteRange) -> tuple[memoryview, float]:
        """The bytes, and how long they took: only of answers that were waited for is it remembered."""
        started = time.perf_counter()
        data = self.store.get_range(wanted.key, wanted.start, wanted.end)
        return data, time.perf_counter() - started

    def _count(self, **more: float) -> None:
        with self._lock:
            now = {name: getattr(self._stats, name) + n for name, n in more.items()}
            self._stats = replace(self._stats, **now)
