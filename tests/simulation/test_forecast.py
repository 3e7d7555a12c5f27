"""Forecasts of epochs: what is extrapolated, what is shared, and what it costs."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from support.handmade import make
from tensorbank import InvalidInputError
from tensorbank.fetch import FetchOptions
from tensorbank.reading import ranges_of
from tensorbank_loader import StreamingDataset, World
from tensorbank_loader.epochs import State
from tensorbank_simulation import (
    DEFAULT_CALIBRATION,
    Latency,
    Setting,
    forecast_ingest,
    made_up_workload,
    simulate,
    workload_of,
)

N = 60
SMALL = FetchOptions(max_inflight_bytes=100 << 20, n_threads=64)
"""Options of a window of few batches and a depth that need not be found, so that few steps are enough."""


def workload(n_samples=20_000, n_ranks=1, **more: Any):
    given = {"sample_bytes": 1e6, "batch_size": 20, "blocks_per_sample": 12, **more}
    return made_up_workload(n_samples=n_samples, n_ranks=n_ranks, **given)


def forecast(work, **more: Any):
    return simulate(
        work, Setting(**{"n_cores": 8, "max_reads": 3_000, "options": SMALL, **more}), DEFAULT_CALIBRATION
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("bank"), N)


# ---- workloads


def test_a_plan_is_worked_out_as_the_loader_reads_it(made):
    options = FetchOptions(max_gap_bytes=0)
    found = workload_of(made.plan, batch_size=8, n_ranks=2, simulated_ranks=2, seed=3, options=options)
    dataset = StreamingDataset(
        made.plan, global_batch_size=16, seed=3, world=World(n_ranks=2), options=options
    )
    assert found.n_steps == math.ceil(N / 16)
    n_samples = 0
    for rank, batches in enumerate(found.ranks):
        shares = [at for _, at in dataset.epochs.shares(State(0), World(rank=rank, n_ranks=2))]
        ranges = [ranges_of(made.plan.addresses, [at], options) for at in shares]
        assert [b.n_bytes.tolist() for b in batches] == [[r.n_bytes for r in some] for some in ranges]
        assert [b.n_samples for b in batches] == [len(at) for at in shares]
        n_samples += sum(len(at) for at in shares)
    assert n_samples == N
    decoded = sum(int(b.decoded_bytes.sum()) for rank in found.ranks for b in rank)
    present = sum(h.n_bytes * int(made.plan.addresses[h.name].present.sum()) for h in made.plan.handles)
    assert decoded == present, "each sample's blocks, once"


@pytest.mark.parametrize(
    "wrong",
    [{"sample_bytes": 0.0}, {"batch_size": 0}, {"ratio": 0}, {"reads_per_sample": 0}, {"n_samples": 0}],
)
def test_a_workload_that_is_none_is_refused_by_name(wrong):
    with pytest.raises(InvalidInputError, match=next(iter(wrong)).removeprefix("n_").replace("_", "-")):
        workload(**wrong)


def test_more_processes_than_samples_are_refused(made):
    with pytest.raises(InvalidInputError, match=f"{N} samples, too few for 64 processes"):
        workload_of(made.plan, batch_size=1, n_ranks=64, simulated_ranks=64)
    with pytest.raises(InvalidInputError, match="no sample with a tensor"):
        workload_of(made.plan.take(np.arange(0)), batch_size=1)


# ---- epochs


def test_the_rest_of_an_epoch_goes_on_as_its_beginning_ends():
    work = workload(n_samples=6_000)
    whole = forecast(work, bandwidth_bytes_s=2e8, max_reads=10**9)
    part = forecast(work, bandwidth_bytes_s=2e8, max_reads=2_000)
    assert (whole.n_simulated_steps, part.n_simulated_steps) == (300, 100)
    assert part.epoch_s == pytest.approx(whole.epoch_s, rel=0.02)
    assert whole.epoch_s == pytest.approx(6_000 * 0.4e6 / 2e8, rel=0.02)
    assert (whole.bound_by, part.bound_by) == ("network", "network")


@pytest.mark.parametrize("gbit", [1, 2, 4])
@pytest.mark.parametrize("n_ranks", [1, 4])
def test_no_epoch_is_shorter_than_its_bytes_and_its_steps_take(gbit, n_ranks):
    """Little is simulated of each, so that most of the epoch is extrapolated."""
    work = workload(n_samples=200_000, n_ranks=n_ranks)
    found = forecast(
        work,
        gpus_per_node=n_ranks,
        bandwidth_bytes_s=gbit / 8 * 1e9,
        step_s=0.05,
    )
    assert found.n_simulated_steps < found.n_steps / 4
    least_s = max(found.egress_bytes / (gbit / 8 * 1e9), found.n_steps * 0.05)
    assert least_s * 0.999 <= found.epoch_s <= least_s * 1.05


def test_the_model_binds_where_all_else_is_faster():
    found = forecast(workload(), step_s=0.5, bandwidth_bytes_s=1e9)
    assert found.bound_by == "step"
    assert found.epoch_s == pytest.approx(1000 * 0.5, rel=0.01)
    assert found.wait_share < 0.01
    assert found.samples_per_s == pytest.approx(40, rel=0.01)


def test_nodes_that_share_a_store_get_their_share_of_it():
    work = workload(n_samples=20_000, n_ranks=10)
    found = forecast(work, n_nodes=10, simulated_nodes=2, store_bytes_s=1e9, bandwidth_bytes_s=1e9)
    assert found.n_simulated_nodes == 2
    assert found.epoch_s == pytest.approx(20_000 * 0.4e6 / 1e9, rel=0.03)
    limited = forecast(work, n_nodes=10, simulated_nodes=2, requests_per_s=1000.0, bandwidth_bytes_s=1e9)
    assert limited.bound_by == "requests"
    assert limited.epoch_s >= 0.9 * (20_000 - 1000) / 1000


def test_an_epoch_costs_its_requests_and_its_bytes():
    work = workload(n_samples=5_000)
    found = forecast(work, max_reads=10**9, price_per_1000_requests=0.4, price_per_gb=0.09)
    assert found.n_requests == pytest.approx(5_000, rel=0.03)
    assert found.egress_bytes == pytest.approx(2e9, rel=0.03)
    assert found.cost == pytest.approx(found.n_requests / 1000 * 0.4 + found.egress_bytes / 1e9 * 0.09)


@pytest.mark.parametrize(
    ("n_nodes", "epoch", "cache_bytes", "expected"),
    [(1, 1, 1e12, 0.0), (1, 2, 1e12, 1.0), (1, 2, 1e9, 0.5), (4, 2, 1e12, 0.25), (4, 3, 1e12, 1 - 0.75**2)],
)
def test_a_cache_has_what_its_node_has_read_and_what_fits(n_nodes, epoch, cache_bytes, expected):
    work = workload(n_samples=5_000, n_ranks=n_nodes)
    found = forecast(
        work, n_nodes=n_nodes, epoch=epoch, cache_bytes=cache_bytes, simulated_nodes=1, max_reads=2_000
    )
    assert found.hit_share == pytest.approx(expected, abs=0.04)
    assert found.egress_bytes == pytest.approx(2e9 * (1 - expected), abs=0.1e9)


def test_the_same_values_give_the_same_forecast():
    latency = Latency.parse("p0=5,p50=20,p99=200")
    one = forecast(workload(), latency=latency)
    assert forecast(workload(), latency=latency) == one
    assert forecast(workload(), latency=latency, seed=1) != one


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_nodes": 0},
        {"step_s": -1.0},
        {"bandwidth_bytes_s": 0.0},
        {"refused_share": 1.0},
        {"requests_per_s": -5.0},
        {"cache_bytes": math.nan},
    ],
)
def test_a_setting_that_is_none_is_refused_by_name(wrong):
    with pytest.raises(InvalidInputError, match=next(iter(wrong))):
        replace(Setting(), **wrong)


# ---- ingest


def test_workers_write_whole_shards_and_share_their_network():
    given = {"samples_per_s": 10.0, "samples_per_shard": 100, "archive_bytes": 1e12, "network_bytes_s": 1e15}
    even = forecast_ingest(n_samples=100_000, n_workers=100, **given)
    assert even.seconds == pytest.approx(1000 * 100 / 100 / 10.0)
    assert even.efficiency == pytest.approx(1.0)
    odd = forecast_ingest(n_samples=100_000, n_workers=999, **given)
    assert odd.seconds == pytest.approx(20.0), "one shard more than workers is a second round"
    slow = forecast_ingest(n_samples=100_000, n_workers=1000, **{**given, "network_bytes_s": 1e9})
    assert slow.seconds == pytest.approx(1000.0)
    late = forecast_ingest(n_samples=100_000, n_workers=1000, serial_s=7.0, **given)
    assert late.seconds == pytest.approx(17.0)
    with pytest.raises(InvalidInputError, match="n_workers"):
        forecast_ingest(n_samples=1, n_workers=0, **given)
