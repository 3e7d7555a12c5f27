"""Reads of byte ranges, counted. Whether the bytes are sound is the reader's to find out: blocks carry their checksum."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, replace

from tensorbank.errors import StorageError
from tensorbank.store import Store

__all__ = ["FetchOptions", "FetchStats", "Fetcher"]

N_TRIES = 4
FIRST_PAUSE_S = 0.2


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """How to read.

    Parameters
    ----------
    max_gap_bytes
        Largest hole that is read through rather than asked around: what a connection of 100 MB/s carries in a few ms.
    max_amplification
        Bytes read to bytes wanted within one read, at most.
    max_read_bytes
        Largest joined read, so that decoding starts early and spreads over threads.
    max_inflight_bytes
        Stored bytes asked for and not yet consumed; at least the batch that is waited for and the next are always asked.
    n_threads
        Reads in flight at once; each decodes what it read.
    """

    max_gap_bytes: int = 256 << 10
    max_amplification: float = 1.25
    max_read_bytes: int = 8 << 20
    max_inflight_bytes: int = 256 << 20
    n_threads: int = 16


@dataclass(frozen=True, slots=True)
class FetchStats:
    """Counts since the fetcher was made. ``bytes_read`` includes holes, ``refetches`` are reads made again for a bad block."""

    requests: int = 0
    bytes_read: int = 0
    refetches: int = 0
    retries: int = 0


class Fetcher:
    """Reads ranges of a store's objects. May be called from many threads at once."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._stats = FetchStats()
        self._lock = threading.Lock()

    @property
    def stats(self) -> FetchStats:
        with self._lock:
            return self._stats

    def fetch(self, key: str, start: int, end: int, *, again: bool = False) -> memoryview:
        """Bytes ``[start, end)`` of an object; ``again`` counts as a refetch.

        The store's client has retried 5xx and broken connections already; what it gives up (429 among it) is tried a few
        times more, with growing, jittered pauses.

        Raises
        ------
        NotFoundError, StorageError
            The object is gone, access is refused, or the store kept failing.
        """
        for attempt in range(N_TRIES):
            try:
                data = self.store.get_range(key, start, end)
            except StorageError as error:
                if attempt == N_TRIES - 1 or error.kind not in ("unreachable", "short-read"):
                    raise
                self._count(retries=1)
                time.sleep(FIRST_PAUSE_S * 2**attempt * random.uniform(0.5, 1.5))  # jitter, not cryptography
            else:
                self._count(requests=1, bytes_read=end - start, refetches=int(again))
                return data
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _count(self, **more: int) -> None:
        with self._lock:
            now = {name: getattr(self._stats, name) + n for name, n in more.items()}
            self._stats = replace(self._stats, **now)
