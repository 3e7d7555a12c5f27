"""Measure whether a byte crosses the network once:
a second epoch on a cache, and two processes of a node that share one.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from statistics import median

from stream.figure import Figure, paired
from stream.runs import SEED, WORLD, stream
from stream.serving import fault_server
from stream.setup import Setup
from tensorbank import Plan
from tensorbank.fetch.fetcher import FetchOptions
from tensorbank.testing import Faults
from tensorbank_loader import StreamingDataset

__all__ = ["measure"]

NETWORK = Faults(latency_ms=20, bandwidth_bytes_s=1e8)
EPOCH_BYTES = 3e8
N_PROCESSES = 2
PATIENCE_S = 300.0
NEVER_TWICE = FetchOptions(max_gap_bytes=0, max_hedge_share=0.0, stall_s=60.0)
"""The options without holes and second requests for late reads: what they cost is theirs, not the cache's."""


def measure(setup: Setup) -> Iterator[Figure]:
    """Measure the requests of a second epoch, its time, and the bytes that two processes fetch."""
    whole = setup.plan()
    # Each sample once: what is wanted twice would be cached within the first epoch.
    n = min(len(setup.sized(whole, EPOCH_BYTES)), len(whole))
    local = replace(whole, table=whole.table.slice(0, n).combine_chunks())
    with fault_server(setup.folder, NETWORK) as (server, origin):
        plan = origin.plan(local)
        options = replace(NEVER_TWICE, cache_dir=setup.scratch / "cache")
        dataset = _dataset(plan, setup.batch_size, options)
        for _ in dataset:
            pass
        server.set(NETWORK)
        for _ in dataset:
            pass
        requests = server.stats()["counts"].get("requests", 0)
        yield Figure(
            "cache",
            "requests of a second epoch",
            float(requests),
            "requests",
            target=0.0,
            bound="<=",
            judged="value",
            detail={"samples": len(plan)},
        )
        cached = [stream(plan, setup.batch_size, options=options).last for _ in range(setup.repeats)]
        remote = [stream(plan, setup.batch_size).last for _ in range(setup.repeats)]
        yield Figure(
            "cache",
            "an epoch from the cache",
            median(r.mb_s for r in cached),
            "MB/s",
            median(r.mb_s for r in remote),
            paired([r.mb_s for r in cached], [r.mb_s for r in remote]),
            detail={"network": "100 MB/s, 20 ms"},
        )
        server.set(NETWORK)
        _at_once(plan, setup.batch_size, replace(NEVER_TWICE, cache_dir=setup.scratch / "shared"))
        counts = server.stats()["counts"]
        yield Figure(
            "cache",
            f"{N_PROCESSES} processes that read everything",
            counts["body_bytes"] / 1e6,
            "MB",
            plan.read_bytes / 1e6,
            counts["body_bytes"] / plan.read_bytes,
            1.0,
            "<=",
            detail={"requests": counts["requests"]},
        )


def _dataset(plan: Plan, batch_size: int, options: FetchOptions) -> StreamingDataset:
    return StreamingDataset(plan, global_batch_size=batch_size, seed=SEED, world=WORLD, options=options)


def _at_once(plan: Plan, batch_size: int, options: FetchOptions) -> None:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(N_PROCESSES)
    processes = [
        context.Process(target=_read_everything, args=(plan, batch_size, options, barrier))
        for _ in range(N_PROCESSES)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise RuntimeError("a process that shares the cache failed; its error stands above")


def _read_everything(plan: Plan, batch_size: int, options: FetchOptions, barrier: Barrier) -> None:
    barrier.wait(PATIENCE_S)
    for _ in _dataset(plan, batch_size, options):
        pass
