"""The ingest of archives that nobody here wrote: every tensor, every trap, every interruption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorstore
import xarray
import zarr

import tensorbank as tb
from tensorbank_indexer import IngestOptions, ingest, open_source

INLINE = IngestOptions(n_workers=1, samples_per_shard=8)
TERRAMESH = ("terramesh", "--samples", "20", "--per-tar", "10", "--subset", "both", "--checksums")
N_TRAPPED = 8
TRAPPED = ("terramesh", "--samples", N_TRAPPED, "--per-tar", "4", "--subset", "both", "--checksums")
TRAPS = (
    "missing-member",
    "duplicate-key",
    "truncated-tar",
    "deflated-zip",
    "zarr3",
    "corrupt-chunk",
    "nan-only-band",
    "shape",
    "ds-store",
)


@pytest.fixture(scope="session")
def terramesh(make_archives, tmp_path_factory):
    """A bank with one TerraMesh table, its source, truth and report."""
    source, truth = make_archives(*TERRAMESH)
    folder = tmp_path_factory.mktemp("bank")
    report = ingest(open_source(str(source)), tb.create(folder), "terramesh", INLINE)
    return tb.open(folder), source, pq.read_table(truth / "train_samples.parquet").to_pylist(), report


def crc(pixels: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(pixels))


def truth_of(row: dict) -> dict[str, int]:
    return {k.removeprefix("crc32_"): v for k, v in row.items() if k.startswith("crc32_") and v is not None}


def sample_name(row: dict) -> str:
    return row["sample_id"] if "majortom" in row["key"] else f"{row['sample_id']}_{row['time_index']}"


def test_everything_is_there_and_the_report_adds_up(terramesh):
    bank, _, truth, report = terramesh
    assert (report.n_found, report.n_added, report.n_present, report.n_skipped) == (20, 20, 0, 0)
    assert {f.kind for f in report.findings} <= {"offset-baseline"}, "the maker's product ids are made up"
    snapshot = bank.table("terramesh").snapshot()
    assert (snapshot.n_samples, snapshot.n_parts, snapshot.n_shards) == (20, 1, 3)
    assert snapshot.tensor_bytes == report.tensor_bytes
    rows = bank.sql("SELECT sample_id, subset, modalities FROM terramesh").arrow().to_pylist()
    assert {r["sample_id"] for r in rows} == {sample_name(r) for r in truth}
    for row in rows:
        radar = "S1RTC" if row["subset"] == "majortom" else "S1GRD"
        assert set(row["modalities"]) == {
            "S2L1C",
            "S2L2A",
            "S2RGB",
            radar,
            "DEM",
            "NDVI",
            "LULC",
            "cloud_mask",
        }


def test_three_readers_see_every_array_as_its_source(terramesh):
    bank, _, truth, _ = terramesh
    ((part, url),) = bank.table("terramesh").parts().items()
    folder = Path(url.removeprefix("file://"))
    group = zarr.open_group(folder, mode="r")
    dataset = xarray.open_zarr(folder, consolidated=True, mask_and_scale=False)
    by_id = {sample_name(r): truth_of(r) for r in truth}
    checked = Counter()
    for modality in bank.table("terramesh").schema:
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(folder / modality.name)}}
        readers = {
            "zarr": group[modality.name][:],
            "xarray": dataset[modality.name].values,
            "tensorstore": tensorstore.open(spec).result().read().result(),
        }
        rows = (
            bank.sql(
                f"SELECT sample_id, {modality.name}.ref.row AS row FROM terramesh WHERE {modality.name} IS NOT NULL"
            )
            .arrow()
            .to_pylist()
        )
        for reader, pixels in readers.items():
            assert pixels.shape == (20, *modality.sample_shape)
            for row in rows:
                expected = by_id[row["sample_id"]].get(modality.name)
                if expected is not None:
                    assert crc(pixels[row["row"]]) == expected, (reader, modality.name, row)
                    checked[modality.name] += 1
    assert checked == dict.fromkeys(("S2L1C", "S2L2A", "S2RGB", "DEM", "NDVI", "LULC"), 60) | {
        "S1RTC": 54,
        "S1GRD": 6,
    }
    assert dataset["S2L2A"].attrs["band_names"][0] == "B01"
    assert dataset.attrs["source_format"] == "terramesh"
    assert len(dataset.attrs["source_etags"]) == 21
    assert dataset.attrs["licence"].startswith("CC-BY-SA-4.0")
    assert dataset.attrs["source_revision"].startswith("sha256:")
    assert dataset["S1RTC"].attrs["units"] == "dB"
    assert dataset["NDVI"].attrs["nodata"] == "NaN"
    assert part.startswith("part-")


def test_statistics_are_those_of_the_pixels(terramesh):
    bank, _, _, _ = terramesh
    ((_, url),) = bank.table("terramesh").parts().items()
    group = zarr.open_group(url.removeprefix("file://"), mode="r")
    rows = bank.sql("SELECT * FROM terramesh.samples").arrow().to_pylist()
    table = (
        bank.sql(
            "SELECT sample_id, S2L2A.ref.row AS row, S2L2A.B08 AS b08, NDVI.mean AS ndvi, S1RTC.vh AS vh, "
            "LULC.share.trees AS trees, S2L2A.radiometric_offset.value AS off, cloud_cover, "
            "cloud_mask.share.thick_cloud AS thick "
            "FROM terramesh"
        )
        .arrow()
        .to_pylist()
    )
    assert len(rows) == len(table) == 20
    assert sum(r["off"] is not None for r in table) > 15
    for r in table:
        b08 = group["S2L2A"][r["row"], 0, 7].astype(np.float64)
        assert (r["b08"]["min"], r["b08"]["max"]) == (b08.min(), b08.max())
        assert r["b08"]["mean"] == pytest.approx(b08.mean(), rel=1e-14)
        assert r["b08"]["std"] == pytest.approx(b08.std(), rel=1e-12)
        assert r["b08"]["p50"] == np.quantile(b08, 0.5, method="lower")
        assert r["ndvi"] == pytest.approx(np.nanmean(group["NDVI"][r["row"]].astype(np.float64)), rel=1e-12)
        assert r["trees"] == (group["LULC"][r["row"]] == 2).mean()
        mask = group["cloud_mask"][r["row"]]
        assert r["thick"] == (mask == 4).mean()
        assert r["cloud_cover"] == pytest.approx(((mask == 3) | (mask == 4)).mean(), abs=1e-6)
        assert r["off"] in (None, 1000.0 if group["S2L2A"][r["row"]].min() >= 950 else 0.0)
        if r["vh"] is not None:
            vh = group["S1RTC"][r["row"], 0, 1].astype(np.float64)
            assert r["vh"]["valid"] == np.isfinite(vh).sum()
            assert r["vh"]["std"] == pytest.approx(np.nanstd(vh), rel=1e-9)


def test_tiles_and_shards_bound_their_samples(terramesh):
    bank, _, _, _ = terramesh
    assert bank.sql("SELECT count(*) AS n FROM terramesh.tiles").arrow()["n"][0].as_py() == 20 * 16
    (bounds,) = (
        bank.sql(
            "SELECT count(*) FILTER (t.S2L2A.B04.min >= s.S2L2A.B04.min AND t.S2L2A.B04.max <= s.S2L2A.B04.max) AS inside, "
            "count(*) FILTER (t.S2L2A.B04.min < s.S2L2A.B04.min OR t.S2L2A.B04.max > s.S2L2A.B04.max) AS outside "
            "FROM terramesh.tiles t JOIN terramesh.samples s USING (split, sample_id)"
        )
        .arrow()
        .to_pylist()
    )
    assert bounds == {"inside": 20 * 16, "outside": 0}
    joined = (
        bank.sql(
            "SELECT s.S2L2A.B04.mean AS shard_mean, s.S2L2A.B04.valid AS valid, s.n_samples, "
            "(SELECT sum(x.S2L2A.B04.mean * x.S2L2A.B04.valid) FROM terramesh x WHERE x.S2L2A.ref.key = s.S2L2A.key) AS total "
            "FROM terramesh.shards s ORDER BY s.shard"
        )
        .arrow()
        .to_pylist()
    )
    assert [r["n_samples"] for r in joined] == [8, 8, 4]
    for r in joined:
        assert r["shard_mean"] == pytest.approx(r["total"] / r["valid"], rel=1e-12)


def test_rows_follow_season_then_hilbert(terramesh):
    bank, _, _, _ = terramesh
    rows = (
        bank.sql(
            "SELECT season, hilbert, S2L2A.ref.row AS row FROM terramesh WHERE S2L2A IS NOT NULL ORDER BY row"
        )
        .arrow()
        .to_pylist()
    )
    keys = [(r["season"], r["hilbert"]) for r in rows]
    assert len(set(keys)) > 10
    assert keys == sorted(keys)


def test_a_second_run_adds_nothing(terramesh):
    bank, source, _, _ = terramesh
    before = bank.table("terramesh").history()[0].version
    again = ingest(open_source(str(source)), bank, "terramesh", INLINE)
    assert (again.n_found, again.n_added, again.n_present) == (20, 0, 20)
    assert again.parts == []
    assert bank.table("terramesh").history()[0].version == before


@pytest.mark.parametrize("fmt", ["ssl4eo-zarr", "ssl4eo-wds"])
def test_series_of_four_dates(make_archives, tmp_path, fmt):
    size = (
        ("--files", "1", "--locations-per-file", "4")
        if fmt == "ssl4eo-zarr"
        else ("--locations", "4", "--per-tar", "2")
    )
    source, truth_folder = make_archives(fmt, *size, "--split", "val", "--checksums")
    bank = tb.create(tmp_path)
    report = ingest(open_source(str(source)), bank, "ssl4eo", INLINE)
    assert (report.n_added, [f for f in report.findings if f.kind != "stray-file"]) == (4, [])
    truth = pq.read_table(truth_folder / "val_samples.parquet").to_pylist()
    by_date = {(r["sample_id"], r["time_index"]): truth_of(r) for r in truth}
    ((_, url),) = bank.table("ssl4eo").parts().items()
    group = zarr.open_group(url.removeprefix("file://"), mode="r")
    rows = bank.sql(
        "SELECT sample_id, S2L2A.ref.row AS row, S2_times, cloud_covers, S2L2A.radiometric_offset.value AS o FROM ssl4eo"
    )
    checked = 0
    for row in rows.arrow().to_pylist():
        assert row["S2_times"] == sorted(row["S2_times"])
        assert len(row["S2_times"]) == len(row["cloud_covers"]) == 4
        assert row["o"] == (1000.0 if fmt == "ssl4eo-zarr" else 0.0)
        for modality in bank.table("ssl4eo").schema:
            for date in range(modality.n_times):
                expected = by_date[row["sample_id"], date].get(modality.name)
                if expected is not None:
                    assert crc(group[modality.name][row["row"], date]) == expected, (modality.name, date)
                    checked += 1
    assert checked == 4 * 4 * 4 if fmt == "ssl4eo-zarr" else checked == 4 * (6 * 4 + 1)


@pytest.mark.parametrize("trap", TRAPS)
def test_a_trap_is_named_and_costs_nothing_else(make_archives, tmp_path, trap):
    source, truth_folder = make_archives(*TRAPPED, "--trap", trap)
    bank = tb.create(tmp_path)
    report = ingest(open_source(str(source)), bank, "terramesh", INLINE)
    kinds = Counter(f.kind for f in report.findings)
    planted = json.loads((truth_folder / "train_traps.json").read_text())
    expected = {
        "missing-member": "missing-member",
        "duplicate-key": "duplicate-sample",
        "truncated-tar": "truncated-archive",
        "deflated-zip": "deflated-entries",
        "zarr3": "zarr-v3",
        "corrupt-chunk": "corrupt-chunk",
        "nan-only-band": "nan-only-band",
        "shape": "other-shape",
        "ds-store": "stray-file",
    }[trap]
    assert kinds[expected] >= 1, report.findings
    assert all(f.archive or f.member for f in report.findings)
    assert all(f.reason and f.action for f in report.findings)
    assert report.n_added == N_TRAPPED, "a sample that can be read in part is kept"
    rows = {
        r["sample_id"]: r for r in bank.sql("SELECT sample_id, modalities FROM terramesh").arrow().to_pylist()
    }
    if trap in ("missing-member", "corrupt-chunk", "shape"):
        short = [r for r in rows.values() if len(r["modalities"]) < 8]
        assert len(short) == 1
        found = [f for f in report.findings if f.kind == expected]
        assert not {f.modality for f in found} & set(short[0]["modalities"])
        assert {f.member for f in found} == {planted[0]["member"].removesuffix(".zarr.zip")}
    # every tensor that was delivered is the source's
    truth = {
        sample_name(r): truth_of(r) for r in pq.read_table(truth_folder / "train_samples.parquet").to_pylist()
    }
    ((_, url),) = bank.table("terramesh").parts().items()
    group = zarr.open_group(url.removeprefix("file://"), mode="r")
    wrong = []
    n_compared = 0
    for modality in ("S2L2A", "DEM", "LULC"):
        refs = bank.sql(
            f"SELECT sample_id, {modality}.ref.row AS row FROM terramesh WHERE {modality} IS NOT NULL"
        )
        for row in refs.arrow().to_pylist():
            n_compared += 1
            if crc(group[modality][row["row"]]) != truth[row["sample_id"]][modality]:
                wrong.append((modality, row["sample_id"]))
    assert wrong == []
    assert n_compared >= 3 * N_TRAPPED - 1
    again = ingest(open_source(str(source)), bank, "terramesh", INLINE)
    assert again.n_added == 0


def test_harmless_findings_pass_strict(make_archives, tmp_path):
    source, _ = make_archives(*TRAPPED, "--trap", "ds-store")
    report = ingest(
        open_source(str(source)), tb.create(tmp_path), "t", IngestOptions(n_workers=1, strict=True)
    )
    assert report.n_added == N_TRAPPED


def test_radar_of_another_date_has_its_own_time(make_archives, tmp_path):
    source, truth_folder = make_archives(
        "ssl4eo-wds", "--locations", "5", "--per-tar", "5", "--trap", "s1-order", "--checksums"
    )
    bank = tb.create(tmp_path)
    report = ingest(open_source(str(source)), bank, "t", INLINE)
    truth = pq.read_table(truth_folder / "train_samples.parquet").to_pylist()
    wrong = {r["sample_id"] for r in truth if r["s1_order_wrong"]}
    assert wrong, "the trap was planted"
    assert sum(f.kind == "s1-order" for f in report.findings) == len(wrong)
    rows = bank.sql("SELECT sample_id, S1_times FROM t").arrow().to_pylist()
    assert all(r["S1_times"] == sorted(r["S1_times"]) for r in rows)


def test_a_killed_ingest_resumes_and_ends_as_if_nothing_had_happened(make_archives, tmp_path):
    source, _ = make_archives(*TERRAMESH)
    bank_folder = tmp_path / "bank"
    code = (
        "import sys, tensorbank as tb\n"
        "from tensorbank_indexer import *\n"
        "report = lambda what, done, total: print(what, done, flush=True)\n"
        "ingest(open_source(sys.argv[1]), tb.create(sys.argv[2]), 'terramesh',\n"
        "       IngestOptions(n_workers=1, samples_per_shard=8), progress=report)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(source), str(bank_folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("write"):
            os.kill(process.pid, signal.SIGKILL)
            break
    process.wait(timeout=60)
    process.stdout.close()
    bank = tb.open(bank_folder)
    assert bank.table("terramesh").snapshot().n_samples == 0, "all of a commit or none"
    report = ingest(open_source(str(source)), bank, "terramesh", INLINE)
    assert report.n_added == 20
    assert report.n_resumed >= 8
    assert not list(bank_folder.glob("terramesh/tensors/*.progress/*"))
    whole = tb.create(tmp_path / "whole")
    ingest(open_source(str(source)), whole, "terramesh", INLINE)
    columns = "SELECT * FROM terramesh ORDER BY sample_id"
    assert bank.sql(columns).arrow().equals(whole.sql(columns).arrow())


def test_worker_processes_give_the_same_rows(terramesh, tmp_path):
    bank, source, _, _ = terramesh
    options = IngestOptions(n_workers=2, samples_per_shard=8)
    started = time.monotonic()
    other = tb.create(tmp_path)
    ingest(open_source(str(source)), other, "terramesh", options)
    assert time.monotonic() - started < 120
    for level in ("samples", "tiles", "shards"):
        sql = f"SELECT * FROM terramesh.{level} ORDER BY ALL"
        assert other.sql(sql).arrow().equals(bank.sql(sql).arrow())


def test_the_index_is_small(terramesh):
    snapshot = terramesh[0].table("terramesh").snapshot()
    assert snapshot.index_bytes < 0.01 * snapshot.tensor_bytes  # 20 samples; the benchmark shows 0.3 % of 240


def test_a_table_cannot_have_just_any_name(terramesh, tmp_path):
    with pytest.raises(tb.InvalidInputError, match="name a table"):
        ingest(open_source(str(terramesh[1])), tb.create(tmp_path), "a-b; drop")


@pytest.mark.parametrize("bad", [{"profile": "balence"}, {"n_workers": 0}, {"samples_per_shard": -1}])
def test_wrong_options_are_named(bad):
    with pytest.raises(tb.InvalidInputError, match=next(iter(bad)).split("_")[0]):
        IngestOptions(**bad)


def test_several_parts_are_several_commits_and_one_table(make_archives, tmp_path):
    source, _ = make_archives(*TERRAMESH)
    bank = tb.create(tmp_path)
    options = IngestOptions(n_workers=1, samples_per_shard=8, samples_per_part=6)
    report = ingest(open_source(str(source)), bank, "t", options)
    assert (report.n_found, report.n_added, len(report.parts)) == (20, 20, 3)
    history = bank.table("t").history()
    assert [(h.version, h.n_rows) for h in history if h.part] == [(3, 2), (2, 8), (1, 10)]
    assert [len(bank.at({"t": v}).sql("SELECT sample_id FROM t").arrow()) for v in range(4)] == [
        0,
        10,
        18,
        20,
    ]
    (everything,) = list(bank.sql("SELECT sample_id, DEM FROM t").dataloader(batch_size=20))
    assert len(set(everything["sample_id"])) == 20
    for part in report.parts:
        assert (tmp_path / f"t/tensors/{part}.ingest.json").exists()
