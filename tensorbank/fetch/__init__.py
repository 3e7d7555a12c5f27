"""Many byte ranges at once: how many are under way, when one is late and asked for again, and what was delivered."""

from __future__ import annotations

from tensorbank.fetch.fetch_stats import FetchStats
from tensorbank.fetch.fetcher import Fetcher, FetchOptions
from tensorbank.fetch.range_reader import RangeReader
from tensorbank.fetch.range_requests import FIRST_PAUSE_S, MAX_PAUSE_WHEN_AWAY_S, PATIENCE_S, Wanted
from tensorbank.fetch.read_group import Pending

__all__ = [
    "FIRST_PAUSE_S",
    "FetchOptions",
    "FetchStats",
    "Fetcher",
    "MAX_PAUSE_WHEN_AWAY_S",
    "PATIENCE_S",
    "Pending",
    "RangeReader",
    "Wanted",
]
