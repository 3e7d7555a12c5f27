"""Plans that address each date alone, against the arrays as zarr-python reads them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorbank as tb
from tensorbank import Band, Modality
from tensorbank.fetch.fetcher import FetchOptions
from tensorbank.plans.handle import Handle
from tensorbank.reading.read_plan import plan_reads
from tensorbank_indexer import IngestOptions, ingest, open_source

SQL = "SELECT sample_id, S2L2A.ref.row AS row, S2L2A, bands(S1GRD, ['vh']) AS S1GRD, DEM FROM t"


@pytest.fixture(scope="module")
def table(make_archives, tmp_path_factory):
    source, _ = make_archives("ssl4eo-wds", "--locations", "6", "--per-tar", "3", "--split", "val")
    bank = tb.create(tmp_path_factory.mktemp("bank"))
    report = ingest(open_source(str(source)), bank, "t", IngestOptions(n_workers=1, samples_per_shard=4))
    assert report.n_added == 6
    ((_, url),) = bank.table("t").parts().items()
    return bank, zarr.open_group(url.removeprefix("file://"), mode="r")


def test_runs_end_with_their_date(table):
    bank, _ = table
    whole, apart = (bank.sql(SQL).plan(by_date=by_date) for by_date in (False, True))
    assert [len(h.runs) for h in whole.handles] == [1, 4, 1]
    assert [len(h.runs) for h in apart.handles] == [4, 4, 1]
    assert [h.by_date for h in apart.handles] == [True, True, False]  # DEM has one date
    for h in whole.handles:
        a, b = whole.addresses[h.name], apart.addresses[h.name]
        np.testing.assert_array_equal(b.starts[:, 0], a.starts[:, 0])
        np.testing.assert_array_equal(b.lengths.sum(axis=1), a.lengths.sum(axis=1))
    assert apart.read_bytes == whole.read_bytes
    assert apart.n_reads == whole.n_reads
    assert apart.table["sample_id"] == whole.table["sample_id"]


def test_the_name_of_a_plan_tells_how_it_addresses(table, tmp_path):
    bank, _ = table
    apart = bank.sql(SQL).plan(by_date=True)
    assert apart.fingerprint != bank.sql(SQL).plan().fingerprint
    assert apart == bank.sql(SQL).plan(by_date=True)
    loaded = tb.Plan.load(apart.save(tmp_path / "plan.arrow"))
    assert (loaded, loaded.handles) == (apart, apart.handles)
    # where no tensor has several dates there is nothing to address otherwise, and the plan is the same
    assert bank.sql("SELECT DEM FROM t").plan(by_date=True) == bank.sql("SELECT DEM FROM t").plan()
    tiles = "SELECT S2L2A FROM t.tiles WHERE time_index = 2"
    assert bank.sql(tiles).plan(by_date=True) == bank.sql(tiles).plan()
    selected = bank.query("t").select("sample_id", "S2L2A").plan(by_date=True)
    assert [h.by_date for h in selected.handles] == [True]


def test_reads_of_some_dates_are_of_their_bytes_only(table):
    bank, _ = table
    plan = bank.sql(SQL).plan(by_date=True)
    positions = np.array([4, 0, 4, 3])
    dates = np.array([[0, 3], [2, 1], [3, 1], [0, 1]])
    asked: dict[str, set[int]] = {}
    for h in plan.handles:
        a = plan.addresses[h.name]
        for i, p in enumerate(positions):
            for run in dates[i] if h.by_date else [0]:
                span = range(int(a.starts[p, run]), int(a.starts[p, run] + a.lengths[p, run]))
                asked.setdefault(a.shard_keys[a.shard_of[p]], set()).update(span)
    exact = FetchOptions(max_gap_bytes=0, max_amplification=1.0)
    reads = plan_reads(plan.addresses, positions, exact, dates)
    assert sum(r.range.n_bytes for r in reads) == sum(map(len, asked.values()))
    assert all(asked[r.range.key].issuperset((r.range.start, r.range.end - 1)) for r in reads)
    pieces = [p for r in reads for p in r.pieces]
    assert len(pieces) == len(positions) * (2 + 2 + 1)
    for piece in pieces:
        h = plan.handles[piece.handle]
        assert (piece.run == dates[piece.slot, piece.time]) if h.by_date else (piece.time == 0)


@given(st.data())
@settings(max_examples=60)
def test_any_bands_of_any_dates_are_runs_of_one_date_each(data):
    n_times, n_bands = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 6))
    bands = data.draw(st.permutations(range(n_bands)))[: data.draw(st.integers(1, n_bands))]
    m = Modality("M", "int16", tuple(Band(f"b{i}") for i in range(n_bands)), n_times, 4, 4)
    whole = Handle("M", m, tuple(bands))
    apart = replace(whole, by_date=True)
    blocks = [b for run in apart.runs for b in range(*run)]
    assert blocks == [b for run in whole.runs for b in range(*run)]
    dates = [{b // n_bands for b in range(*run)} for run in apart.runs]
    assert all(len(d) == 1 for d in dates)
    # every date has the same runs, so that the r-th of date t is the number t * runs a date + r
    assert len(apart.runs) % n_times == 0
    per_date = len(apart.runs) // n_times
    assert [d.pop() for d in dates] == [t for t in range(n_times) for _ in range(per_date)]
    for number, (start, end) in enumerate(apart.runs):
        first = apart.runs[number % per_date]
        assert (start % n_bands, end - start) == (first[0], first[1] - first[0])
