"""One odd sample costs itself only: the others are ingested, and the index holds nothing that bounds or compares wrongly."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tensorbank as tb
from tensorbank_indexer import IngestOptions, ingest, open_source
from tensorbank_indexer.guarded_source import read_each, scan
from tensorbank_indexer.source import Archive, Finding, RawSample, SampleRef, Scan

INLINE = IngestOptions(n_workers=1, samples_per_shard=4)
N = 8


def loaded(root: Path, folder: Path, options: IngestOptions = INLINE) -> tuple[tb.Bank, Any]:
    bank = tb.create(folder)
    return bank, ingest(open_source(str(root)), bank, "t", options)


def rows_of(bank: tb.Bank, level: str = "samples") -> list[dict[str, Any]]:
    """Return all rows of a level, read by plain DuckDB from the Parquet files."""
    folder = bank.url.removeprefix("file://")
    table = duckdb.sql(f"SELECT * FROM read_parquet('{folder}/t/index/{level}/*.parquet')").to_arrow_table()
    return table.to_pylist()


def numbers_in(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from numbers_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from numbers_in(inner)
    elif isinstance(value, float):
        yield value


def assert_finite(bank: tb.Bank) -> None:
    for level in ("samples", "tiles", "shards"):
        found = [v for row in rows_of(bank, level) for v in numbers_in(row)]
        assert len(found) > 10
        assert [v for v in found if not math.isfinite(v)] == [], level


@pytest.mark.parametrize("planted", [-np.inf, np.inf, np.nan])
def test_one_infinite_pixel_leaves_every_answer_right(write_members, pixels_of, tmp_path, planted):
    radar = pixels_of(0, "S1RTC")
    radar[0, 0, 3, 3] = planted
    bank, report = loaded(write_members(N, odd={0: {"pixels": {"S1RTC": radar}}}), tmp_path / "bank")
    assert report.n_added == N
    kinds = [f.kind for f in report.findings]
    assert kinds == ([] if math.isnan(planted) else ["infinite-pixels"])
    assert_finite(bank)
    wide = radar[0, 0].astype(np.float64)
    sound = wide[np.isfinite(wide)]
    (first,) = [r for r in rows_of(bank) if r["stem"] == "majortom_train_0000001"]
    assert first["S1RTC"]["vv"]["valid"] == sound.size == wide.size - 1
    assert first["S1RTC"]["vv"]["mean"] == pytest.approx(sound.mean(), rel=1e-12)
    assert (first["S1RTC"]["vv"]["min"], first["S1RTC"]["vv"]["max"]) == (sound.min(), sound.max())
    sql = "SELECT sample_id, S1RTC FROM t WHERE S1RTC.vv.mean > -15"
    assert len(bank.sql(sql).plan()) == len(bank.sql(sql).arrow()) == N
    everything = np.concatenate(
        [sound, *(pixels_of(i, "S1RTC")[0, 0].astype(np.float64).reshape(-1) for i in range(1, N))]
    )
    for found in (bank.sql("SELECT S1RTC FROM t").statistics("S1RTC"), bank.table("t").describe()["S1RTC"]):
        assert found["vv"].mean == pytest.approx(everything.mean(), rel=1e-12)
        assert found["vv"].std == pytest.approx(everything.std(), rel=1e-9)


GEOREFERENCES: dict[str, tuple[dict[str, Any], str]] = {
    "no reference system": ({"epsg": 0}, "bad-georeference"),
    "an unknown one": ({"epsg": 999_999}, "bad-georeference"),
    "a negative one": ({"epsg": -32633}, "bad-georeference"),
    "one that fills no 32 bits": ({"epsg": np.int64(2**40)}, "bad-georeference"),
    "heights only": ({"epsg": 5703}, "bad-georeference"),
    "NaN in x": ({"x0": math.nan}, "bad-georeference"),
    "infinity in y": ({"y0": math.inf}, "bad-georeference"),
    "a billion metres": ({"x0": 1e9}, "bad-georeference"),
    "more than any": ({"y0": 1e300}, "bad-georeference"),
    "no spacing": ({"res": 0.0}, "bad-georeference"),
    "another zone": ({"epsg": 32654}, "place-mismatch"),
    "the other hemisphere": ({"epsg": 32733}, "place-mismatch"),
    "degrees taken for metres": ({"epsg": 4326, "x0": 100.0, "y0": 10.0, "res": 0.0001}, "place-mismatch"),
}


@pytest.mark.parametrize("name", GEOREFERENCES)
def test_a_bad_georeference_costs_one_sample_its_footprint(write_members, tmp_path, name):
    odd, kind = GEOREFERENCES[name]
    bank, report = loaded(write_members(N, odd={2: odd}), tmp_path / "bank")
    assert report.n_added == N
    assert {f.kind for f in report.findings} == {kind}
    assert {f.member for f in report.findings} == {"majortom_train_0000003"}
    assert_finite(bank)
    rows = {r["stem"]: r for r in rows_of(bank)}
    bad = rows.pop("majortom_train_0000003")
    assert [bad[c] for c in ("epsg", "bounds", "footprint")] == [None, None, None]
    assert (bad["lon"], bad["lat"]) == (pytest.approx(15.2), 45.0)
    assert all(r["epsg"] == 32633 and r["footprint"] for r in rows.values())
    assert len(bank.sql("SELECT sample_id, DEM FROM t WHERE lat > 44 AND lon < 16").plan()) == N


CENTRES: dict[str, tuple[dict[str, Any], str, tuple[float | None, float | None]]] = {
    "longitudes of 0 to 360": ({"lon": 375.2}, "bad-centre", (None, None)),
    "west as more than 180": ({"lon": 345.0, "epsg": 32629, "x0": 0.0}, "longitude-range", (-15.0, 45.0)),
    "a latitude beyond the pole": ({"lat": 91.0}, "bad-centre", (None, None)),
    "no number": ({"lat": math.nan}, "bad-centre", (None, None)),
    "infinity": ({"lon": -math.inf}, "bad-centre", (None, None)),
    "another place than the footprint": ({"lon": -70.0}, "place-mismatch", (-70.0, 45.0)),
}


@pytest.mark.parametrize("name", CENTRES)
def test_a_bad_centre_is_a_finding_and_never_a_bound(write_members, tmp_path, name):
    odd, kind, (lon, lat) = CENTRES[name]
    bank, report = loaded(write_members(N, odd={0: odd}), tmp_path / "bank")
    assert report.n_added == N
    assert kind in {f.kind for f in report.findings}
    assert_finite(bank)
    (row,) = [r for r in rows_of(bank) if r["stem"] == "majortom_train_0000001"]
    assert (row["lon"], row["lat"]) == (lon, lat)
    for shard in rows_of(bank, "shards"):
        of_shard = [r for r in rows_of(bank) if r["DEM"]["ref"]["key"] == shard["DEM"]["key"]]
        for axis in ("lon", "lat"):
            values = [r[axis] for r in of_shard if r[axis] is not None]
            assert (shard[f"min_{axis}"], shard[f"max_{axis}"]) == (min(values), max(values))


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint16", "uint64", "float32", "bool"])
def test_classes_of_any_dtype_are_counted_by_their_values(write_members, pixels_of, tmp_path, dtype):
    pixels = {i: pixels_of(i, "LULC") for i in range(4)}
    if dtype == "bool":
        pixels = {i: p > 4 for i, p in pixels.items()}
    odd = {i: {"pixels": {"LULC": p.astype(dtype)}} for i, p in pixels.items()}
    bank, report = loaded(write_members(4, ("LULC",), odd), tmp_path / "bank")
    assert (report.n_added, report.findings) == (4, [])
    rows = bank.sql(
        "SELECT stem, LULC.share.trees AS trees, LULC.share.water AS water FROM t ORDER BY stem"
    ).arrow()
    for i, row in enumerate(rows.to_pylist()):
        assert row["water"] == (pixels[i].astype(int) == 1).mean() > 0
        assert row["trees"] == (pixels[i].astype(int) == 2).mean()


def test_what_holds_no_classes_is_said(write_members, tmp_path):
    many = np.arange(32 * 32, dtype=np.int64).reshape(1, 1, 32, 32) * 10**12
    whole = np.full((1, 1, 32, 32), 3, np.int64)
    odd = {i: {"pixels": {"LULC": many if i == 1 else whole}} for i in range(4)}
    bank, report = loaded(write_members(4, ("LULC",), odd), tmp_path / "bank")
    assert [(f.kind, f.member) for f in report.findings] == [("too-many-classes", "majortom_train_0000002")]
    rows = (
        bank.sql("SELECT LULC.share.flooded_vegetation AS share FROM t ORDER BY stem")
        .arrow()["share"]
        .to_pylist()
    )
    assert rows == [1.0, 0.0, 1.0, 1.0]


def test_a_modality_that_only_a_late_sample_has_is_ingested(write_members, tmp_path):
    odd = {i: {"pixels": {"DEM": None}} for i in range(7)}
    bank, report = loaded(write_members(N, odd=odd), tmp_path / "bank")
    assert report.n_added == N
    assert len(bank.sql("SELECT sample_id, DEM FROM t WHERE DEM IS NOT NULL").plan()) == 1


class Failing:
    """A source that fails at some samples, wherever one looks."""

    def __init__(self, inner: Any, fails: Sequence[str], error: Exception | None) -> None:
        self.inner, self.fails, self.error = inner, fails, error
        self.format, self.root = inner.format, inner.root
        self.placement, self.attributes = inner.placement, inner.attributes

    def archives(self) -> tuple[list[Archive], list[Finding]]:
        return self.inner.archives()

    def scan(self, archive: Archive) -> Scan:
        if archive.name in self.fails and self.error:
            raise self.error
        return self.inner.scan(archive)

    def read(self, refs: Sequence[SampleRef]) -> Iterator[RawSample]:
        for raw in self.inner.read(refs):
            if raw.ref.stem in self.fails:
                if self.error is None:
                    return
                raise self.error
            yield raw


ERRORS = [
    KeyError("x"),
    MemoryError(),
    RecursionError("deep"),
    ZeroDivisionError(),
    UnicodeDecodeError("utf8", b"x", 0, 1, "no"),
    None,
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
def test_any_failure_of_one_sample_costs_that_sample(write_members, tmp_path, error):
    root = write_members(N)
    bad = ["majortom_train_0000001", "majortom_train_0000004", "majortom_train_0000008"]
    source = Failing(open_source(str(root)), bad, error)
    report = ingest(source, tb.create(tmp_path / "bank"), "t", INLINE)
    assert (report.n_found, report.n_added) == (N, N - 3)
    assert sorted(f.member for f in report.findings if f.kind == "unreadable-sample") == bad
    cause = type(error).__name__ if error else "ended"
    assert all(cause in f.reason for f in report.findings)


def test_a_source_out_of_reach_is_no_fault_of_a_sample(write_members):
    source = open_source(str(write_members(2)))
    (archive,), _ = source.archives()
    refs = source.scan(archive).samples
    failing = Failing(source, [refs[0].stem, archive.name], tb.StorageError("gone"))
    with pytest.raises(tb.StorageError):
        list(read_each(failing, refs))
    with pytest.raises(tb.StorageError):
        scan(failing, archive)


def test_an_archive_that_cannot_be_listed_is_a_finding(write_members):
    source = open_source(str(write_members(2)))
    (archive,), _ = source.archives()
    found = scan(Failing(source, [archive.name], AssertionError("odd")), archive)
    assert ([f.kind for f in found.findings], found.samples) == (["unreadable-archive"], ())


@pytest.mark.parametrize(
    ("given", "kept", "found"),
    [
        (math.nan, None, True),
        (0.3, 0.3, False),
        (35.0, None, True),
        (-math.inf, None, True),
        (1.0000001, 1.0, False),
    ],
)
def test_cloud_cover_is_a_share_or_a_finding(write_members, tmp_path, given, kept, found):
    """The first sample of a shard has the odd cover in a metadata table,
    where a NaN used to hide all the others."""
    root = write_members(N)
    covers = {f"majortom_train_{i + 1:07d}": given if i == 0 else i / 10 for i in range(N)}
    columns = {
        "tar": ["majortom_shard_000001.tar"] * N,
        "zarr": [f"{stem}.zarr.zip" for stem in covers],
        "sample_id": [f"282D_485L_{i // 4}_{i % 4}" for i in range(N)],
        "center_lon": [15 + i / 10 for i in range(N)],
        "center_lat": [45.0] * N,
        "cloud_cover": list(covers.values()),
    }
    pq.write_table(pa.table(columns), root / "train_metadata.parquet")
    bank, report = loaded(root, tmp_path / "bank")
    assert report.n_added == N
    assert [f.kind for f in report.findings] == (["cloud-cover-range"] if found else [])
    assert_finite(bank)
    rows = {r["stem"]: r["cloud_cover"] for r in rows_of(bank)}
    assert rows == {s: (kept if s == "majortom_train_0000001" else c) for s, c in covers.items()}
    expected = sum(c is not None and c <= 1 for c in rows.values())
    assert len(bank.sql("SELECT sample_id, DEM FROM t WHERE cloud_cover <= 1").plan()) == expected >= N - 1


@pytest.mark.parametrize("sample_id", ["\ud800", "", None, 7])
def test_a_sample_that_nothing_names_is_left_out_and_counted(write_members, tmp_path, sample_id):
    source = open_source(str(write_members(N)))

    class Misnaming(Failing):
        def scan(self, archive: Archive) -> Scan:
            found = self.inner.scan(archive)
            first = dataclasses.replace(found.samples[0], sample_id=sample_id, lon=math.inf, time_ns=2**70)
            return dataclasses.replace(found, samples=(first, *found.samples[1:]))

    report = ingest(Misnaming(source, [], None), tb.create(tmp_path / "bank"), "t", INLINE)
    assert report.n_added == N - 1
    assert [f.kind for f in report.findings] == ["nameless-sample"]
    assert report.n_skipped == 1
