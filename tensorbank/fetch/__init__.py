"""Many byte ranges at once: how many are under way, when one is late and asked for again, and what was delivered."""

from __future__ import annotations

from tensorbank.fetch.fetch_stats import FetchStats
from tensorbank.fetch.fetcher import Fetcher, FetchOptions
from tensorbank.fetch.races import Wanted
from tensorbank.fetch.range_reader import RangeReader
from tensorbank.fetch.range_requests import PATIENCE_S
from tensorbank.fetch.read_group import ReadGroup
from tensorbank.fetch.tries import range_policies

__all__ = [
    "FetchOptions",
    "FetchStats",
    "Fetcher",
    "PATIENCE_S",
    "RangeReader",
    "ReadGroup",
    "Wanted",
    "range_policies",
]
