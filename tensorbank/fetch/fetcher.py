"""Reads of byte ranges: from the store, or from a cache on the local disk.

Whether the bytes are sound is the reader's to find out: blocks carry their checksum.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from tensorbank.arguments import choice, instance, number, whole_number
from tensorbank.cache import Interval, RangeCache
from tensorbank.errors import ErrorKind, StorageError, as_error
from tensorbank.fetch.concurrency import MAX_DEPTH
from tensorbank.fetch.fetch_stats import FetchStats
from tensorbank.fetch.races import Wanted
from tensorbank.fetch.range_reader import RangeReader
from tensorbank.fetch.range_requests import PATIENCE_S, SILENCE_S, Requests
from tensorbank.fetch.read_group import ReadGroup, forked
from tensorbank.fetch.threads import ReadingThreads
from tensorbank.ranges import ByteRange, coalesce
from tensorbank.storage import PASSING

__all__ = ["FetchOptions", "FetchStats", "Fetcher"]

N_LOOKING = 4
"""The number of threads that look into the cache, beside one for each request that may be under way, which waits for what is
missing. A look takes a tenth of a millisecond, and more threads would only wait for the interpreter."""


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """The options of reading.

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
        Reads in flight at once; each decodes what it read. None: as many as the measured latency and rate ask for.
    max_hedge_share
        Second requests for late reads, as a share of all requests, while they come no sooner than the first; 0 to wait. Each
        that comes sooner shows that single answers are late, and not the store as a whole, and allows for up to three more,
        32 ahead of the evidence at most; each that does not, and each read that is not late, takes some of that away.
    stall_s
        Seconds after which a read counts as stalled at the earliest: three times what is usual, but not less. Of stalled
        reads one at a time is asked for again whatever the share, ever more rarely while nothing is answered.
    patience_s
        Seconds that a read waits for a store, or a service, that is out of reach or busy; then its error is
        raised. Waiting is logged, and counted as ``away_s``.
    on_error
        Treatment of a sample whose bytes are damaged or gone for good: ``"raise"``, or ``"skip"``: the batch keeps its
        size, the fill value stands in for the modality, the batch's mask says so, and it is logged and counted. A store that
        cannot be reached is always an error.
    cache_dir
        Folder on a local disk that keeps bytes for later epochs, shared by all processes of the node; None for none.
        See :mod:`tensorbank.cache.range_cache`.
    cache_bytes
        Most bytes that the folder may hold, written by all processes together.

    Raises
    ------
    InvalidInputError
        A limit makes no sense.
    """

    max_gap_bytes: int = 256 << 10
    max_amplification: float = 1.25
    max_read_bytes: int = 8 << 20
    max_inflight_bytes: int = 1 << 30
    n_threads: int | None = None
    max_hedge_share: float = 0.02
    stall_s: float = 0.1
    patience_s: float = PATIENCE_S
    on_error: Literal["raise", "skip"] = "raise"
    cache_dir: str | os.PathLike[str] | None = None
    cache_bytes: int = 64 << 30

    def __post_init__(self) -> None:
        choice("on_error", self.on_error, ("raise", "skip"))
        number("max_gap_bytes", self.max_gap_bytes, at_least=0)
        number("max_amplification", self.max_amplification, at_least=1, finite=False)
        number("max_read_bytes", self.max_read_bytes, at_least=1)
        number("max_inflight_bytes", self.max_inflight_bytes, at_least=0)
        if self.n_threads is not None:
            whole_number("n_threads", self.n_threads, at_least=1, at_most=MAX_DEPTH)
        number("max_hedge_share", self.max_hedge_share, at_least=0, at_most=1)
        number("stall_s", self.stall_s, above=0, finite=False)
        number("patience_s", self.patience_s, at_least=0)
        if self.cache_dir is not None:
            instance("cache_dir", self.cache_dir, (str, os.PathLike), "give the path of a folder, or None")
        number("cache_bytes", self.cache_bytes, at_least=1)


class Fetcher:
    """A reader of many ranges at once, in threads of its own. May be called from many threads at once.

    It pickles: threads, connections and counts stay behind, and threads are made anew on use.

    Parameters
    ----------
    ranges
        Reader of the ranges.
    options
        Options of reading.
    """

    def __init__(self, ranges: RangeReader, options: FetchOptions | None = None) -> None:
        self.ranges = ranges
        self.options = o = options or FetchOptions()
        self._requests = Requests(
            ranges,
            n_threads=o.n_threads,
            max_hedge_share=o.max_hedge_share,
            stall_s=o.stall_s,
            patience_s=o.patience_s,
        )
        self._cache = RangeCache(Path(o.cache_dir).expanduser(), o.cache_bytes) if o.cache_dir else None
        self._serving: ReadingThreads | None = None
        self._groups: weakref.WeakSet[ReadGroup] = weakref.WeakSet()
        self._pid = 0
        self._n_over = 0

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.ranges, self.options))

    @property
    def stats(self) -> FetchStats:
        """The counts so far, and what is measured at present."""
        self._check_process()
        stats = self._requests.stats
        return stats if self._cache is None else replace(stats, cache=self._cache.stats)

    def submit(self, n: int, wanted: Callable[[int], Wanted]) -> ReadGroup:
        """Start reads as :meth:`Requests.submit` does. The cache is asked first, and keeps what is read."""
        if self._cache is None:
            return self._requests.submit(n, wanted)
        threads = self._open()
        silence_s = (
            self.options.patience_s + 2 * SILENCE_S
        )  # the requests behind the cache have told theirs by then
        group = ReadGroup(n, stall_s=silence_s, beats=lambda: self._n_over)
        self._groups.add(group)
        jobs = (partial(self._serve, self._cache, number, wanted, group) for number in group.numbers())
        threads.submit(jobs, n)
        return group

    def fetch(self, wanted: ByteRange, *, n_asked_bytes: int = 0, again: bool = False) -> memoryview:
        """Read a range at once.

        Parameters
        ----------
        again
            This repeats a read that brought a bad block: the cache forgets it.

        Raises
        ------
        NotFoundError, StorageError
            The object is gone, access is refused, or the store kept failing.
        """
        self._check_process()
        ask = self._requests.now
        if self._cache is None:
            return _brought(ask, wanted, n_asked_bytes, again=again)
        if again:
            self._cache.drop(self._address(wanted), (wanted.start, wanted.end))
        return self._from_cache(self._cache, wanted, (), ask, again=again)

    def close(self) -> None:
        """Drop reads that are not answered, wait for those that are, and let the threads end.

        The fetcher can be used again.
        """
        if self._pid not in (0, os.getpid()):
            return  # the threads are another process's, and so may be the locks
        serving, self._serving = self._serving, None
        for group in list(self._groups):
            group.cancel()
        if serving is not None:
            serving.dismiss()
        self._requests.close()
        if serving is not None:
            serving.close()

    def _check_process(self) -> None:
        if self._pid not in (0, os.getpid()):
            raise forked()

    def _open(self) -> ReadingThreads:
        self._check_process()
        if self._serving is None:
            requests = self._requests
            self._serving = ReadingThreads(lambda: requests.depth + N_LOOKING)
            self._pid = os.getpid()
        return self._serving

    def _serve(
        self, cache: RangeCache, number: int, wanted: Callable[[int], Wanted], group: ReadGroup
    ) -> None:
        """Hand on what the cache has, and what it lacks once it has come."""
        error: Exception | None = None
        try:
            this = wanted(number)
            ask = partial(self._requests.in_turn, within=group)
            this.deliver(self._from_cache(cache, this.range, this.spans, ask))
        except BaseException as failed:  # noqa: BLE001 - the edge of a thread: whoever waits gets it
            error = as_error(failed)
            if isinstance(error, StorageError) and error.kind in PASSING:
                group.cancel()
            if group.is_cancelled and isinstance(error, StorageError) and error.kind == ErrorKind.CLOSED:
                error = None  # it was not asked for, like those whose turn never came
        self._n_over += 1
        group.end(number, error)

    def _from_cache(
        self,
        cache: RangeCache,
        wanted: ByteRange,
        spans: Sequence[Interval],
        ask: Callable[[Wanted], None],
        *,
        again: bool = False,
    ) -> memoryview:
        def bring(missing: Sequence[Interval]) -> Iterable[tuple[int, memoryview]]:
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
                yield a, _brought(ask, ByteRange(wanted.key, a, b), n, again=again)

        whole = (wanted.start, wanted.end)
        return cache.read(self._address(wanted), whole, spans or [whole], bring)

    def _address(self, wanted: ByteRange) -> str:
        return f"{self.ranges.cache_name}/{wanted.key}"


def _brought(
    ask: Callable[[Wanted], None], wanted: ByteRange, n_asked_bytes: int, *, again: bool
) -> memoryview:
    """Return the bytes of a range, by a function that asks for one and returns when it is there."""
    found: list[memoryview] = []
    ask(Wanted(wanted, found.append, n_asked_bytes, again=again))
    return found[0]
