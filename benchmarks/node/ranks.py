"""Measure how much the processes of one node deliver together, beside one process on the same cores."""

from __future__ import annotations

import itertools
import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from stream.figure import Figure, paired
from stream.serving import fault_server, loopback
from tensorbank import Plan
from tensorbank.fetch import FetchOptions
from tensorbank.plans import StoreAddress
from tensorbank.testing import Faults
from tensorbank_loader import StreamingDataset, World

__all__ = ["measure", "shared_cache"]

SEED = 1
N_RANKS = (1, 2, 4)
N_EPOCHS = 3
NETWORK = Faults(latency_ms=20, bandwidth_bytes_s=1e8)
PATIENCE_S = 300.0
TARGET = 0.95
NEVER_TWICE = FetchOptions(max_gap_bytes=0, max_hedge_share=0.0, stall_s=60.0)
"""The options without holes and second requests for late reads: what they cost is theirs, not the cache's."""


def measure(local: Plan, *, n_rounds: int, batch_size: int = 32) -> Iterator[Figure]:
    """Measure samples a second without a cache, by loopback and by a network, and with one that the ranks share.

    Parameters
    ----------
    local
        Plan of a local folder, each sample once.
    batch_size
        Samples of a batch of all ranks together.
    """
    assert isinstance(local.origin, StoreAddress)
    folder = Path(local.origin.url.removeprefix("file://"))
    with loopback(folder) as origin:
        yield from _beside_one(origin.plan(local), "loopback", n_rounds, batch_size)
    with fault_server(folder, NETWORK) as (_, origin):
        yield from _beside_one(origin.plan(local), "100 MB/s, 20 ms", n_rounds, batch_size)
    yield from shared_cache(local, n_rounds=n_rounds, batch_size=batch_size)


def shared_cache(local: Plan, *, n_rounds: int, batch_size: int = 32) -> Iterator[Figure]:
    """Measure epochs of ranks that share a cache, which is empty at first, and what the server sends them."""
    assert isinstance(local.origin, StoreAddress)
    rates: dict[int, list[float]] = {n: [] for n in N_RANKS}
    sent: dict[int, list[float]] = {n: [] for n in N_RANKS}
    with fault_server(Path(local.origin.url.removeprefix("file://")), NETWORK) as (server, origin):
        plan = origin.plan(local)
        for _, n in itertools.product(range(n_rounds), N_RANKS):
            server.set(NETWORK)
            with TemporaryDirectory() as cache:
                rates[n].append(_rate(plan, n, batch_size, replace(NEVER_TWICE, cache_dir=cache)))
            sent[n].append(server.stats()["counts"]["body_bytes"])
    for n in N_RANKS[1:]:
        yield _beside(n, "epochs from a shared cache", rates)
        yield Figure(
            "ranks",
            f"{n} ranks, a shared cache, bytes sent in {N_EPOCHS} epochs",
            max(sent[n]) / 1e6,
            "MB",
            plan.read_bytes / 1e6,
            max(sent[n]) / plan.read_bytes,
            1.0,
            "<=",
        )


def _beside_one(plan: Plan, where: str, n_rounds: int, batch_size: int) -> Iterator[Figure]:
    rates: dict[int, list[float]] = {n: [] for n in N_RANKS}
    for _, n in itertools.product(range(n_rounds), N_RANKS):
        rates[n].append(_rate(plan, n, batch_size, FetchOptions()))
    for n in N_RANKS[1:]:
        yield _beside(n, where, rates)


def _beside(n_ranks: int, where: str, rates: dict[int, list[float]]) -> Figure:
    of_one, mine = rates[1], rates[n_ranks]
    return Figure(
        "ranks",
        f"{n_ranks} ranks together, {where}",
        median(mine),
        "samples/s",
        median(of_one),
        paired(mine, of_one),
        TARGET,
        detail={"rates": mine, "of_one": of_one},
    )


def _rate(plan: Plan, n_ranks: int, batch_size: int, options: FetchOptions) -> float:
    """Return the samples a second of all ranks in an epoch after the first: from the end of the one before to its own, since
    the first batches of an epoch are read ahead in the one before.
    """
    context = multiprocessing.get_context("spawn")
    barrier, ends = context.Barrier(n_ranks), context.Queue()
    ranks = [
        context.Process(
            target=_stream, args=(plan, World(rank=r, n_ranks=n_ranks), batch_size, options, barrier, ends)
        )
        for r in range(n_ranks)
    ]
    for rank in ranks:
        rank.start()
    try:
        came = [ends.get(timeout=PATIENCE_S) for _ in range(n_ranks * N_EPOCHS)]
    finally:
        for rank in ranks:
            rank.join(PATIENCE_S)
    last_s = [max(s for epoch, s in came if epoch == number) for number in range(N_EPOCHS)]
    return len(plan) / median(b - a for a, b in itertools.pairwise(last_s))


def _stream(
    plan: Plan,
    world: World,
    batch_size: int,
    options: FetchOptions,
    barrier: Barrier,
    ends: Queue[tuple[int, float]],
) -> None:
    """Go through the epochs of one rank, each of which begins when all ranks are there; tell when each has ended."""
    import torch

    torch.set_num_threads(1)
    dataset = StreamingDataset(
        plan, global_batch_size=batch_size, seed=SEED, world=world, options=options, lease=False
    )
    for epoch in range(N_EPOCHS):
        barrier.wait(PATIENCE_S)
        for _ in dataset:
            pass
        ends.put((epoch, time.monotonic()))
