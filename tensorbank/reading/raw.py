"""Raw reads: the most that the store and the network deliver, which a loader's speed is compared with."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tensorbank.fetch import FetchOptions, RangeReader
from tensorbank.plans import Addresses
from tensorbank.ranges import ByteRange
from tensorbank.reading.read_plan import plan_reads

__all__ = ["RawRead", "fetch_raw", "ranges_of"]

N_THREADS = 64
"""The number of threads that fetch, each one request at a time: enough for 30 ms and 500 MB/s in reads of 256 KiB."""


@dataclass(frozen=True, slots=True)
class RawRead:
    """The result of fetching ranges and dropping them."""

    n_requests: int
    n_bytes: int
    seconds: float


def ranges_of(
    addresses: Addresses, batches: Sequence[npt.NDArray[np.int64]], options: FetchOptions
) -> list[ByteRange]:
    """Return the ranges that bring some batches, each of them (n,) positions of samples, in their order. Pure."""
    return [read.range for positions in batches for read in plan_reads(addresses, positions, options)]


def fetch_raw(reader: RangeReader, ranges: Sequence[ByteRange], *, n_threads: int = N_THREADS) -> RawRead:
    """Fetch ranges into memory and drop them: nothing is checked, decoded or asked for again.

    Raises
    ------
    NotFoundError, StorageError
        The first failed request's error.
    """

    def fetch(r: ByteRange) -> int:
        return len(reader.get_range(r.key, r.start, r.end))

    with ThreadPoolExecutor(n_threads, thread_name_prefix="tensorbank-raw") as pool:
        started = time.perf_counter()
        n_bytes = sum(pool.map(fetch, ranges))
        seconds = time.perf_counter() - started
    return RawRead(len(ranges), n_bytes, seconds)
