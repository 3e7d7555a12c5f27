"""The cache behind the reader and the loader: over a server that counts, in several processes, and when things break."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from dataclasses import replace

import numpy as np
import pytest

from support.handmade import make
from tensorbank.fetch.fetcher import FetchOptions
from tensorbank.plans import StoreAddress
from tensorbank.reading.sample_reader import SampleReader
from tensorbank.testing import Faults, FaultServer
from tensorbank_loader import World

N = 120
BATCH = 8


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    made = make(tmp_path_factory.mktemp("served") / "bank", N)
    with FaultServer(made.folder) as server:
        plan = replace(made.plan, origin=StoreAddress(server.url, server.storage))
        yield server, replace(made, plan=plan)


@pytest.fixture
def options(tmp_path):
    return FetchOptions(cache_dir=tmp_path / "cache", max_gap_bytes=0, max_hedge_share=0.0, stall_s=60.0)


def read_epoch(made, options, seed=None):
    """Read everything in some order and compare it; the reader's counts."""
    order = np.arange(N) if seed is None else np.random.default_rng(seed).permutation(N)
    reader = SampleReader.of(made.plan, options)
    try:
        for first in range(0, N, BATCH):
            at = order[first : first + BATCH]
            for name, tensor in reader.read(at).items():
                np.testing.assert_array_equal(tensor, made.truth[name][at])
        return reader.stats
    finally:
        reader.close()


def wanted_bytes(plan) -> int:
    """Return the bytes that the plan's handles want, each counted once."""
    wanted: dict[str, set[int]] = {}
    for addresses in plan.addresses.values():
        for key, starts, lengths in zip(addresses.shard_of, addresses.starts, addresses.lengths, strict=True):
            if key >= 0:
                for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
                    wanted.setdefault(addresses.shard_keys[key], set()).update(range(start, start + length))
    return sum(map(len, wanted.values()))


def test_the_second_epoch_asks_for_nothing_whatever_its_order(served, options):
    server, made = served
    server.set(Faults())
    first = read_epoch(made, options, seed=1)
    assert server.stats()["counts"]["body_bytes"] == first.bytes_read == wanted_bytes(made.plan)
    assert (first.cache.hits, first.cache.miss_bytes) == (0, first.bytes_read)
    for seed in (2, None):
        server.set(Faults())
        again = read_epoch(made, replace(options, max_gap_bytes=1 << 20), seed=seed)
        assert server.stats()["counts"].get("requests", 0) == 0
        assert (again.requests, again.cache.misses) == (0, 0)
        assert again.cache.hit_bytes == first.bytes_read


def test_a_plan_of_fewer_bands_finds_what_another_has_read(served, options):
    server, made = served
    read_epoch(made, options)
    server.set(Faults())
    few = replace(made.plan, handles=tuple(h for h in made.plan.handles if h.name in ("series", "reordered")))
    read_epoch(replace(made, plan=few), options, seed=3)
    assert server.stats()["counts"].get("requests", 0) == 0


def epochs_of_one(made, options, seed, barrier, results):
    barrier.wait(100)
    results.put(read_epoch(made, options, seed))
    barrier.wait(100)
    results.put(read_epoch(made, options, seed + 10))


@pytest.mark.parametrize("seeds", [(1, 1, 1), (1, 2, 3)], ids=["same order", "other orders"])
def test_processes_of_a_node_fetch_every_byte_once(served, options, seeds):
    server, made = served
    server.set(Faults(latency_ms=5))
    context = multiprocessing.get_context("forkserver")
    barrier, results = context.Barrier(len(seeds)), context.Queue()
    processes = [
        context.Process(target=epochs_of_one, args=(made, options, seed, barrier, results)) for seed in seeds
    ]
    for process in processes:
        process.start()
    stats = [results.get(timeout=200) for _ in range(2 * len(seeds))]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert (
        server.stats()["counts"]["body_bytes"] == wanted_bytes(made.plan) == sum(s.bytes_read for s in stats)
    )
    assert sum(s.cache.waits for s in stats) > 0


def read_for_ever(made, options):
    while True:
        read_epoch(made, options, seed=1)


def test_an_epoch_after_a_kill_is_complete_and_refetches_little(served, options):
    server, made = served
    server.set(Faults(latency_ms=20))
    process = multiprocessing.get_context("forkserver").Process(target=read_for_ever, args=(made, options))
    process.start()
    while server.stats()["counts"].get("requests", 0) < 300:
        assert process.is_alive()
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)
    stats = read_epoch(made, options, seed=1)
    assert stats.cache.hits > 100
    assert stats.cache.dropped == 0
    assert stats.bytes_read < wanted_bytes(made.plan)


def test_damage_on_the_disk_is_fetched_again(served, options):
    server, made = served
    server.set(Faults())
    read_epoch(made, options)
    (segment,) = (options.cache_dir / "v1").glob("*.segment")
    data = bytearray(segment.read_bytes())
    rng = np.random.default_rng(5)
    for bit in rng.integers(0, 8 * len(data), 20).tolist():
        data[bit // 8] ^= 1 << bit % 8
    segment.write_bytes(data)
    server.set(Faults())
    stats = read_epoch(made, options)
    assert 10 <= stats.cache.dropped <= 20
    assert stats.requests <= stats.cache.dropped
    server.set(Faults())
    assert read_epoch(made, options).requests == 0
    assert server.stats()["counts"].get("requests", 0) == 0


def test_what_the_network_flipped_is_not_kept(served, options):
    server, made = served
    server.set(Faults(flipped=0.02, once=True, seed=5))
    first = read_epoch(made, options)
    flipped = server.stats()["counts"]["flipped"]
    assert flipped > 5
    assert flipped <= first.refetches <= 2 * flipped  # two handles share some blocks
    server.set(Faults())
    again = read_epoch(made, options)
    assert again.refetches == 0
    # Good blocks that came in one answer with a bad one may have been dropped along with it: one stretch a flip, at most.
    assert again.requests <= flipped
    assert again.bytes_read < first.bytes_read // 10


def test_a_full_disk_turns_the_cache_off_and_the_epoch_goes_on(served, options, monkeypatch, caplog):
    server, made = served
    server.set(Faults())
    pwritev = os.pwritev
    left = [30]

    def full_after_some(file, buffers, position):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        return pwritev(file, buffers, position)

    monkeypatch.setattr("tensorbank.cache.segments.os.pwritev", full_after_some)
    with caplog.at_level(logging.WARNING):
        stats = read_epoch(made, options)
    assert stats.bytes_read == wanted_bytes(made.plan)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "No space left" in caplog.text


def test_the_limit_holds_over_epochs(served, options):
    server, made = served
    server.set(Faults())
    limit = wanted_bytes(made.plan) // 2
    some = replace(options, cache_bytes=limit)
    for seed in range(3):
        stats = read_epoch(made, some, seed=seed)
        assert sum(f.stat().st_size for f in (options.cache_dir / "v1").glob("*.segment")) <= limit
        assert stats.cache.hit_bytes + stats.bytes_read == wanted_bytes(made.plan)
    assert stats.cache.hit_bytes > 0.45 * wanted_bytes(made.plan)


def rank_epochs(made, options, rank, barrier, results):
    seen = []
    with made.plan.dataloader(batch_size=4, seed=3, world=World(rank, 2), options=options) as loader:
        for _ in range(2):
            seen.append([name for batch in loader for name in batch["sample_id"]])
            barrier.wait(100)
    results.put((rank, seen, loader.stats().requests))


def test_ranks_of_a_node_share_it_through_the_loader(served, options):
    """In the second epoch each rank reads what the other had read in the first."""
    server, made = served
    server.set(Faults())
    context = multiprocessing.get_context("forkserver")
    barrier, results = context.Barrier(2), context.Queue()
    processes = [
        context.Process(target=rank_epochs, args=(made, options, rank, barrier, results)) for rank in range(2)
    ]
    for process in processes:
        process.start()
    found = [results.get(timeout=200) for _ in processes]
    for process in processes:
        process.join(60)
    for epoch in range(2):
        names = [name for _, seen, _ in found for name in seen[epoch]]
        assert len(names) == len(set(names)) == N
    assert server.stats()["counts"]["body_bytes"] == wanted_bytes(made.plan)
    assert server.stats()["counts"]["requests"] == sum(requests for *_, requests in found)
