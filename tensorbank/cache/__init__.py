"""A cache on a local disk: byte ranges of stored objects, verified, within a limit, shared by the processes of a node."""

from __future__ import annotations

from tensorbank.cache.folders import private_folder
from tensorbank.cache.intervals import Interval
from tensorbank.cache.range_cache import CacheStats, RangeCache

__all__ = [
    "RangeCache",
    "CacheStats",
    "Interval",
    "private_folder",
]
