"""Samples of several dates through a service: chosen dates as on the bank itself, and the same plans."""

from __future__ import annotations

import httpx
import numpy as np
import pytest

import tensorbank as tb
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
