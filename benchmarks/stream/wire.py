"""Measure whether the network is used fully: a limited network beside raw reads of the same ranges."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from statistics import median

from stream.figure import Figure, paired
from stream.runs import Run, Streamed, fetched, interleaved, medians, stream
from stream.serving import fault_server
from stream.setup import Setup
from tensorbank.testing import Faults

__all__ = ["measure"]

LATENCY_MS = 20
RATES_MB_S = (100, 200)
EPOCH_S = 4.0
"""Seconds that an epoch takes the network, long enough that its beginning and end weigh little."""


def measure(setup: Setup) -> Iterator[Figure]:
    """Return the loader's MB/s beside those of raw reads, at two rates."""
    local = setup.plan()
    for rate in RATES_MB_S:
        faults = Faults(latency_ms=LATENCY_MS, bandwidth_bytes_s=rate * 1e6)
        with fault_server(setup.folder, faults) as (_, origin):
            plan = origin.plan(setup.sized(local, rate * 1e6 * EPOCH_S))
            raw = fetched(plan, setup.batch_size)
            n_bytes = raw().n_bytes
            works = {"loader": partial(stream, plan, setup.batch_size, n_bytes=n_bytes), "raw": raw}
            found = interleaved(works, setup.repeats)
        runs: list[Streamed] = found["loader"]
        loader: list[Run] = [r.last for r in runs]
        yield Figure(
            "wire",
            f"{rate} MB/s, {LATENCY_MS} ms",
            median(r.mb_s for r in loader),
            "MB/s",
            median(r.mb_s for r in found["raw"]),
            paired([r.mb_s for r in loader], [r.mb_s for r in found["raw"]]),
            0.95,
            detail={
                "loader": medians(loader),
                "raw": medians(found["raw"]),
                "from_cold": median(
                    r.stats.bytes_read / r.total_s / raw.mb_s / 1e6
                    for r, raw in zip(runs, found["raw"], strict=True)
                ),
                "hedges": median(r.stats.hedges for r in runs),
                "stalls": median(r.stats.stalls for r in runs),
                "depth": median(r.stats.depth for r in runs),
            },
        )
