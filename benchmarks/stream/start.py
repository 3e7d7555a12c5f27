"""Measure the time to begin: from a plan to the first batch in a fresh process,
and from one epoch to the next.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import chain
from statistics import median

import torch

from stream.figure import Figure, paired
from stream.fresh import fresh
from stream.reference import Reference
from stream.runs import SEED, WORLD, batches_of, stream
from stream.serving import Origin, fault_server, loopback
from stream.setup import Setup
from tensorbank import Plan
from tensorbank.fetch.fetcher import FetchOptions
from tensorbank.testing import Faults

__all__ = ["measure"]

LATENCY_MS = 30
N_THREADS = 16
N_EPOCHS = 6
EPOCH_BYTES = 3e8
STEP = 1.5
"""A consumer's step to the loader's, which can keep up with it."""


def first_batch_s(plan: Plan, batch_size: int) -> float:
    """Return the seconds to the first batch of a loader made now."""
    torch.empty(1)
    started = time.perf_counter()
    with plan.dataloader(batch_size=batch_size, seed=SEED, world=WORLD) as loader:
        next(iter(loader))
        return time.perf_counter() - started


def reference_s(plan: Plan, batch_size: int) -> float:
    """Return the seconds to fetch and decode the same batch."""
    first = batches_of(plan, batch_size, epoch=0)[:1]
    return Reference(plan, first, FetchOptions()).run(N_THREADS).wall_s


def measure(setup: Setup) -> Iterator[Figure]:
    """Return the first batch near and far, and the gap at the end of an epoch."""
    local = setup.plan()
    with loopback(setup.folder) as origin:
        yield _first(setup, "loopback", origin, local, 300.0)
        yield from _gaps(setup, origin.plan(setup.sized(local, EPOCH_BYTES)))
    with fault_server(setup.folder, Faults(latency_ms=LATENCY_MS)) as (_, origin):
        yield _first(setup, f"{LATENCY_MS} ms", origin, local, 800.0)


def _first(setup: Setup, where: str, origin: Origin, local: Plan, target_ms: float) -> Figure:
    plan = origin.plan(local)
    times = [
        (fresh(first_batch_s, plan, setup.batch_size), fresh(reference_s, plan, setup.batch_size))
        for _ in range(setup.repeats)
    ]
    mine, least = zip(*times, strict=True)
    return Figure(
        "start",
        f"first batch of {setup.batch_size}, {where}",
        median(mine) * 1e3,
        "ms",
        median(least) * 1e3,
        paired(mine, least),
        target_ms,
        "<=",
        "value",
        {"all_ms": [s * 1e3 for s in mine], "server": origin.server},
    )


def _gaps(setup: Setup, plan: Plan) -> Iterator[Figure]:
    idle = stream(plan, setup.batch_size, n_epochs=N_EPOCHS)
    usual_s = median(chain.from_iterable(epoch[1:] for epoch in idle.intervals_s[1:]))
    busy = stream(plan, setup.batch_size, n_epochs=N_EPOCHS, step_s=STEP * usual_s)
    for what, run, target in (
        (f"consumer of {STEP} of the loader's steps", busy, 1.0),
        ("consumer that does nothing", idle, None),
    ):
        # The last step of an epoch ends before its interval does, so what is left of it is the wait for the next.
        step_s = median(chain.from_iterable(epoch[1:] for epoch in run.intervals_s[1:]))
        gaps_s = [epoch[0] for epoch in run.intervals_s[1:]]
        yield Figure(
            "start",
            f"gap between epochs, {what}",
            median(gaps_s) * 1e3,
            "ms",
            step_s * 1e3,
            median(gaps_s) / step_s,
            target,
            "<=",
            detail={"worst_ms": max(gaps_s) * 1e3},
        )
