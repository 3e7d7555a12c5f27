"""Measure an epoch by what the cache has of it, beside an epoch without a cache, on networks of some latency."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np

from stream.figure import Figure, paired
from stream.serving import fault_server
from tensorbank import Plan
from tensorbank.fetch import FetchOptions
from tensorbank.plans import StoreAddress
from tensorbank.testing import Faults, FaultServer
from tensorbank_loader import World

__all__ = ["measure"]

SEED = 1
WORLD = World()
RATE_BYTES_S = 2e8
LATENCIES_MS = (10, 30)
STATES: Mapping[str, float] = {"cold": 0.0, "half": 0.5, "warm": 1.0}
"""The shares of the samples that the cache has before the epoch."""
TARGETS: Mapping[str, float] = {"cold": 0.95, "half": 1.0, "warm": 1.0}
"""The least rate beside that without a cache: looking and keeping must not be what binds."""


def measure(local: Plan, what: str, *, n_rounds: int, batch_size: int = 32) -> Iterator[Figure]:
    """Measure samples a second, each state beside no cache in the same round.

    Parameters
    ----------
    local
        Plan of a local folder, each sample once: what is wanted twice is cached within the epoch.
    what
        Words for the modalities.
    """
    assert isinstance(local.origin, StoreAddress)
    folder = Path(local.origin.url.removeprefix("file://"))
    for latency_ms in LATENCIES_MS:
        faults = Faults(latency_ms=latency_ms, bandwidth_bytes_s=RATE_BYTES_S)
        with fault_server(folder, faults) as (server, origin):
            plan = origin.plan(local)
            _rate(plan, FetchOptions(), batch_size)  # what is done for the first time in a process
            alone: list[float] = []
            cached: dict[str, list[float]] = {state: [] for state in STATES}
            for _ in range(n_rounds):
                alone.append(_rate(plan, FetchOptions(), batch_size))
                for state, share in STATES.items():
                    with _filled(plan, share, server, faults) as options:
                        cached[state].append(_rate(plan, options, batch_size))
        for state, rates in cached.items():
            yield Figure(
                "cache",
                f"{what}, 200 MB/s, {latency_ms} ms, cache {state}",
                median(rates),
                "samples/s",
                median(alone),
                paired(rates, alone),
                TARGETS[state],
                detail={
                    "samples": len(plan),
                    "read_bytes": plan.read_bytes,
                    "rates": rates,
                    "without": alone,
                },
            )


def _rate(plan: Plan, options: FetchOptions, batch_size: int) -> float:
    """Return the samples a second of one epoch of a loader that is made now."""
    with plan.dataloader(
        batch_size=batch_size, seed=SEED, shuffle=True, options=options, world=WORLD
    ) as loader:
        started_s = time.perf_counter()
        for _ in loader:
            pass
        return len(plan) / (time.perf_counter() - started_s)


@contextmanager
def _filled(plan: Plan, share: float, server: FaultServer, faults: Faults) -> Iterator[FetchOptions]:
    """Return options of a cache that has a share of the samples, as they were asked for in a random order."""
    with TemporaryDirectory() as folder:
        options = FetchOptions(cache_dir=folder)
        chosen = np.random.default_rng(SEED).permutation(len(plan))[: round(share * len(plan))]
        if len(chosen):
            server.set(Faults())
            _rate(plan.take(np.sort(chosen)), replace(options, max_gap_bytes=0), 32)
            server.set(faults)
        yield options
