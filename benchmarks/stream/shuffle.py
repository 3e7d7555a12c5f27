"""Measure the cost of mixing: windows of neighbours beside the plan's order, and how well they mix."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from statistics import median

import numpy as np
import numpy.typing as npt

from stream.figure import Figure, paired
from stream.runs import batches_of, epoch_order, interleaved, read_bytes, stream
from stream.serving import fault_server, loopback
from stream.setup import Setup
from stream.small import SmallBank, write_small
from tensorbank import Plan
from tensorbank.fetch.fetcher import FetchOptions
from tensorbank.testing import Faults
from tensorbank_loader.epochs import State, World
from tensorbank_loader.order import Shuffle
from tensorbank_loader.order.window_order import Windowed

__all__ = ["distinct_groups", "measure", "uniform_groups"]

GROUP = 100
"""The number of neighbours in storage that count as one group."""
N_SMALL, SIDE = 16_384, 128
"""The number of small samples, and their side:
32 KB, small enough that neighbours are worth reading together."""
N_ORDERED = 100_000
"""The number of places of the order whose mixing is measured without reading."""
LATENCY_MS, RATE_MB_S = 20, 200


def distinct_groups(batches: Sequence[npt.NDArray[np.int64]]) -> float:
    """Return the number of distinct groups of neighbours in a batch, mean over full batches.
    Positions are in stored order.
    """
    groups = np.sort(np.stack([b // GROUP for b in batches if len(b) == len(batches[0])]), axis=1)
    return float((1 + (np.diff(groups, axis=1) > 0).sum(axis=1)).mean())


def uniform_groups(n: int, batch_size: int) -> float:
    """Return the expected value of :func:`distinct_groups` for a uniform permutation of ``n`` places."""

    def absent(size: int) -> float:
        return (
            math.exp(
                math.lgamma(n - size + 1)
                - math.lgamma(n - size - batch_size + 1)
                - math.lgamma(n + 1)
                + math.lgamma(n - batch_size + 1)
            )
            if n - size >= batch_size
            else 0.0
        )

    whole, rest = divmod(n, GROUP)
    return whole * (1 - absent(GROUP)) + (1 - absent(rest) if rest else 0.0)


def measure(setup: Setup) -> Iterator[Figure]:
    """Measure the mixing and the samples per second of windows, on small samples and on large ones."""
    small = write_small(
        setup.scratch / "neighbours", n_samples=setup.n(N_SMALL), side=SIDE if setup.scale >= 0.1 else 32
    )
    yield _mixing(setup, small)
    with loopback(small.folder) as origin:
        yield _speed(setup, "small samples, loopback", origin.plan(small.plan))
    faults = Faults(latency_ms=LATENCY_MS, bandwidth_bytes_s=RATE_MB_S * 1e6)
    with fault_server(small.folder, faults) as (_, origin):
        name = f"small samples, {RATE_MB_S} MB/s, {LATENCY_MS} ms"
        yield _speed(setup, name, origin.plan(small.plan))
    with loopback(setup.folder) as origin:
        yield _speed(setup, "whole samples, loopback", origin.plan(setup.plan()))


def _mixing(setup: Setup, small: SmallBank) -> Figure:
    read = distinct_groups(_one_by_one(small.plan, setup.batch_size))
    run = epoch_order(small.plan, setup.batch_size, "window").order.n_together
    large = Windowed(N_ORDERED, run, setup.batch_size)
    positions = large.positions(np.arange(N_ORDERED), seed=1, epoch=1)
    found = distinct_groups(np.split(positions, range(setup.batch_size, N_ORDERED, setup.batch_size)))
    ideal = uniform_groups(N_ORDERED, setup.batch_size)
    own = uniform_groups(len(small.plan), setup.batch_size)
    return Figure(
        "shuffle",
        f"distinct groups of {GROUP} in a batch of {setup.batch_size}",
        found,
        "groups",
        ideal,
        min(found / ideal, read / own),
        0.98,
        detail={"run": run, "of_the_bank": read, "of_the_bank_uniform": own},
    )


def _one_by_one(plan: Plan, batch_size: int) -> list[npt.NDArray[np.int64]]:
    """Return the global batches, which windows read several at a time."""
    found = []
    for steps, positions in epoch_order(plan, batch_size, "window").shares(State(0), World()):
        found += np.split(positions, np.cumsum([s.n_samples for s in steps])[:-1])
    return found


def _speed(setup: Setup, what: str, plan: Plan) -> Figure:
    orders: dict[str, Shuffle] = {"window": "window", "none": None, "full": "full"}
    options = FetchOptions()
    works = {
        name: partial(
            stream,
            plan,
            setup.batch_size,
            shuffle=shuffle,
            n_bytes=read_bytes(plan, setup.batch_size, epoch=1, shuffle=shuffle, options=options),
        )
        for name, shuffle in orders.items()
    }
    runs = interleaved(works, setup.repeats)
    rates = {name: [len(plan) / r.last.wall_s for r in found] for name, found in runs.items()}
    n_requests = {name: median(r.stats.requests for r in found) / 2 for name, found in runs.items()}
    return Figure(
        "shuffle",
        f"window beside the plan's order, {what}",
        median(rates["window"]),
        "samples/s",
        median(rates["none"]),
        paired(rates["window"], rates["none"]),
        0.90,
        detail={
            "samples_s": {name: median(found) for name, found in rates.items()},
            "requests_an_epoch": n_requests,
            "batches_read_together": len(batches_of(plan, setup.batch_size, epoch=1))
            / len(batches_of(plan, setup.batch_size, epoch=1, shuffle="window")),
        },
    )
