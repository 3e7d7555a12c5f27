"""Epochs over a server that misbehaves: complete, exact, and not much slower."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections import deque
from dataclasses import replace

import numpy as np
import pytest

from support.handmade import make
from tensorbank import IntegrityError, StorageError
from tensorbank.fetch import FetchOptions, FetchStats, range_requests, tries
from tensorbank.plans import StoreAddress
from tensorbank.reading import BatchRead, SampleReader
from tensorbank.testing import Faults, FaultServer

N = 240
BATCH = 8
AHEAD = 10
APART = FetchOptions(max_gap_bytes=0, max_read_bytes=1)  # one request a run of blocks: many requests


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    made = make(tmp_path_factory.mktemp("served") / "bank", N)
    with FaultServer(made.folder) as server:
        plan = replace(made.plan, origin=StoreAddress(server.url, server.storage))
        yield server, replace(made, plan=plan)


def epoch(served, faults: Faults, options: FetchOptions = APART) -> tuple[float, FetchStats, dict[str, int]]:
    """Read everything, compare it, and tell how long it took, what was counted here and what there."""
    server, made = served
    server.set(faults)
    reader = SampleReader.of(made.plan, options)
    started = time.perf_counter()
    try:
        coming: deque[tuple[np.ndarray, dict[str, np.ndarray], BatchRead]] = deque()
        for first in range(0, N + AHEAD * BATCH, BATCH):
            if first < N:
                at = np.arange(first, min(first + BATCH, N))
                out = {h.name: np.empty((len(at), *h.shape), h.modality.dtype) for h in made.plan.handles}
                coming.append((at, out, reader.submit(at, out)))
            if first >= AHEAD * BATCH:
                at, out, read = coming.popleft()
                read.wait()
                for name, tensor in out.items():
                    np.testing.assert_array_equal(tensor, made.truth[name][at])
        return time.perf_counter() - started, reader.stats, server.stats()["counts"]
    finally:
        reader.close()


def test_a_sound_server_is_asked_once_for_everything(served):
    _, stats, counts = epoch(served, Faults())
    assert counts["requests"] == stats.requests + stats.hedges + stats.stalls
    assert stats.hedges <= 0.02 * stats.requests + 3 * stats.hedges_won + 2
    assert (stats.refetches, stats.retries) == (0, 0)
    assert 0 < stats.latency_p50_s <= stats.latency_p99_s


@pytest.mark.parametrize(
    "faults",
    [
        Faults(unavailable=0.1, seed=1),
        Faults(reset=0.1, seed=2),
        Faults(cut=0.34, seed=3),
        Faults(latency_ms=2, jitter_ms=2, unavailable=0.03, reset=0.03, cut=0.03, seed=4),
    ],
    ids=["503", "reset", "cut", "all"],
)
def test_everything_arrives_in_spite_of(served, faults):
    _, stats, counts = epoch(served, faults)
    n_faults = sum(counts.get(k, 0) for k in ("unavailable", "reset", "cut"))
    assert n_faults > 10
    # Whatever the server sees is an answer, another try, or a request beside a late one; 503 is followed by the question for
    # how long.
    n_asked = stats.requests + stats.retries + stats.hedges + stats.stalls
    assert counts["requests"] <= n_asked + counts.get("unavailable", 0)
    assert stats.retries <= n_faults
    n_cut_bytes = (
        counts.get("cut", 0) * stats.bytes_read / stats.requests / 2
    )  # a cut body ends in its middle
    assert counts["body_bytes"] <= 1.25 * (stats.bytes_read + n_cut_bytes)


def test_reads_that_hang_are_asked_for_again(served):
    """The server holds 5 % of the answers back for 15 s; waiting for them would take minutes."""
    usual_s, *_ = epoch(served, Faults(latency_ms=5))
    late_s, stats, counts = epoch(served, Faults(latency_ms=5, slow=0.05, slow_s=15, seed=5))
    assert counts["slow"] > 20
    assert stats.hedges_won > 0
    assert stats.hedges + stats.stalls >= counts["slow"] // 2
    assert stats.hedges <= 0.02 * stats.requests + 3 * stats.hedges_won + 2
    assert late_s < usual_s + 15


def test_a_request_that_hangs_keeps_no_memory(served):
    """Let answers come from second requests; the first ones are under way for longer than the batch is."""
    server, made = served
    server.set(Faults(slow=0.1, slow_s=15, seed=5))
    reader = SampleReader.of(made.plan, APART)
    try:
        at = np.arange(64)
        out = {h.name: np.empty((64, *h.shape), h.modality.dtype) for h in made.plan.handles}
        kept = [weakref.ref(tensor) for tensor in out.values()]
        read = reader.submit(at, out)
        read.wait()
        read.wait()  # it is over, and stays so
        assert reader.stats.hedges_won > 0
        del out
        gc.collect()
        assert [ref() for ref in kept] == [None] * len(kept)
    finally:
        reader.close()


def test_bodies_that_stop_half_way_are_asked_for_again(served):
    elapsed_s, stats, counts = epoch(served, Faults(stalled=0.03, stall_s=15, seed=6))
    assert counts["stalled"] > 10
    assert stats.hedges_won > 0
    assert elapsed_s < 15


def test_every_flipped_bit_is_caught(served):
    _, stats, counts = epoch(served, Faults(flipped=0.02, once=True, seed=11))
    assert counts["flipped"] > 5
    assert counts["flipped"] <= stats.refetches <= 2 * counts["flipped"]  # two handles share some blocks


def test_what_is_flipped_again_names_object_and_sample(served):
    server, made = served
    server.set(Faults(flipped=1.0))
    reader = SampleReader.of(made.plan, APART)
    try:
        with pytest.raises(
            IntegrityError, match=r"c/\d+/0/0/0/0 is damaged in bytes .* number 3 of the plan"
        ):
            reader.read(np.array([3]))
    finally:
        reader.close()


def test_a_store_that_is_away_for_a_while_ends_no_epoch(served, monkeypatch):
    """Longer than any number of tries with pauses of a millisecond would take."""
    monkeypatch.setattr(tries, "FIRST_PAUSE_S", 0.001)
    server, _ = served
    back = threading.Timer(3.0, server.set, [Faults()])
    back.start()
    elapsed_s, stats, _ = epoch(served, Faults(reset=1.0))
    back.join()
    assert stats.retries > 0
    assert stats.away_s == 0
    assert 2.5 < elapsed_s < 20


@pytest.mark.parametrize(
    "faults",
    [Faults(reset=1.0), Faults(throttled=1.0), Faults(stalled=1.0, stall_s=60)],
    ids=["reset", "throttled", "stalled"],
)
def test_a_store_that_stays_away_is_an_error_within_the_stated_time(served, monkeypatch, faults):
    monkeypatch.setattr(range_requests, "LAST_TRY_S", 0.5)
    started = time.monotonic()
    with pytest.raises(StorageError, match="bank") as caught:
        epoch(served, faults, replace(APART, patience_s=1.5))
    assert caught.value.kind in ("unreachable", "throttled")
    assert 1.4 < time.monotonic() - started < 1.5 + 0.5 + 2


def test_credentials_that_expire_are_an_error_and_no_hang(served):
    with pytest.raises(StorageError, match="access") as caught:
        epoch(served, Faults(denied_after=20))
    assert caught.value.kind == "denied"


def test_without_hedges_nothing_is_asked_twice(served):
    _, stats, counts = epoch(
        served, Faults(jitter_ms=3, seed=8), replace(APART, max_hedge_share=0.0, stall_s=60)
    )
    assert (stats.hedges, stats.stalls) == (0, 0)
    assert counts["requests"] == stats.requests
