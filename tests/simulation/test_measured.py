"""The simulation beside the loader, on a network whose latency binds, whatever else the machine does."""

from __future__ import annotations

import time
from dataclasses import replace

from support.handmade import make
from tensorbank.fetch import FetchOptions
from tensorbank.plans import StoreAddress
from tensorbank.testing import Faults, FaultServer
from tensorbank_loader import World
from tensorbank_simulation import DEFAULT_CALIBRATION, Setting, simulate, with_store, workload_of

OPTIONS = FetchOptions(n_threads=4, max_gap_bytes=0, max_hedge_share=0.0, stall_s=30.0)
LATENCY_S = 0.1


def test_an_epoch_takes_as_long_as_is_forecast(tmp_path):
    made = make(tmp_path, 48)
    with FaultServer(made.folder, Faults(latency_ms=1e3 * LATENCY_S)) as server:
        plan = replace(made.plan, origin=StoreAddress(server.url, server.storage))
        known = with_store(DEFAULT_CALIBRATION, plan, seconds=0.5, modalities=False)
        assert known.latency is not None
        workload = workload_of(plan, batch_size=8, seed=1, options=OPTIONS)
        setting = Setting(latency=known.latency, options=OPTIONS, max_reads=10**9, seed=1)
        forecast = simulate(workload, setting, known)
        with plan.dataloader(batch_size=8, seed=1, options=OPTIONS, world=World()) as loader:
            started_s = time.perf_counter()
            n_batches = sum(1 for _ in loader)
            took_s = time.perf_counter() - started_s
            n_requests = loader.stats().requests
    assert n_batches == forecast.n_steps == 6
    assert abs(n_requests - forecast.n_requests) <= 16, "two batches of the next epoch may be on their way"
    assert forecast.epoch_s >= forecast.n_requests * LATENCY_S / 4
    assert 0.6 * took_s < forecast.epoch_s < 1.4 * took_s
