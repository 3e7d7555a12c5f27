"""The meaning of an archive's numbers: axes by name, rows by coordinates, packing, missing values, units of time.

The truth is xarray's reading of the same bytes, or plain numpy over the pixels that were written.
"""

from __future__ import annotations

import io
import itertools
import json
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import xarray
import zarr

import tensorbank as tb
from support.hostile.members import (
    array_entries,
    member,
    member_entries,
    pixels_of,
    sample_of,
    stem_of,
    write_tars,
    zipped,
)
from tensorbank.errors import FormatError
from tensorbank_indexer import IngestOptions, ingest, open_source
from tensorbank_indexer.cf.times import NO_TIME, decode_times, times_problem
from tensorbank_indexer.members.member import Member, read_member
from tensorbank_indexer.reports.finding_kinds import HARMLESS

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
INLINE = IngestOptions(n_workers=1, samples_per_shard=8)
HEIGHT, WIDTH = 12, 16
X = 500_005.0 + 10 * np.arange(WIDTH)
Y = 4_999_995.0 - 10 * np.arange(HEIGHT)
NORTH_UP = np.random.default_rng(5).integers(1, 3000, (2, 3, HEIGHT, WIDTH)).astype(np.int16)
MASK = np.random.default_rng(6).integers(0, 7, (2, HEIGHT, WIDTH)).astype(np.uint8)


def read(data: bytes, modality: str = "DEM", **options: Any) -> Member:
    return read_member(data, modality=modality, want_cloud_mask=True, **options)


def xarray_of(data: bytes, **options: Any) -> xarray.Dataset:
    """The member as xarray reads it from an unpacked copy in memory."""
    store = zarr.storage.MemoryStore()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for name in archive.namelist():
            if name != ".zmetadata":
                store._store_dict[name] = zarr.core.buffer.cpu.Buffer.from_bytes(archive.read(name))
    return xarray.open_zarr(store, consolidated=False, zarr_format=2, **options)


def kinds(found: Member) -> set[str]:
    return {problem.kind for problem in found.problems}


@pytest.mark.parametrize("dims", list(itertools.permutations(("time", "band", "y", "x")))[::3])
@pytest.mark.parametrize("turned", ["", "y", "x", "yx"])
def test_pixels_lie_north_up_whatever_the_order_of_axes(dims: tuple[str, ...], turned: str) -> None:
    y, x = (Y[::-1] if "y" in turned else Y), (X[::-1] if "x" in turned else X)
    pixels, mask = NORTH_UP, MASK
    if "y" in turned:
        pixels, mask = pixels[:, :, ::-1], mask[:, ::-1]
    if "x" in turned:
        pixels, mask = pixels[..., ::-1], mask[..., ::-1]
    order = [("time", "band", "y", "x").index(d) for d in dims]
    mask_order = [("time", "y", "x").index(d) for d in dims if d != "band"]
    found = read(
        member(
            pixels.transpose(order),
            dims=dims,
            mask=mask.transpose(mask_order),
            bands=["a", "b", "c"],
            x=x,
            y=y,
            time=[10**18, 2 * 10**18],
        )
    )
    np.testing.assert_array_equal(found.pixels, NORTH_UP)
    np.testing.assert_array_equal(found.cloud_mask, MASK[:, None])
    np.testing.assert_array_equal(found.position.x, X)
    np.testing.assert_array_equal(found.position.y, Y)
    expected = {"flipped"} if turned else set()
    assert kinds(found) == (expected | {"transposed"} if dims != ("time", "band", "y", "x") else expected)


@pytest.mark.parametrize(
    ("dims", "shape"),
    [
        (("y", "x"), (1, 1)),
        (("band", "y", "x"), (1, 3)),
        (("time", "y", "x"), (2, 1)),
        (("x", "y"), (1, 1)),
        (("y", "x", "band"), (1, 3)),
        (("x", "time", "y"), (2, 1)),
    ],
)
def test_axes_that_are_lacking_have_length_one(dims: tuple[str, ...], shape: tuple[int, int]) -> None:
    whole = NORTH_UP[: shape[0], : shape[1]]
    sizes = {"time": shape[0], "band": shape[1], "y": HEIGHT, "x": WIDTH}
    order = sorted(
        range(4), key=lambda i: dims.index(d) if (d := ("time", "band", "y", "x")[i]) in dims else -1
    )
    stored = whole.transpose(order).reshape([sizes[d] for d in dims])
    found = read(
        member(
            stored,
            dims=dims,
            x=X,
            y=Y,
            bands=["a", "b", "c"][: shape[1]],
            time=[10**18, 2 * 10**18][: shape[0]],
        )
    )
    np.testing.assert_array_equal(found.pixels, whole)


def test_axes_of_other_names_are_told_or_refused() -> None:
    found = read(member(NORTH_UP[:1, :1], dims=("time", "band", "up", "across"), x=X, y=Y))
    np.testing.assert_array_equal(found.pixels, NORTH_UP[:1, :1])
    assert kinds(found) == {"unknown-axes"}
    found = read(member(NORTH_UP[:1, :1], dims=("time", "y", "row", "x"), x=X, y=Y))
    assert found.pixels is None
    found = read(member(NORTH_UP[:1, :1], dims=("t", "lon", "lat", "band")))
    assert found.pixels is None


@pytest.mark.parametrize(
    ("y_name", "x_name", "epsg"),
    [
        ("lat", "lon", 4326),
        ("latitude", "longitude", 4326),
        ("northing", "easting", 32633),
        ("Y", "X", 32633),
        ("row", "col", 32633),
    ],
)
def test_axes_and_coordinates_are_known_by_their_other_names(y_name: str, x_name: str, epsg: int) -> None:
    y, x = (Y, X) if epsg == 32633 else (45.0 - 1e-4 * np.arange(HEIGHT), 15.0 + 1e-4 * np.arange(WIDTH))
    stored = NORTH_UP[:1, :1].transpose(0, 1, 3, 2)[..., ::-1]  # x before y, the south first
    entries = member_entries(stored, dims=("time", "band", x_name, y_name), drop=("x", "y"))
    names = ("y", "x") if y_name == "row" else (y_name, x_name)
    entries |= array_entries(names[0], y[::-1], (y_name,)) | array_entries(names[1], x, (x_name,))
    found = read(zipped(entries))
    np.testing.assert_array_equal(found.pixels, NORTH_UP[:1, :1])
    np.testing.assert_array_equal(found.position.y, y)
    np.testing.assert_array_equal(found.position.x, x)
    assert found.position.epsg == epsg
    assert kinds(found) == {"transposed", "flipped"}


@pytest.mark.parametrize(
    "x", [None, X * np.nan, (X - X[0]) ** 2, np.zeros((2, WIDTH))], ids=["none", "nan", "uneven", "2d"]
)
def test_rows_from_the_south_are_turned_without_a_sound_x(x: Any) -> None:
    entries = member_entries(NORTH_UP[:1, :1, ::-1], y=Y[::-1], drop=("x",))
    if x is not None:
        entries |= array_entries("x", x, ("x",) if x.ndim == 1 else ("a", "x"))
    found = read(zipped(entries))
    np.testing.assert_array_equal(found.pixels, NORTH_UP[:1, :1])
    assert found.position.x is None
    assert "flipped" in kinds(found)


def test_a_reference_system_may_be_written_out() -> None:
    utm = pyproj.CRS.from_epsg(32633)
    written = [utm.to_wkt(), utm.to_wkt("WKT1_GDAL"), utm.to_json(), "urn:ogc:def:crs:EPSG::32633"]
    for text in [*written, "http://www.opengis.net/def/crs/EPSG/0/32633"]:
        entries = member_entries(NORTH_UP[:1, :1], x=X, y=Y, drop=("crs",))
        assert read(zipped(entries | array_entries("crs", np.array(text), ()))).position.epsg == 32633, text
        mapping = array_entries("spatial_ref", np.array(0), (), attrs={"crs_wkt": text})
        assert read(zipped(entries | mapping)).position.epsg == 32633, text
    for text in (
        "+init=/etc/passwd:1",
        "+proj=utm +zone=33",
        "{}",
        "WGS 84",
        "PROJCRS[",
        "PROJCRS[" * 10_000,
    ):
        found = read(zipped(entries | array_entries("crs", np.array(text), ())))
        assert (found.position.epsg, kinds(found)) == (None, {"bad-georeference"}), text


def test_a_rotated_grid_has_no_footprint() -> None:
    entries = member_entries(NORTH_UP[:1, :1], x=X, y=Y)
    for rotation, rotated in (("0.0", False), ("0.5", True)):
        transform = {"GeoTransform": f"500000.0 10.0 {rotation} 5000000.0 0.0 -10.0"}
        found = read(zipped(entries | array_entries("spatial_ref", np.array(0), (), attrs=transform)))
        assert (found.position.x is None) == rotated
        assert kinds(found) == ({"bad-georeference"} if rotated else set())


def test_pixels_statistics_and_places_follow_the_coordinates(tmp_path: Path) -> None:
    """Three copies of one scene, stored in three ways, are one scene: in pixels, tiles, bounds and masks."""
    pixels = np.sort(NORTH_UP[:1, :1].reshape(1, 1, -1)).reshape(1, 1, HEIGHT, WIDTH)
    mask = MASK[:1]
    ways = {
        0: member(pixels, mask=mask, x=X, y=Y, sample=sample_of(0)),
        1: member(
            pixels[:, :, ::-1, ::-1], mask=mask[:, ::-1, ::-1], x=X[::-1], y=Y[::-1], sample=sample_of(1)
        ),
        2: member(
            pixels.transpose(3, 2, 1, 0),
            dims=("x", "y", "band", "time"),
            mask=mask.transpose(2, 1, 0),
            x=X,
            y=Y,
            sample=sample_of(2),
        ),
    }
    root = write_tars(tmp_path / "source", {"S2L2A": {stem_of(i): data for i, data in ways.items()}})
    report = ingest(open_source(str(root)), tb.create(tmp_path / "bank"), "t", INLINE)
    assert {f.kind for f in report.findings} == {"flipped", "transposed"} <= HARMLESS
    bank = tb.open(tmp_path / "bank")
    rows = bank.sql("SELECT sample_id, part, bounds, S2L2A.ref.row AS row FROM t").arrow().to_pylist()
    assert len(rows) == 3
    for row in rows:
        group = zarr.open_group(bank.table("t").parts()[row["part"]].removeprefix("file://"), mode="r")
        np.testing.assert_array_equal(group["S2L2A"][row["row"]], pixels)
        np.testing.assert_array_equal(group["cloud_mask"][row["row"]], mask[None])
        assert (row["bounds"]["x_min"] + 5, row["bounds"]["y_max"] - 5) == (X[0], Y[0])
    tiles = bank.sql("SELECT sample_id, y0, y1, x0, x1, S2L2A.mean AS mean FROM t.tiles").arrow().to_pylist()
    assert len(tiles) == 3 * 16
    for tile in tiles:
        window = pixels[0, 0, tile["y0"] : tile["y1"], tile["x0"] : tile["x1"]]
        assert tile["mean"] == pytest.approx(window.mean(), rel=1e-6)


ENCODINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "missing value": {"_FillValue": -9999, "dtype": "int16"},
    "packed": {"scale_factor": 0.25, "_FillValue": -32768, "dtype": "int16"},
    "chunks": {"chunks": (1, 1, 8, 8)},
    "shards": {"chunks": (1, 1, 4, 8), "shards": (2, 3, 12, 16)},
}


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.filterwarnings("ignore:Consolidated metadata", "ignore:The data type")
def test_members_that_xarray_writes(tmp_path: Path, version: int, encoding: str) -> None:
    if version == 2 and encoding == "shards":
        return
    pixels = NORTH_UP.astype(np.float32)
    pixels[0, 0, 0, 0] = np.nan if encoding in ("missing value", "packed") else 5
    coordinates = {
        "time": np.array(["2020-05-24T18:49:21", "2020-08-24T18:49:21"], "M8[ns]"),
        "band": ["a", "b", "c"],
        "y": Y,
        "x": X,
        "sample": "1D_2L_0_0",
    }
    written = xarray.Dataset(
        {
            "bands": (("time", "band", "y", "x"), pixels),
            "center_lon": 15.0,
            "center_lat": 45.0,
            "crs": 32633,
            "file_id": (("time",), ["S2A", "S2B"]),
        },
        coords=coordinates,
    )
    written.to_zarr(tmp_path, zarr_format=version, encoding={"bands": ENCODINGS[encoding]}, consolidated=True)
    files = {p.relative_to(tmp_path).as_posix(): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    found = read(zipped(files, consolidated=False))
    np.testing.assert_array_equal(found.pixels, pixels)
    assert (found.bands, found.position.sample_id, found.position.epsg) == (
        ("a", "b", "c"),
        "1D_2L_0_0",
        32633,
    )
    assert found.position.times_ns.tolist() == coordinates["time"].astype(np.int64).tolist()
    assert kinds(found) <= HARMLESS


def test_metadata_that_disagree_are_told() -> None:
    entries = member_entries(pixels_of(1))
    own = json.loads(entries["bands/.zarray"])
    sound = zipped(entries)
    assert kinds(read(sound)) == set()
    with zipfile.ZipFile(io.BytesIO(sound)) as archive:
        whole = archive.read(".zmetadata")
    other = json.dumps(own | {"shape": [1, 1, 8, 8]}).encode()
    found = read(zipped(entries | {"bands/.zarray": other, ".zmetadata": whole}))
    np.testing.assert_array_equal(found.pixels, pixels_of(1))
    assert kinds(found) == {"metadata-mismatch"}
    assert "metadata-mismatch" not in HARMLESS


# ---------------------------------------------------------------- packing and missing values

DATA = np.array([[-9999, 0, 1], [2488, -5, 7]])
PACKINGS: dict[str, tuple[Any, dict[str, Any], Any]] = {
    "int16 scaled": ("<i2", {"scale_factor": 0.0001}, None),
    "int16 scaled and shifted": ("<i2", {"scale_factor": 0.0001, "add_offset": -0.1}, None),
    "int16 missing": ("<i2", {}, -9999),
    "int16 missing by an attribute": ("<i2", {"missing_value": -9999}, None),
    "int16 packed and missing": ("<i2", {"scale_factor": 0.01, "add_offset": 5.0}, -9999),
    "int32 missing": ("<i4", {}, -9999),
    "int32 scaled": ("<i4", {"scale_factor": 0.5}, -9999),
    "uint16 shifted": ("<u2", {"add_offset": 1000.0}, None),
    "float32 missing": ("<f4", {}, -9999.0),
    "float32 scaled": ("<f4", {"scale_factor": 2.0}, -9999.0),
    "float64 missing": ("<f8", {}, -9999.0),
    "float16 missing": ("<f2", {"missing_value": -10000.0}, None),
    "int8 unsigned": ("|i1", {"_Unsigned": "true"}, None),
    "big-endian": (">i2", {"scale_factor": 0.5}, -9999),
}


@pytest.mark.parametrize("name", PACKINGS)
def test_numbers_mean_what_xarray_takes_them_for(name: str) -> None:
    dtype, attrs, fill = PACKINGS[name]
    pixels = np.where(DATA == -9999, 200, DATA) if dtype in ("<u2", "|i1") else DATA
    data = member(pixels.astype(np.int64).astype(dtype)[None, None], attrs=attrs, fill_value=fill)
    truth = xarray_of(data)["bands"].values
    found = read(data)
    assert found.pixels.dtype.kind == ("f" if dtype != "|i1" else "u")
    np.testing.assert_allclose(found.pixels, truth, rtol=1e-6)
    assert kinds(found) <= HARMLESS
    assert kinds(found) or dtype == "|i1"


def test_a_fill_value_of_version_3_is_a_number_like_others(tmp_path: Path) -> None:
    pixels = np.where(pixels_of(1) < 1500, -1, pixels_of(1)).astype(np.int16)
    group = zarr.open_group(tmp_path, mode="w", zarr_format=3)
    group.create_array("bands", data=pixels, fill_value=-1, dimension_names=("time", "band", "y", "x"))
    files = {str(p.relative_to(tmp_path)): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    found = read(zipped(files, consolidated=False))
    truth = xarray.open_zarr(tmp_path, consolidated=False)["bands"].values
    assert found.pixels.dtype == truth.dtype == np.int16
    np.testing.assert_array_equal(found.pixels, truth)


def test_a_missing_value_is_rounded_as_the_pixels_are() -> None:
    pixels = np.array([[[[-9999, 1]]]], np.float16)
    found = read(member(pixels, attrs={"missing_value": -9999.0}))
    np.testing.assert_array_equal(found.pixels, [[[[np.nan, 1]]]])


@pytest.mark.parametrize("attrs", [{"nodata": -9999}, {"nodata": "-9999"}, {"nodatavals": [-9999.0]}])
@pytest.mark.parametrize("dtype", ["<i2", "<f4"])
def test_missing_values_of_gdal_are_honoured(attrs: dict[str, Any], dtype: str) -> None:
    found = read(member(DATA.astype(dtype)[None, None], attrs=attrs))
    np.testing.assert_array_equal(found.pixels, np.where(DATA == -9999, np.nan, DATA)[None, None])
    assert len(kinds(found)) == 1
    assert kinds(found) <= HARMLESS


@pytest.mark.parametrize(
    "attrs",
    [
        {"scale_factor": 1.0, "add_offset": 0},
        {"units": "m"},
        {"_FillValue": float("nan")},
    ],
)
def test_what_declares_nothing_is_kept_bit_for_bit(attrs: dict[str, Any]) -> None:
    found = read(member(pixels_of(1), attrs=attrs, fill_value=0))
    assert found.pixels.dtype == np.int16
    np.testing.assert_array_equal(found.pixels, pixels_of(1))


@pytest.mark.parametrize(
    "attrs",
    [
        {"valid_range": [0, 10_000]},
        {"valid_min": 0},
        {"scale_factor": [0.1, 0.2]},
        {"scale_factor": "nothing"},
        {"add_offset": None},
        {"scale_factor": float("inf")},
        {"scale_factor": 10**400},
        {"_FillValue": "nothing"},
        {"_FillValue": 1e9},
        {"missing_value": [{}]},
        {"_Unsigned": "maybe"},
    ],
)
def test_what_is_not_understood_is_told_and_pixels_kept(attrs: dict[str, Any]) -> None:
    found = read(member(pixels_of(1), attrs=attrs))
    np.testing.assert_array_equal(found.pixels, pixels_of(1))
    assert kinds(found) == {"ignored-attribute"}
    assert "ignored-attribute" not in HARMLESS


def test_codes_of_classes_are_not_unpacked() -> None:
    codes = (pixels_of(1) % 9).astype(np.uint8)
    found = read(member(codes, fill_value=8, attrs={"scale_factor": 2.0}), "LULC", codes=True)
    np.testing.assert_array_equal(found.pixels, codes)
    assert kinds(found) == {"ignored-attribute"}


def test_statistics_predicates_and_batches_see_physical_numbers(tmp_path: Path) -> None:
    raw = pixels_of(3)
    raw[0, 0, 0, :5] = -9999
    ndvi = np.where(raw == -9999, np.nan, raw * 1e-4).astype(np.float32)
    dem = np.full((1, 1, 16, 16), 250.0, np.float32)
    dem[0, 0, 2] = -9999
    members = {
        "NDVI": {
            stem_of(i): member(
                raw, bands=["NDVI"], sample=sample_of(i), attrs={"scale_factor": 1e-4}, fill_value=-9999
            )
            for i in range(3)
        },
        "DEM": {
            stem_of(i): member(dem, bands=["DEM"], sample=sample_of(i), attrs={"_FillValue": -9999.0})
            for i in range(3)
        },
    }
    root = write_tars(tmp_path / "source", members)
    report = ingest(open_source(str(root)), tb.create(tmp_path / "bank"), "t", INLINE)
    assert {f.kind for f in report.findings} <= HARMLESS
    assert report.n_added == 3
    bank = tb.open(tmp_path / "bank")
    for row in (
        bank.sql(
            "SELECT NDVI.mean AS mean, NDVI.min AS min, NDVI.max AS max, NDVI.valid AS valid, DEM.min AS low, "
            "DEM.valid AS dem_valid FROM t"
        )
        .arrow()
        .to_pylist()
    ):
        assert row["mean"] == pytest.approx(np.nanmean(ndvi.astype(np.float64)), rel=1e-6)
        assert (row["min"], row["max"]) == (np.nanmin(ndvi), np.nanmax(ndvi))
        assert row["valid"] == 251
        assert (row["low"], row["dem_valid"]) == (250.0, 240)
    assert len(bank.sql("SELECT NDVI FROM t WHERE pixels_any('NDVI', '< 0')").plan()) == 0
    assert len(bank.sql("SELECT NDVI FROM t WHERE pixels_any('NDVI', '> 0.1')").plan()) == 3
    assert len(bank.sql("SELECT DEM FROM t WHERE pixels_any('DEM', '< 0')").plan()) == 0


def test_a_declared_missing_value_that_no_pixel_has_changes_no_type(tmp_path: Path) -> None:
    members = {stem_of(i): member(pixels_of(i), sample=sample_of(i)) for i in range(6)}
    members |= {stem_of(7): member(pixels_of(7), sample=sample_of(7), fill_value=-9999)}
    holed = pixels_of(8)
    holed[0, 0, 0, 0] = -9999
    members |= {stem_of(8): member(holed, sample=sample_of(8), fill_value=-9999)}
    root = write_tars(tmp_path / "source", {"DEM": members})
    report = ingest(open_source(str(root)), tb.create(tmp_path / "bank"), "t", INLINE)
    assert report.n_added == 7
    assert {f.member for f in report.findings if f.kind == "other-dtype"} == {stem_of(8)}
    bank = tb.open(tmp_path / "bank")
    assert bank.table("t").schema["DEM"].dtype == "int16"
    (row,) = (
        bank.sql(f"SELECT part, DEM.ref.row AS row FROM t WHERE stem = '{stem_of(7)}'").arrow().to_pylist()
    )
    group = zarr.open_group(bank.table("t").parts()[row["part"]].removeprefix("file://"), mode="r")
    np.testing.assert_array_equal(group["DEM"][row["row"]], pixels_of(7))


# ---------------------------------------------------------------- times

UNITS = {
    "days since 2000-01-01 02:00:00 +05:30": ("1999-12-31T20:30:00", timedelta(days=1)),
    "days since 2000-01-01 02:00:00 -08:00": ("2000-01-01T10:00:00", timedelta(days=1)),
    "hours since 2019-06-15T12:30:15Z": ("2019-06-15T12:30:15", timedelta(hours=1)),
    "seconds since 1970-01-01 00:00:00 UTC": ("1970-01-01T00:00:00", timedelta(seconds=1)),
    "minutes since 2001-9-11 8:46": ("2001-09-11T08:46:00", timedelta(minutes=1)),
    "milliseconds since 1999-12-31 23:59:59.25": ("1999-12-31T23:59:59.250000", timedelta(milliseconds=1)),
    "days since 1850-01-01": ("1850-01-01T00:00:00", timedelta(days=1)),
    "seconds since 2020-05-24 18:49:21 +0100": ("2020-05-24T17:49:21", timedelta(seconds=1)),
    "h since 2020-05-24 18 -6": ("2020-05-25T00:00:00", timedelta(hours=1)),
}


@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("dtype", ["<i4", "<i8", "<f8", "<u2", ">i4"])
def test_units_of_time_have_an_origin_and_a_zone(units: str, dtype: str) -> None:
    origin, step = UNITS[units]
    counts = [0, 1, 61, 7_305]
    truth = [datetime.fromisoformat(origin + "+00:00") + n * step for n in counts]
    found = decode_times(np.array(counts).astype(dtype), {"units": units})
    assert found.tolist() == [(t - EPOCH) // timedelta(microseconds=1) * 1000 for t in truth]


def test_parts_of_days_and_missing_times() -> None:
    attrs = {"units": "days since 2000-01-01 00:00:00", "_FillValue": -1.0}
    found = decode_times(np.array([0.5, -1.0, np.nan, np.inf, 1e300]), attrs)
    assert found[0] == np.datetime64("2000-01-01T12:00", "ns").astype(np.int64)
    assert found[1:].tolist() == [NO_TIME] * 4
    seconds = decode_times(np.array([5, "NaT"], "M8[s]"), {})
    assert seconds.tolist() == [5 * 10**9, NO_TIME]
    origin_far_away = decode_times(
        np.array([730_120]), {"units": "days since 0001-01-01", "calendar": "proleptic_gregorian"}
    )
    assert origin_far_away[0] == np.datetime64("2000-01-01", "ns").astype(np.int64) + 86_400 * 10**9


@pytest.mark.parametrize("packing", [{"scale_factor": 0.25}, {"add_offset": 18_000}, {"scale_factor": 10.0}])
def test_packed_times_are_what_xarray_takes_them_for(packing: dict[str, Any]) -> None:
    attrs = {
        "units": "days since 1970-01-01" if "add_offset" in packing else "days since 2010-01-01",
        **packing,
    }
    data = member(pixels_of(1), time=np.array([7], np.int16), time_attrs=attrs)
    truth = xarray_of(data)["time"].values.astype("M8[ns]").astype(np.int64)
    assert read(data).position.times_ns.tolist() == truth.tolist()


@pytest.mark.parametrize(
    "attrs",
    [
        {"units": "months since 2000-01-01"},
        {"units": "days"},
        {"units": "days since 2000-02-30"},
        {"units": "days since 2000-01-01 25:00"},
        {"units": "days since 2000-01-01 +99:00"},
        {"units": "days since 2000-01-01", "calendar": "noleap"},
        {"units": "days since 2000-01-01", "calendar": 5},
        {"units": "days since 0001-01-01", "calendar": "standard"},
    ],
)
def test_times_that_mean_nothing_are_told(attrs: dict[str, Any]) -> None:
    assert times_problem(np.array([5]), attrs)
    assert decode_times(np.array([5]), attrs).tolist() == [NO_TIME]
    found = read(member(pixels_of(1), time=5, time_attrs=attrs))
    assert "damaged-time" in kinds(found)


def test_an_ingest_without_readable_modality_says_why(tmp_path: Path) -> None:
    entries = member_entries(pixels_of(1), compressor=None)
    hidden = entries["bands/.zarray"].replace(b'"compressor": null', b'"compressor": {"id": "sprintz"}')
    root = write_tars(tmp_path / "s", {"DEM": {stem_of(1): zipped(entries | {"bands/.zarray": hidden})}})
    with pytest.raises(FormatError, match="sprintz"):
        ingest(open_source(str(root)), tb.create(tmp_path / "bank"), "t", INLINE)
