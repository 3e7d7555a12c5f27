"""Measure whether the defaults are good enough:
the best of a small grid of options beside them, over networks of five kinds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import product
from statistics import median

from stream.figure import Figure, paired
from stream.runs import interleaved, stream
from stream.serving import fault_server
from stream.setup import Setup
from tensorbank import Plan
from tensorbank.fetch.fetcher import FetchOptions
from tensorbank.testing import Faults

__all__ = ["NETWORKS", "measure"]

NETWORKS = ((1, 400), (5, 200), (20, 200), (50, 100), (100, 50))
"""The latencies in ms and bandwidths in MB/s, from the same room to another continent."""
EPOCH_S = 1.5
COLUMNS = "bands(S2L2A, ['B02', 'B08', 'B11']), bands(S2L1C, ['B02', 'B03', 'B04']), S1RTC, DEM"
"""The columns of a plan of runs and holes, whose reads the options can change."""
N_THREADS = (16, 64, 128)
MAX_READ_BYTES = (2 << 20, 16 << 20)
MAX_GAP_BYTES = (64 << 10, 1 << 20)
DEFAULT = "default"
N_CHOOSING = 2


def measure(setup: Setup) -> Iterator[Figure]:
    """Measure the gain of tuning. The best is chosen in some rounds and measured in others,
    so that luck is no gain.
    """
    local = setup.plan(COLUMNS)
    grid = {
        f"{n} threads, reads of {read >> 20} MiB, gaps of {gap >> 10} KiB": FetchOptions(
            n_threads=n, max_read_bytes=read, max_gap_bytes=gap
        )
        for n, read, gap in product(N_THREADS, MAX_READ_BYTES, MAX_GAP_BYTES)
    }
    for latency_ms, rate in NETWORKS:
        faults = Faults(latency_ms=latency_ms, bandwidth_bytes_s=rate * 1e6)
        with fault_server(setup.folder, faults) as (_, origin):
            plan = origin.plan(setup.sized(local, rate * 1e6 * EPOCH_S))
            tried = _epochs_s(setup, plan, {DEFAULT: FetchOptions(), **grid}, N_CHOOSING)
            best = min(grid, key=lambda name: median(tried[name]))
            found = _epochs_s(setup, plan, {DEFAULT: FetchOptions(), best: grid[best]}, setup.repeats)
        yield Figure(
            "tuning",
            f"an epoch at {latency_ms} ms, {rate} MB/s, by default and tuned",
            median(found[DEFAULT]),
            "s",
            median(found[best]),
            paired(found[DEFAULT], found[best]),
            1.05,
            "<=",
            detail={
                "best": best,
                "wire_s": plan.read_bytes / rate / 1e6,
                "tried_s": {name: median(times) for name, times in tried.items()},
            },
        )


def _epochs_s(
    setup: Setup, plan: Plan, options: Mapping[str, FetchOptions], repeats: int
) -> dict[str, list[float]]:
    """Return the seconds of each epoch of a run that goes on."""

    def epoch_s(given: FetchOptions) -> float:
        return stream(plan, setup.batch_size, options=given, n_bytes=1).last.wall_s

    return interleaved({name: partial(epoch_s, given) for name, given in options.items()}, repeats)
