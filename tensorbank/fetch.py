"""Reads of byte ranges, counted. Whether the bytes are sound is the reader's to find out: blocks carry their checksum."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, replace

from tensorbank.errors import InvalidInputError, StorageError
from tensorbank.ranges import ByteRange
from tensorbank.store import Store

__all__ = ["FetchOptions", "FetchStats", "Fetcher"]

N_TRIES = {"unreachable": 4, "short-read": 2}
"""Tries by kind of error. A short read is the object's fault far more often than the network's, so it has one more only."""

FIRST_PAUSE_S = 0.5
"""Before the second try; doubled each time. The store's client has spent about a second on retries of its own by then."""


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

    def __post_init__(self) -> None:
        if self.n_threads < 1 or self.max_read_bytes < 1:
            raise InvalidInputError(f"n_threads and max_read_bytes must be at least 1, got {self}")
        if self.max_gap_bytes < 0 or self.max_inflight_bytes < 0 or not self.max_amplification >= 1:
            raise InvalidInputError(
                f"max_gap_bytes and max_inflight_bytes must not be negative, max_amplification not below 1, got {self}"
            )


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
    fetch_s
        Time spent in requests and pauses, summed over threads.
    """

    requests: int = 0
    bytes_read: int = 0
    bytes_asked: int = 0
    refetches: int = 0
    retries: int = 0
    fetch_s: float = 0.0


class Fetcher:
    """Reads ranges of a store's objects. May be called from many threads at once.

    Setting ``hurry`` ends pauses between tries: the error at hand is raised instead of one more try.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.hurry = threading.Event()
        self._stats = FetchStats()
        self._lock = threading.Lock()

    @property
    def stats(self) -> FetchStats:
        with self._lock:
            return self._stats

    def fetch(self, wanted: ByteRange, *, n_asked_bytes: int = 0, again: bool = False) -> memoryview:
        """The bytes of a range, read-only.

        The store's client has retried 429, 5xx and broken connections already; what it gives up is tried a few times more,
        with growing, jittered pauses.

        Parameters
        ----------
        n_asked_bytes
            How many of them hold wanted blocks, for the statistics.
        again
            This repeats a read that brought a bad block, for the statistics.

        Raises
        ------
        NotFoundError, StorageError
            The object is gone, access is refused, or the store kept failing.
        """
        started = time.perf_counter()
        attempt = 1
        while True:
            try:
                data = self.store.get_range(wanted.key, wanted.start, wanted.end)
            except StorageError as error:
                pause_s = (
                    FIRST_PAUSE_S * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)
                )  # jitter, not cryptography
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

    def _count(self, **more: float) -> None:
        with self._lock:
            now = {name: getattr(self._stats, name) + n for name, n in more.items()}
            self._stats = replace(self._stats, **now)
