"""Samples of several dates through a service: chosen dates as on the bank itself, and the same plans."""

from __future__ import annotations

import io
import json

import httpx
import numpy as np
import pytest

import tensorbank as tb
from support.ragged import make_ragged_bank
from tensorbank_indexer import IngestOptions, ingest, open_source


@pytest.fixture(scope="module")
def banks(make_archives, tmp_path_factory, serving_of):
    """A bank of stacks of four dates, and the same through a service."""
    source, _ = make_archives("ssl4eo-wds", "--locations", "6", "--per-tar", "3", "--split", "val")
    folder = tmp_path_factory.mktemp("dated") / "bank"
    direct = tb.create(folder)
    ingest(open_source(str(source)), direct, "t", IngestOptions(n_workers=1, samples_per_shard=4))
    with serving_of(str(folder)) as served:
        yield direct, tb.open(served.url), served


@pytest.fixture(scope="module")
def ragged(make_archives, tmp_path_factory, serving_of):
    """A bank of which some samples have fewer dates, the same through a service, and a sample of one date of S1GRD."""
    source, _ = make_archives("ssl4eo-wds", "--locations", "7", "--per-tar", "7", "--split", "val")
    folder = tmp_path_factory.mktemp("ragged") / "bank"
    direct, _ = make_ragged_bank(source, folder)
    short = direct.sql("SELECT sample_id FROM t WHERE len(S1_times) = 1").arrow()["sample_id"][0].as_py()
    with serving_of(str(folder)) as served:
        yield direct, tb.open(served.url), served, short


def test_a_plan_by_date_is_that_of_the_bank(banks):
    direct, remote, _ = banks
    for by_date in (False, True):
        mine, theirs = (
            bank.query("t").select("sample_id", "S2L2A", "DEM").plan(by_date=by_date)
            for bank in (remote, direct)
        )
        assert mine.fingerprint == theirs.fingerprint
        assert mine.handles == theirs.handles
        assert [h.by_date for h in mine.handles] == [by_date, False]
        assert mine.table == theirs.table
        assert len(mine) == 6


def test_dates_that_are_drawn_are_those_of_the_bank(banks):
    direct, remote, _ = banks
    batches = [
        list(
            bank.query("t")
            .select("sample_id", "S2L2A", "S1GRD[vh]", "DEM")
            .dataloader(batch_size=4, seed=3, times=2)
        )
        for bank in (remote, direct)
    ]
    drawn = sorted(sample_id for batch in batches[0] for sample_id in batch["sample_id"])
    assert drawn == direct.sql("SELECT sample_id FROM t ORDER BY sample_id").arrow()["sample_id"].to_pylist()
    assert len(drawn) == 6
    for mine, theirs in zip(*batches, strict=True):
        assert mine["sample_id"] == theirs["sample_id"]
        assert mine["S2L2A"].shape[1] == 2
        for name in ("time_index", "S2L2A", "S1GRD", "DEM"):
            np.testing.assert_array_equal(mine[name].numpy(), theirs[name].numpy())


def test_plans_with_and_without_dates_are_two_and_both_can_be_viewed(banks):
    _, _, served = banks
    found = [
        served.post(
            "/v1/banks/eo/plans", json={"table": "t", "modalities": ["S2L2A"], "by_date": by_date}
        ).json()
        for by_date in (False, True, True)
    ]
    assert found[0]["id"] != found[1]["id"] == found[2]["id"]
    assert found[0]["read_bytes"] == found[1]["read_bytes"]
    views = [httpx.get(f"{f['links']['zarr']}/S2L2A/c/1/2/3/0/0").content for f in found]
    assert views[0] == views[1] != b""


@pytest.mark.parametrize("times", [None, 2])
def test_short_stacks_are_padded_and_masked_as_those_of_the_bank(ragged, times):
    direct, remote, *_ = ragged
    mine, theirs = (
        list(
            bank.query("t")
            .select("sample_id", "S2L2A", "S1GRD")
            .dataloader(batch_size=3, seed=1, times=times)
        )
        for bank in (remote, direct)
    )
    assert len(mine) == 3
    for a, b in zip(mine, theirs, strict=True):
        assert a["sample_id"] == b["sample_id"]
        for name in ("S2L2A", "S1GRD"):
            np.testing.assert_array_equal(a[name].numpy(), b[name].numpy())
            np.testing.assert_array_equal(a["mask"][name].numpy(), b["mask"][name].numpy())
    assert not all(a["mask"]["S1GRD"].all() for a in mine)


def test_a_short_stack_as_npy_as_zarr_and_as_a_picture(ragged):
    direct, _, served, short = ragged
    sample = f"{served.url}/v1/banks/eo/tables/t/samples/{short}"
    answer = httpx.get(f"{sample}/S1GRD.npy")
    tensor = np.load(io.BytesIO(answer.content))
    assert tensor.shape[0] == 4
    assert np.isnan(tensor[1:]).all()
    (batch,) = direct.sql(f"SELECT S1GRD FROM t WHERE sample_id = '{short}'").dataloader(batch_size=1)
    np.testing.assert_array_equal(tensor, batch["S1GRD"][0].numpy())

    plan = served.post("/v1/banks/eo/plans", json={"table": "t", "modalities": ["S1GRD"]}).json()
    lines = [json.loads(x) for x in httpx.get(plan["links"]["tasks"]).text.splitlines()]
    tasks = [x["task"] for x in lines if "task" in x]
    (position,) = (t["position"] for t in tasks if t["columns"]["sample_id"] == short)
    assert tasks[position]["tensors"]["S1GRD"]["n_times"] == 1
    chunks = [
        httpx.get(f"{plan['links']['zarr']}/S1GRD/c/{position}/{t}/0/0/0").status_code for t in range(4)
    ]
    assert chunks == [200, 404, 404, 404]
    refs = httpx.get(plan["links"]["references"]).json()["refs"]
    assert [f"S1GRD/c/{position}/{t}/1/0/0" in refs for t in range(4)] == [True, False, False, False]

    pictures = [
        httpx.get(f"{sample}/preview.png", params={"composite": "s1-vv-vh", "time": t}) for t in (0, 1)
    ]
    assert [p.status_code for p in pictures] == [200, 404]
    assert pictures[1].json()["code"] == "unknown-time"
