"""One configuration, measured and simulated in turn, by costs that were measured right before."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
from process_tree import children_cpu_s

from simulated.configurations import Configuration
from stream.serving import Origin, fault_server, loopback
from stream.setup import sized
from tensorbank import Plan
from tensorbank.fetch import FetchOptions
from tensorbank.plans import StoreAddress
from tensorbank.ranges import ByteRange
from tensorbank.reading import ranges_of
from tensorbank.testing import Faults, FaultServer
from tensorbank_loader import World
from tensorbank_simulation import (
    Calibration,
    EpochForecast,
    Latency,
    Setting,
    simulate,
    with_store,
    workload_of,
)
from tensorbank_simulation.timed_reads import timed_reads

__all__ = ["Comparison", "Measured", "compare"]

SEED = 1
WORLD = World()
CALIBRATING_S = 0.7
N_DRAWS = 5
"""The number of simulations of which the median is the forecast: which requests are refused or late is drawn."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A run: seconds from the first demand to the end of the last step, those of waiting, and CPU seconds, the server's
    included.
    """

    total_s: float
    wait_s: float
    cpu_s: float
    n_requests: int
    read_bytes: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """The runs of a configuration, and its forecasts, made of what was measured before each."""

    configuration: Configuration
    runs: tuple[Measured, ...]
    forecasts: tuple[EpochForecast, ...]

    @property
    def measured_s(self) -> float:
        return median(r.total_s for r in self.runs)

    @property
    def simulated_s(self) -> float:
        return median(f.epoch_s for f in self.forecasts)

    @property
    def error(self) -> float:
        """The median of each round's error, as a share of what was measured: a machine that slows down slows both."""
        pairs = zip(self.forecasts, self.runs, strict=True)
        return median(f.epoch_s / r.total_s - 1 for f, r in pairs)


def compare(
    configuration: Configuration, local: Plan, machine: Calibration, scratch: Path, n_rounds: int
) -> Comparison:
    """Measure and simulate a configuration, in turn.

    Parameters
    ----------
    local
        Plan of the configuration's columns, from a local folder.
    machine
        What reading costs this machine.
    """
    n = configuration.n_batches * configuration.batch_size
    if configuration.cached_share is not None and n > len(local):
        raise ValueError(
            f"{configuration.name} needs {n} samples, so that none comes twice, and there are {len(local)}"
        )
    local = sized(local, n)
    runs, forecasts = [], []
    with _served(configuration, local) as (plan, server):
        workload = workload_of(
            plan, batch_size=configuration.batch_size, seed=SEED, options=configuration.options
        )
        # The first run meets memory that nobody has touched since the machine started, which may cost several times as much.
        with _filled(configuration, plan, server, scratch / "cache-first") as options:
            _run(configuration, plan, options)
        for number in range(n_rounds):
            known = _with_store(configuration, plan, machine, server)
            drawn = [
                simulate(workload, _setting(configuration, known, workload.read_bytes, seed), known)
                for seed in range(N_DRAWS)
            ]
            forecasts.append(sorted(drawn, key=lambda f: f.epoch_s)[N_DRAWS // 2])
            with _filled(configuration, plan, server, scratch / f"cache-{number}") as options:
                if server is not None:
                    server.set(replace(configuration.faults, seed=number))
                runs.append(_run(configuration, plan, options))
    return Comparison(configuration, tuple(runs), tuple(forecasts))


@contextmanager
def _served(configuration: Configuration, local: Plan) -> Iterator[tuple[Plan, FaultServer | None]]:
    """Return the plan as it is read from where the configuration says."""
    assert isinstance(local.origin, StoreAddress)
    folder = Path(local.origin.url.removeprefix("file://"))
    with ExitStack() as stack:
        if configuration.where == "disk":
            yield local, None
            return
        server: FaultServer | None = None
        if configuration.where == "loopback":
            origin: Origin = stack.enter_context(loopback(folder))
        else:
            server, origin = stack.enter_context(fault_server(folder, configuration.faults))
        yield origin.plan(local), server


def _with_store(
    configuration: Configuration, plan: Plan, machine: Calibration, server: FaultServer | None
) -> Calibration:
    """Measure the store, without what goes wrong with single requests, which is known.

    Its own CPU seconds are added to those of requests, since it runs on the same cores, and taken from the latency, which has
    them.
    """
    faults = configuration.faults
    if server is not None:
        server.set(replace(faults, unavailable=0.0, slow=0.0))
    # Where the cores bind, a machine that others use, too, is measured as it is now.
    found = with_store(machine, plan, seconds=CALIBRATING_S, modalities=configuration.where != "limited")
    request_s, s_per_gb = _server_costs(plan)
    if server is not None:
        server.set(faults)
    assert found.latency is not None
    found_s = [max(s - request_s, 0.0) for s in found.latency.seconds]
    latency = Latency(found.latency.shares, tuple(found_s))
    if faults.slow:
        shares = tuple(q * (1 - faults.slow) for q in latency.shares)
        late_s = faults.slow_s + latency.quantile_s(0.5)
        latency = Latency((*shares, shares[-1] + 1e-6, 1.0), (*latency.seconds, late_s, late_s))
    return replace(
        found,
        latency=latency,
        request_s=found.request_s + request_s,
        request_s_per_gb=found.request_s_per_gb + s_per_gb,
    )


def _server_costs(plan: Plan) -> tuple[float, float]:
    """Return the CPU seconds of the processes that serve: of a request, and of a GB."""
    at = np.arange(min(len(plan), 256))
    ranges = ranges_of(plan.addresses, [at[i : i + 1] for i in range(len(at))], FetchOptions())
    small = [ByteRange(r.key, r.start, min(r.end, r.start + 1024)) for r in ranges]
    found = []
    for some in (small, ranges):
        before_s = children_cpu_s(os.getpid())
        read = timed_reads(plan.origin.open(), some, n_threads=16, within_s=CALIBRATING_S)
        found.append((children_cpu_s(os.getpid()) - before_s, len(read.seconds), read.n_bytes))
    (small_s, n_small, _), (large_s, n_large, n_bytes) = found
    request_s = small_s / n_small
    return request_s, max(large_s - request_s * n_large, 0.0) / n_bytes * 1e9


def _setting(configuration: Configuration, known: Calibration, read_bytes: float, seed: int) -> Setting:
    assert known.latency is not None
    share = configuration.cached_share
    return Setting(
        step_s=configuration.step_s,
        n_cores=known.n_cores,
        bandwidth_bytes_s=known.bandwidth_bytes_s,
        connection_bytes_s=known.connection_bytes_s,
        latency=known.latency,
        refused_share=configuration.faults.unavailable,
        cache_bytes=0 if share is None else max(share, 1e-9) * read_bytes,
        epoch=2,
        options=configuration.options,
        is_local=known.is_local,
        seed=seed,
        max_reads=10**9,
    )


@contextmanager
def _filled(
    configuration: Configuration, plan: Plan, server: FaultServer | None, cache: Path
) -> Iterator[FetchOptions]:
    """Return the options, whose cache has its share of the samples: from a server that does its best, since what it sends
    to nobody any more would slow down the run.
    """
    share = configuration.cached_share
    if share is None:
        yield configuration.options
        return
    if server is not None:
        server.set(Faults())
    options = replace(configuration.options, cache_dir=cache)
    filling = plan.take(np.arange(round(share * len(plan))))  # no sample comes twice
    with filling.dataloader(batch_size=64, shuffle=False, options=options, world=WORLD) as loader:
        for _ in loader:
            pass
    yield options
    shutil.rmtree(cache)


def _run(configuration: Configuration, plan: Plan, options: FetchOptions) -> Measured:
    """Stream all batches once, by a loader that is made now."""
    with plan.dataloader(
        batch_size=configuration.batch_size, seed=SEED, shuffle=True, options=options, world=WORLD
    ) as loader:
        cpu_s = time.process_time() + children_cpu_s(os.getpid())
        started_s = time.perf_counter()
        for _ in loader:
            if configuration.step_s:
                time.sleep(configuration.step_s)
        total_s = time.perf_counter() - started_s
        stats = loader.stats()
        cpu_s = time.process_time() + children_cpu_s(os.getpid()) - cpu_s
    return Measured(total_s, stats.wait_s, cpu_s, stats.requests, stats.bytes_read)
