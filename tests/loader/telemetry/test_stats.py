"""A loader's statistics of a run, against clocks and counts of the test's own."""

from __future__ import annotations

import bisect
import math
import pickle
import threading
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.handmade import make
from tensorbank.fetch.fetch_stats import FetchStats
from tensorbank_loader import DataLoader, FetchOptions, LoaderStats
from tensorbank_loader.batch.read_window import MIN_BATCHES_AHEAD, Window
from tensorbank_loader.telemetry.durations import N_BINS, Durations, bin_of, edge_s

SECONDS = st.floats(0, 1e5, allow_nan=False) | st.floats(1e-7, 1e-2)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("part"), 40)


def histogram(values) -> Durations:
    counts = [0] * N_BINS
    for value in values:
        counts[bin_of(value)] += 1
    return Durations(tuple(counts), math.fsum(values))


# ---------------------------------------------------------------- durations


@given(SECONDS)
def test_a_duration_lies_in_its_bin(seconds):
    number = bin_of(seconds)
    low = edge_s(number - 1) if number else 0.0
    assert low * (1 - 1e-12) <= seconds <= edge_s(number) * (1 + 1e-12)


def test_bins_are_9_percent_wide():
    edges = np.array([edge_s(i) for i in range(N_BINS - 1)])
    np.testing.assert_allclose(edges[1:] / edges[:-1], 2 ** (1 / 8))
    assert (edges[0], edges[-1], edge_s(N_BINS - 1)) == (2**-20, 1024, math.inf)


@given(st.lists(st.floats(2e-6, 900), min_size=1, max_size=200), st.floats(0, 1))
def test_quantiles_are_those_of_numpy_to_5_percent(values, q):
    truth = np.quantile(values, q, method="lower")
    rank = math.floor(q * (len(values) - 1))
    assert sorted(values)[rank] == pytest.approx(truth)
    assert histogram(values).quantile_s(q) == pytest.approx(truth, rel=0.05)


def test_of_nothing_and_of_what_is_out_of_range():
    assert Durations().quantile_s(0.5) == 0.0
    assert histogram([0.0, 1e-9]).quantile_s(0.99) == 0.0
    assert histogram([1e5]).quantile_s(0.5) == 1024


@given(st.lists(SECONDS, max_size=100))
def test_cumulative_counts_are_a_histogram(values):
    made = histogram(values)
    upto = made.cumulative()
    assert upto[-1] == (math.inf, len(values) == made.n and made.n)
    edges = [edge for edge, _ in upto]
    assert edges == sorted(set(edges))
    in_order = sorted(values)
    for edge, n in upto[:-1]:
        near = {
            bisect.bisect_left(in_order, edge * (1 - 1e-9)),
            bisect.bisect_right(in_order, edge * (1 + 1e-9)),
        }
        assert min(near) <= n <= max(near)


# ---------------------------------------------------------------- a loader's


def test_everything_of_the_fetcher_is_there_too():
    assert {f.name for f in fields(FetchStats)} < {f.name for f in fields(LoaderStats)}
    stats = LoaderStats(requests=3, batches=2)
    assert pickle.loads(pickle.dumps(stats)) == stats
    with pytest.raises(AttributeError):
        stats.batches = 4


def test_counts_of_an_epoch(made):
    with DataLoader(made.plan, batch_size=7) as loader:
        assert replace(loader.stats(), depth=0) == LoaderStats()
        batches = list(loader)
        stats = loader.stats()
    assert (stats.batches, stats.samples) == (6, 40)
    assert stats.tensor_bytes == sum(b[h.name].nbytes for b in batches for h in made.plan.handles)
    assert stats.gaps.n == 6
    assert stats.gaps.sum_s == stats.wait_s > 0
    assert stats.bytes_read >= stats.bytes_asked > 0
    assert 0 < stats.n_ahead <= MIN_BATCHES_AHEAD, "of the next epoch"
    assert stats.inflight_bytes > 0
    assert (loader.stats().n_ahead, loader.stats().inflight_bytes) == (0, 0)
    assert 0 < stats.gap_p50_s <= stats.gap_p99_s <= 1.05 * stats.wait_s


class Clock:
    """A ``time`` for the loader's module: it stands still unless somebody lets time pass."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


def test_time_is_whose_it_is(made, monkeypatch):
    """The consumer waits 1, 2, 3, ... s for its batches, steps for 10 s each and transforms for 0.5 s."""
    clock = Clock()
    waits = iter(range(1, 100))
    arrive = Window.__next__

    def late(window):
        found = arrive(window)
        clock.now += next(waits)
        return found

    def transform(batch):
        clock.now += 0.5
        return batch

    monkeypatch.setattr("tensorbank_loader.loader.time", clock)
    monkeypatch.setattr("tensorbank_loader.prepared.time", clock)
    monkeypatch.setattr(Window, "__next__", late)
    for _ in (loader := DataLoader(made.plan, batch_size=4, transform=transform)):
        clock.now += 10
    stats = loader.stats()
    assert (stats.batches, stats.wait_s, stats.step_s, stats.transform_s) == (10, 55, 100, 5)
    assert stats.gap_p50_s == pytest.approx(5, rel=0.05)
    assert stats.gap_p99_s == pytest.approx(9, rel=0.05)


def test_what_lies_ahead_is_seen_while_it_does(made):
    options = FetchOptions(max_inflight_bytes=1 << 30)
    with DataLoader(made.plan, batch_size=4, options=options) as loader:
        running = iter(loader)
        next(running)
        stats = loader.stats()
        assert stats.n_ahead >= 1
        assert stats.inflight_bytes >= stats.n_ahead * 4 * sum(h.n_bytes for h in made.plan.handles)
        loader.close()
        assert replace(loader.stats(), n_ahead=0, inflight_bytes=0) == loader.stats()


def test_a_transform_that_takes_the_batch_apart_changes_no_count(made):
    with DataLoader(made.plan, batch_size=8, transform=lambda batch: batch.clear()) as loader:
        assert list(loader) == [None] * 5
        assert loader.stats().samples == 40


def test_another_thread_may_ask_at_any_time(made):
    seen, done = [], threading.Event()
    loader = DataLoader(made.plan, batch_size=1)

    def ask() -> None:
        while not done.is_set():
            seen.append(loader.stats())

    asking = threading.Thread(target=ask)
    asking.start()
    for _ in loader:
        pass
    done.set()
    asking.join()
    assert [s.batches for s in seen] == sorted(s.batches for s in seen)
    assert loader.stats().batches == 40
