"""Reads of a store that are timed one by one, and a reader of bytes that lie in memory, whose reads cost nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tensorbank.fetch import RangeReader
from tensorbank.ranges import ByteRange

__all__ = ["Kept", "TimedReads", "kept", "timed_reads"]


@dataclass(frozen=True, slots=True)
class TimedReads:
    """Reads that were made: their seconds one by one, and those of the wall clock and of all CPUs for all of them."""

    seconds: tuple[float, ...]
    wall_s: float
    cpu_s: float
    n_bytes: int


def timed_reads(
    reader: RangeReader, ranges: Sequence[ByteRange], *, n_threads: int, within_s: float
) -> TimedReads:
    """Read ranges in threads and drop the bytes, until all are read or the time is over.

    Raises
    ------
    NotFoundError, StorageError
        The first failed request's error.
    """
    lock = threading.Lock()
    left = iter(ranges)
    until_s = time.perf_counter() + within_s

    def next_range() -> ByteRange | None:
        with lock:
            return next(left, None) if time.perf_counter() < until_s else None

    def work() -> list[tuple[float, int]]:
        found = []
        while (r := next_range()) is not None:
            started_s = time.perf_counter()
            n_bytes = len(reader.get_range(r.key, r.start, r.end))
            found.append((time.perf_counter() - started_s, n_bytes))
        return found

    with ThreadPoolExecutor(n_threads, thread_name_prefix="tensorbank-timed") as pool:
        started_s, cpu_s = time.perf_counter(), time.process_time()
        futures = [pool.submit(work) for _ in range(n_threads)]
        made = [item for future in futures for item in future.result()]
        cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - started_s
    return TimedReads(tuple(s for s, _ in made), wall_s, cpu_s, sum(n for _, n in made))


@dataclass(frozen=True, slots=True)
class Kept:
    """A reader of ranges that lie in memory, by key, start and end. Keeps :class:`tensorbank.fetch.RangeReader`."""

    url: str
    ranges: Mapping[tuple[str, int, int], bytes]

    @property
    def cache_name(self) -> str:
        return self.url

    @property
    def is_local(self) -> bool:
        return True

    def get_range(self, key: str, start: int, end: int) -> memoryview:
        return memoryview(self.ranges[key, start, end])


def kept(
    reader: RangeReader, ranges: Sequence[ByteRange], *, within_s: float
) -> Iterator[tuple[ByteRange, bytes]]:
    """Yield ranges with their bytes, as many as come within a time, and one at least."""
    until_s = time.perf_counter() + within_s
    for number, r in enumerate(ranges):
        if number and time.perf_counter() > until_s:
            return
        yield r, bytes(reader.get_range(r.key, r.start, r.end))
