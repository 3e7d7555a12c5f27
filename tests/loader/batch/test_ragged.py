"""Samples with fewer dates than their table: what is stored, indexed, planned and delivered of them."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest
import torch
import zarr

import tensorbank as tb
from support.ragged import N_DATES, SHORT, make_ragged_bank
from tensorbank import Normalization
from tensorbank.reading.sample_reader import SampleReader
from tensorbank.verification import verify
from tensorbank_indexer import open_source
from tensorbank_loader import Normalize

LOCATIONS = ("ssl4eo-wds", "--locations", "7", "--per-tar", "7", "--split", "val")
STACKS = ("S2L2A", "S1GRD")
SQL = "SELECT sample_id, S2L2A.ref.row AS row, S2L2A, S1GRD, DEM FROM t"


@pytest.fixture(scope="module")
def table(make_archives, tmp_path_factory):
    """A bank; pixels of its archive by sample and modality, cut as the bank's; the rows' samples."""
    archives, _ = make_archives(*LOCATIONS)
    bank, report = make_ragged_bank(archives, tmp_path_factory.mktemp("bank"))
    assert report.n_added == 7
    assert not report.findings
    source = open_source(str(archives))
    (archive,), _ = source.archives()
    pixels = {}
    for raw in source.read(source.scan(archive).samples):
        short = SHORT.get(raw.ref.position, {})
        pixels[raw.sample_id] = {n: m.pixels[: short.get(n, N_DATES)] for n, m in raw.modalities.items()}
    return bank, pixels


def padded(pixels: np.ndarray, n: int = N_DATES) -> np.ndarray:
    fill = np.nan if pixels.dtype.kind == "f" else 0
    return np.concatenate([pixels, np.full((n - len(pixels), *pixels.shape[1:]), fill, pixels.dtype)])


def test_dates_that_are_not_there_are_missing_chunks_of_the_array(table):
    bank, pixels = table
    ((_, url),) = bank.table("t").parts().items()
    group = zarr.open_group(url.removeprefix("file://"), mode="r")
    rows = bank.sql(SQL).arrow().to_pylist()
    assert sorted(row["sample_id"] for row in rows) == sorted(pixels)
    for name in (*STACKS, "DEM", "cloud_mask"):
        array = group[name]
        for row in rows:
            expected = padded(pixels[row["sample_id"]][name], array.shape[1])
            np.testing.assert_array_equal(array[row["row"]], expected, err_msg=name)


def test_statistics_are_those_of_the_dates_that_are_there(table):
    bank, pixels = table
    sql = "SELECT sample_id, S1GRD.vv AS vv, S2L2A.B08 AS b08, cloud_mask.share.land AS land FROM t"
    rows = bank.sql(sql).arrow().to_pylist()
    assert sorted(row["sample_id"] for row in rows) == sorted(pixels)
    for row in rows:
        mine = pixels[row["sample_id"]]
        for band, expected in (("vv", mine["S1GRD"][:, 0]), ("b08", mine["S2L2A"][:, 7])):
            values = expected.astype(np.float64)
            assert row[band]["count"] == values.size
            assert row[band]["valid"] == np.isfinite(values).sum()
            assert row[band]["mean"] == pytest.approx(np.nanmean(values), rel=1e-9)
            assert row[band]["max"] == np.nanmax(values)
        assert row["land"] == pytest.approx((mine["cloud_mask"] == 0).mean())
    tiles = bank.sql(
        "SELECT sample_id, time_index, S1GRD.vv.max AS high FROM t.tiles WHERE S1GRD IS NOT NULL"
    )
    found: dict[tuple[str, int], float] = {}
    for row in tiles.arrow().to_pylist():
        key = row["sample_id"], row["time_index"]
        found[key] = max(found.get(key, -np.inf), row["high"])
    assert found == {
        (sample, time): pytest.approx(np.nanmax(date[0]))
        for sample, mine in pixels.items()
        for time, date in enumerate(mine["S1GRD"])
    }


def check(batch: dict, pixels: dict, dates: list[list[int]]) -> None:
    for i, sample in enumerate(batch["sample_id"]):
        for name in STACKS:
            mine = pixels[sample][name]
            expected = padded(mine)[dates[i]]
            there = [d < len(mine) for d in dates[i]]
            if len(dates[i]) == 1:
                expected, there = expected[0], there[0]
            np.testing.assert_array_equal(batch[name][i].numpy(), expected, err_msg=name)
            assert batch["mask"][name][i].tolist() == there
        np.testing.assert_array_equal(batch["DEM"][i].numpy(), pixels[sample]["DEM"][0])


def test_batches_are_padded_and_masked(table):
    bank, pixels = table
    for by_date in (False, True):
        plan = bank.sql(SQL).plan(by_date=by_date)
        seen = []
        for batch in plan.dataloader(batch_size=3, shuffle=True, seed=2):
            assert set(batch["mask"]) == set(STACKS)
            check(batch, pixels, [list(range(N_DATES))] * len(batch["sample_id"]))
            seen += batch["sample_id"]
        assert sorted(seen) == sorted(pixels)


@pytest.mark.parametrize("times", [None, 2, 1])
def test_dates_that_are_not_there_are_filled_when_normalised(table, times):
    bank, pixels = table
    mean, std = np.arange(1.0, 13.0)[:, None, None], 4.0
    constants = {"S2L2A": Normalization(tuple(mean.ravel()), (std,) * 12)}
    plan = bank.sql(SQL).plan(by_date=times is not None)
    normalize = Normalize(plan, constants, fill=-7.0)
    n_lacking = 0
    for batch in plan.dataloader(batch_size=3, seed=1, times=times, transform=normalize):
        for i, sample in enumerate(batch["sample_id"]):
            mine = pixels[sample]["S2L2A"].astype(np.float64)
            dates = batch["time_index"][i].tolist() if times else range(N_DATES)
            expected = np.stack(
                [(mine[d] - mean) / std if d < len(mine) else np.full_like(mine[0], -7.0) for d in dates]
            )
            expected = expected[0] if times == 1 else expected
            np.testing.assert_allclose(batch["S2L2A"][i].numpy(), expected, rtol=1e-5)
            n_lacking += sum(d >= len(mine) for d in dates)
    assert n_lacking or times


@pytest.mark.parametrize("times", [1, 2, 4, [3], [2, 0]])
def test_dates_are_drawn_of_those_that_are_there(table, times):
    bank, pixels = table
    most = times if isinstance(times, int) else 0
    with bank.sql(SQL).dataloader(batch_size=4, seed=1, times=times) as loader:
        for _ in range(8):
            seen = []
            for batch in loader:
                chosen = batch["time_index"].tolist()
                seen += batch["sample_id"]
                check(batch, pixels, chosen)
                for sample, dates in zip(batch["sample_id"], chosen, strict=True):
                    n = min(len(pixels[sample][name]) for name in STACKS)
                    assert sum(d < n for d in dates) >= min(most, n)
            assert sorted(seen) == sorted(pixels)


def test_bands_of_short_stacks(table):
    bank, pixels = table
    plan = bank.sql("SELECT sample_id, bands(S2L2A, ['B08', 'B02']) AS S2L2A FROM t").plan()
    (batch,) = plan.dataloader(batch_size=7)
    assert sorted(batch["sample_id"]) == sorted(pixels)
    for sample, tensor, there in zip(batch["sample_id"], batch["S2L2A"], batch["mask"]["S2L2A"], strict=True):
        mine = pixels[sample]["S2L2A"][:, [7, 1]]
        np.testing.assert_array_equal(tensor.numpy(), padded(mine))
        assert there.tolist() == [t < len(mine) for t in range(N_DATES)]


def test_plans_count_what_is_there(table, tmp_path):
    bank, pixels = table
    plan = bank.sql("SELECT S1GRD FROM t").plan()
    n_dates = sum(len(mine["S1GRD"]) for mine in pixels.values())
    assert n_dates == 7 * N_DATES - 1 - 3
    assert plan.n_blocks == n_dates * 2
    assert plan.tensor_bytes == sum(mine["S1GRD"].nbytes for mine in pixels.values())
    assert plan.metadata_columns == ()
    loaded = tb.Plan.load(plan.save(tmp_path / "plan.arrow"))
    assert loaded.table == plan.table
    whole = bank.sql("SELECT S1GRD FROM t WHERE len(S1_times) = 4").plan()
    assert not any(name.endswith("n_times") for name in whole.table.column_names)
    report = verify(bank, "t", deep=True)
    assert report.sound
    assert report.n_samples == 7


def test_pixels_are_judged_by_the_dates_that_are_there(table):
    bank, pixels = table
    for constant in (2e3, 3e3, 5e3):
        query = bank.sql(f"SELECT sample_id, pixels_share(S2L2A.B08, '> {constant}') AS share FROM t").arrow()
        assert sorted(query["sample_id"].to_pylist()) == sorted(pixels)
        for row in query.to_pylist():
            assert row["share"] == pytest.approx((pixels[row["sample_id"]]["S2L2A"][:, 7] > constant).mean())
    everywhere = bank.sql("SELECT sample_id FROM t WHERE pixels_all(S2L2A.B08, '> 0')").arrow()["sample_id"]
    assert set(everywhere.to_pylist()) == {s for s, m in pixels.items() if (m["S2L2A"][:, 7] > 0).all()}


@pytest.mark.parametrize("homogeneous", [False, True])
def test_short_and_whole_stacks_in_a_mix(table, homogeneous):
    bank, pixels = table
    short = bank.sql(f"{SQL} WHERE len(S1_times) < 4").plan()
    whole = bank.sql(f"{SQL} WHERE len(S1_times) = 4").plan()
    assert (len(short), len(whole)) == (2, 5)
    for times in (None, 2):
        plans = [p if times is None else bank.sql(p.source.sql).plan(by_date=True) for p in (whole, short)]
        seen = set()
        for batch in tb.mix([(p, 1.0) for p in plans], homogeneous=homogeneous).dataloader(
            batch_size=2, times=times
        ):
            n = len(batch["sample_id"])
            dates = batch["time_index"].tolist() if times else [list(range(N_DATES))] * n
            if "mask" not in batch:  # a batch of whole stacks
                batch["mask"] = {name: torch.ones(n, len(dates[0]), dtype=torch.bool) for name in STACKS}
            check(batch, pixels, dates)
            seen.update(batch["sample_id"])
        assert seen == set(pixels)


def test_the_reader_alone_fills_buffers(table):
    bank, pixels = table
    plan = bank.sql(SQL).plan()
    with closing(SampleReader.of(plan)) as reader:
        found = reader.read(np.arange(7))
    assert len(found["S1GRD"]) == len(plan) == 7
    for sample, tensor in zip(plan.table["sample_id"].to_pylist(), found["S1GRD"], strict=True):
        np.testing.assert_array_equal(tensor, padded(pixels[sample]["S1GRD"]))


def test_the_table_has_as_many_dates_as_two_of_the_first_samples_have(make_archives, tmp_path):
    archives, _ = make_archives(*LOCATIONS)
    short = {i: {"S1GRD": n} for i, n in enumerate((3, 3, 2, 4, 2, 1, 3))}  # five are looked at
    bank, report = make_ragged_bank(archives, tmp_path, short)
    assert bank.table("t").schema["S1GRD"].n_times == 3
    (finding,) = report.findings
    assert (finding.kind, finding.modality) == ("other-shape", "S1GRD")
    counts = bank.sql("SELECT S1GRD.vv.count // (264 * 264) AS n FROM t WHERE S1GRD IS NOT NULL").arrow()
    assert sorted(counts["n"].to_pylist()) == [1, 2, 2, 3, 3, 3]
