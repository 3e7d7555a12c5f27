"""Measure the cost of faults: epochs over a server that is late, busy or breaks off,
beside epochs without faults; and bits that flip.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from statistics import median

import numpy as np

from stream.contents import n_wrong, truth_of
from stream.figure import Figure, paired
from stream.runs import SEED, WORLD, interleaved, stream
from stream.serving import Origin, fault_server
from stream.setup import Setup
from stream.small import write_small
from tensorbank import IntegrityError, Plan
from tensorbank.fetch.fetcher import FetchOptions
from tensorbank.reading.sample_reader import SampleReader
from tensorbank.testing import Faults, FaultServer
from tensorbank_loader import StreamingDataset

__all__ = ["measure"]

NETWORK = Faults(latency_ms=10, bandwidth_bytes_s=1e8)
EPOCH_BYTES = 8e8
LATE = Faults(latency_ms=10, bandwidth_bytes_s=1e8, slow=0.05, slow_s=15, seed=1)
OFTEN_LATE = replace(LATE, slow=0.2)
BUSY = Faults(latency_ms=10, bandwidth_bytes_s=1e8, unavailable=0.1, seed=2)
CUT = Faults(latency_ms=10, bandwidth_bytes_s=1e8, cut=0.34, seed=3)

N_FLIPS = 10_000
FLIPPED = 0.5
N_AT_ONCE = 64
ONE_BY_ONE = FetchOptions(max_gap_bytes=0, max_read_bytes=1, max_hedge_share=0.0, stall_s=60.0)
"""The options for one request per sample, and none but those that are asked for."""


def measure(setup: Setup) -> Iterator[Figure]:
    """Measure times, bytes and completeness of epochs; flips injected and caught."""
    local = setup.sized(setup.plan(), EPOCH_BYTES)
    with fault_server(setup.folder, NETWORK) as (server, origin):
        yield from _times(setup, server, origin.plan(local))
        yield from _cut(setup, server, origin, local)
    yield from _flips(setup)


def _times(setup: Setup, server: FaultServer, plan: Plan) -> Iterator[Figure]:
    counts: dict[str, list[dict[str, int]]] = {"sound": [], "late": [], "often_late": [], "busy": []}

    def epoch_s(name: str, faults: Faults) -> float:
        server.set(faults)
        took_s = stream(plan, setup.batch_size, n_epochs=1, n_bytes=1).total_s
        counts[name].append(server.stats()["counts"])
        if faults.slow:
            time.sleep(faults.slow_s)  # late answers to this epoch would share the wire with the next
        return took_s

    found = interleaved(
        {
            "sound": partial(epoch_s, "sound", NETWORK),
            "late": partial(epoch_s, "late", LATE),
            "often_late": partial(epoch_s, "often_late", OFTEN_LATE),
            "busy": partial(epoch_s, "busy", BUSY),
        },
        setup.repeats,
    )
    for name, what, kind, most in (
        ("late", "5 % of answers 15 s late", "slow", 1.2),
        ("often_late", "20 % of answers 15 s late", "slow", 1.5),
        ("busy", "10 % of answers 503", "unavailable", 1.15),
    ):
        yield Figure(
            "faults",
            what,
            median(found[name]),
            "s",
            median(found["sound"]),
            paired(found[name], found["sound"]),
            most,
            "<=",
            detail={
                "injected": median(c.get(kind, 0) for c in counts[name]),
                "requests": median(c["requests"] for c in counts[name]),
                "requests_without": median(c["requests"] for c in counts["sound"]),
                "all_s": found[name],
            },
        )


def _cut(setup: Setup, server: FaultServer, origin: Origin, local: Plan) -> Iterator[Figure]:
    truth = truth_of(local)
    server.set(CUT)
    dataset = StreamingDataset(origin.plan(local), global_batch_size=setup.batch_size, seed=SEED, world=WORLD)
    wrong = n_wrong(truth, local, dataset)
    counts = server.stats()["counts"]
    yield Figure(
        "faults",
        "34 % of bodies cut, bytes sent",
        counts["body_bytes"] / 1e6,
        "MB",
        local.read_bytes / 1e6,
        counts["body_bytes"] / local.read_bytes,
        1.25,
        "<=",
        detail={"injected": counts["cut"], "requests": counts["requests"]},
    )
    yield Figure(
        "faults",
        "34 % of bodies cut, samples missing or wrong",
        float(wrong),
        "samples",
        target=0.0,
        bound="<=",
        judged="value",
        detail={"samples": len(local)},
    )


def _flips(setup: Setup) -> Iterator[Figure]:
    """Measure reads of one block each; a block that was flipped is asked for once more,
    and flipped again half of the time.
    """
    small = write_small(setup.scratch / "flipped", n_samples=4096, side=8)
    n_flips = setup.n(N_FLIPS)
    rng = np.random.default_rng(0)
    n_errors = wrong = 0
    with fault_server(small.folder, Faults(flipped=FLIPPED, seed=4)) as (server, origin):
        reader = SampleReader.of(origin.plan(small.plan), ONE_BY_ONE)
        try:
            while server.stats()["counts"].get("flipped", 0) < n_flips:
                at = rng.integers(0, len(small.plan), N_AT_ONCE)
                buffers = [{"X": np.zeros((1, 1, 1, 8, 8), np.int16)} for _ in at]
                reads = [reader.submit(at[i : i + 1], buffers[i]) for i in range(len(at))]
                for position, read, buffer in zip(at.tolist(), reads, buffers, strict=True):
                    try:
                        read.wait()
                    except IntegrityError:
                        n_errors += 1
                        continue
                    wrong += not np.array_equal(
                        buffer["X"][0, 0, 0], small.pixels[position % len(small.pixels)]
                    )
            n_refetches = reader.stats.refetches
        finally:
            reader.close()
        injected = server.stats()["counts"]["flipped"]
    caught = n_refetches + n_errors
    yield Figure(
        "faults",
        "bit flips caught",
        float(caught),
        "flips",
        float(injected),
        caught / injected,
        1.0,
        detail={"refetches": n_refetches, "errors": n_errors},
    )
    yield Figure(
        "faults",
        "bit flips, samples handed out wrong",
        float(wrong),
        "samples",
        target=0.0,
        bound="<=",
        judged="value",
    )
