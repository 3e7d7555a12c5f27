"""The bytes, requests and times that reads took, as a value."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from tensorbank.cache import CacheStats
from tensorbank.fetch.races import Wanted

__all__ = ["FetchCounts", "FetchStats"]


@dataclass(frozen=True, slots=True)
class FetchStats:
    """The counts since the fetcher was made.

    Parameters
    ----------
    requests
        Ranges that arrived.
    bytes_read
        Size of the reads, holes and refetches included.
    bytes_asked
        Bytes of blocks that somebody wanted; ``bytes_read / bytes_asked`` is the amplification.
    refetches
        Reads made again for a bad block.
    retries
        Tries made again for an error of the store.
    hedges, hedges_won
        Second requests for late reads, and those that were first to answer.
    stalls
        Requests made again since nothing came.
    fetch_s
        Time spent in requests and pauses, summed over threads.
    latency_p50_s, latency_p99_s
        Seconds of the reads of the recent past.
    depth
        Reads that are kept under way at present.
    away_s
        Seconds that no read has been answered by a store that is out of reach or busy; 0 while it answers.
    cache
        Counts of the cache on the local disk; all 0 without one. What it gave is in no other count.
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
    depth: int = 0
    away_s: float = 0.0
    cache: CacheStats = field(default_factory=CacheStats)

    def __add__(self, other: FetchStats) -> FetchStats:
        """Return the statistics of two fetchers together.

        Counts, bytes and times add up, and so does the depth: both fetchers' reads are under way. Of latencies and of the time
        that a store has been away the larger one stands: the slower store is the one that is waited for.
        """
        return FetchStats(
            requests=self.requests + other.requests,
            bytes_read=self.bytes_read + other.bytes_read,
            bytes_asked=self.bytes_asked + other.bytes_asked,
            refetches=self.refetches + other.refetches,
            retries=self.retries + other.retries,
            hedges=self.hedges + other.hedges,
            hedges_won=self.hedges_won + other.hedges_won,
            stalls=self.stalls + other.stalls,
            fetch_s=self.fetch_s + other.fetch_s,
            latency_p50_s=max(self.latency_p50_s, other.latency_p50_s),
            latency_p99_s=max(self.latency_p99_s, other.latency_p99_s),
            depth=self.depth + other.depth,
            away_s=max(self.away_s, other.away_s),
            cache=self.cache + other.cache,
        )


@dataclass(slots=True)
class FetchCounts:
    """The counts of one reader, which go up. For one thread at a time; their meaning is that of :class:`FetchStats`."""

    requests: int = 0
    bytes_read: int = 0
    bytes_asked: int = 0
    refetches: int = 0
    hedges: int = 0
    hedges_won: int = 0
    stalls: int = 0
    fetch_s: float = 0.0

    def record(self, wanted: Wanted, n_bytes: int, seconds: float, *, is_hedge: bool) -> None:
        """Count an answer of ``n_bytes``, which came ``seconds`` after the range was first asked for."""
        self.requests += 1
        self.bytes_read += n_bytes
        self.bytes_asked += wanted.n_asked_bytes
        self.refetches += wanted.again
        self.hedges_won += is_hedge
        self.fetch_s += seconds

    def stats(
        self, *, retries: int, latencies_s: tuple[float, float], depth: int, away_s: float
    ) -> FetchStats:
        """Return the counts as a value, with what others count and measure."""
        p50, p99 = latencies_s
        return FetchStats(
            **asdict(self),
            retries=retries,
            latency_p50_s=p50,
            latency_p99_s=p99,
            depth=depth,
            away_s=away_s,
        )
