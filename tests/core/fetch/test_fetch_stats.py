"""Statistics of several fetchers: what adds up, and what the worse of two tells."""

from __future__ import annotations

from dataclasses import fields

from tensorbank.cache import CacheStats
from tensorbank.fetch import FetchStats

LARGER = {"latency_p50_s", "latency_p99_s", "away_s"}


def test_counts_add_up_and_the_slower_store_tells():
    numbers = [f.name for f in fields(FetchStats) if f.name != "cache"]
    counts = [f.name for f in fields(CacheStats)]
    one = FetchStats(
        **{name: 10 + i for i, name in enumerate(numbers)},
        cache=CacheStats(**{name: 50 + i for i, name in enumerate(counts)}),
    )
    two = FetchStats(**dict.fromkeys(numbers, 100), cache=CacheStats(**dict.fromkeys(counts, 1000)))
    for both in (one + two, two + one):
        for i, name in enumerate(numbers):
            assert getattr(both, name) == (100 if name in LARGER else 110 + i), name
        for i, name in enumerate(counts):
            assert getattr(both.cache, name) == 1050 + i, name
    assert set(numbers) > LARGER


def test_nothing_is_neutral():
    one = FetchStats(requests=3, latency_p50_s=0.1, cache=CacheStats(hits=2))
    assert one + FetchStats() == one
