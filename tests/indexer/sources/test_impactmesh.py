"""ImpactMesh: its layout as documented, and members that are damaged, odd or hostile, each of which costs itself only."""

from __future__ import annotations

import io
import json
import shutil
import sys
import tarfile
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import tifffile
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile
from rasterio.transform import Affine

import tensorbank as tb
from support.hostile.members import array_entries, zipped
from tensorbank import InvalidInputError
from tensorbank_indexer import IngestOptions, ingest, open_source
from tensorbank_indexer.containers.limits import ReadLimits

SIDE, N_DATES = 16, 4
ENDS = {
    "S2L2A": "S2L2A.zarr.zip",
    "S1RTC": "S1RTC.zarr.zip",
    "DEM": "DEM.tif",
    "annotation": "annotation_flood.tif",
}
BANDS = {"S2L2A": [f"B{i:02d}" for i in range(1, 13)], "S1RTC": ["vv", "vh"]}
DATES = ["2023-05-01T10:20:30Z", "2023-05-13T10:20:30Z", "2023-05-25T10:20:30+00:00", "2023-06-06T10:20:30"]
GRID = Affine(10, 0, 600_000, 0, -10, 4_900_000)
INLINE = IngestOptions(n_workers=1)
Members = dict[str, dict[str, bytes]]
"""The members by modality and patch."""


def pixels_of(patch: str, modality: str) -> np.ndarray:
    """The pixels of a member, which follow from its name: (time, band, y, x), or (y, x)."""
    rng = np.random.default_rng([*patch.encode(), *modality.encode()])
    if modality == "S2L2A":
        pixels = rng.integers(1, 9000, (N_DATES, 12, SIDE, SIDE)).astype(np.int16)
        pixels[2, :, :3] = -9999
        return pixels
    if modality == "S1RTC":
        return rng.normal(-12, 4, (N_DATES, 2, SIDE, SIDE)).astype(np.float32)
    if modality == "DEM":
        return rng.normal(200, 9, (SIDE, SIDE)).astype(np.float32)
    return rng.integers(-1, 3, (SIDE, SIDE)).astype(np.int16)


def group_of(patch: str, modality: str, **attributes: object) -> bytes:
    """A zarr group of version 2 in a zip, with attributes of the group as the published ones have them."""
    said = {"datetime": ";".join(DATES), "center_lat": 44.25, "center_lon": 10.25} | attributes
    x, y = 600_005.0 + 10.0 * np.arange(SIDE), 4_899_995.0 - 10.0 * np.arange(SIDE)
    entries = array_entries("bands", pixels_of(patch, modality), ("time", "band", "y", "x"))
    for name, values in (("band", np.array(BANDS[modality])), ("x", x), ("y", y)):
        entries |= array_entries(name, values, (name,))
    grid = {
        "attrs": {
            "crs_wkt": 'PROJCS["WGS 84 / UTM zone 32N",AUTHORITY["EPSG","32632"]]',
            "spatial_ref": "EPSG:32632",
        }
    }
    entries |= array_entries("spatial_ref", np.array(0), (), **grid)
    return zipped(entries | {".zattrs": json.dumps(said).encode(), ".zgroup": b'{"zarr_format": 2}'})


def tif_of(pixels: np.ndarray, transform: Affine | None = GRID, **more: object) -> bytes:
    crs = {} if transform is None else {"crs": "EPSG:32632", "transform": transform}
    profile = {
        "count": 1,
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "dtype": pixels.dtype.name,
        **crs,
        **more,
    }
    with MemoryFile() as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with file.open(driver="GTiff", **profile) as raster:
            raster.write(pixels, 1)
        return file.read()


def sound(patches: list[str]) -> Members:
    """Sound members of some patches."""
    found: Members = {}
    for modality in ENDS:
        made = {}
        for patch in patches:
            made[patch] = (
                group_of(patch, modality)
                if modality in BANDS
                else tif_of(pixels_of(patch, modality), compress="deflate")
            )
        found[modality] = made
    return found


def write(folder: Path, members: Mapping[str, Mapping[str, bytes]], split: str = "train") -> Path:
    """Write ``{split}/{modality}.tar`` with members ``{modality}/{patch}_...``; a name with a slash is taken as it is."""
    (folder / split).mkdir(parents=True, exist_ok=True)
    for modality, of_patches in members.items():
        stem = "MASK" if modality == "annotation" else modality
        with tarfile.open(folder / split / f"{stem}.tar", "w") as tar:
            for patch, data in of_patches.items():
                name = patch if "/" in patch else f"{stem}/{patch}_{ENDS[modality]}"
                header = tarfile.TarInfo(name)
                header.size = len(data)
                tar.addfile(header, io.BytesIO(data))
    return folder


def check(bank: tb.Bank, patch: str, lacking: str = "") -> None:
    """Check that the table has the pixels of a patch bit for bit."""
    found = bank.read(patch, table="t")
    assert set(found) == {*ENDS} - {lacking}
    for modality, stored in found.items():
        expected = pixels_of(patch, modality)
        np.testing.assert_array_equal(stored, expected if expected.ndim == 4 else expected[None, None])
        assert stored.dtype == expected.dtype


def test_a_copy_is_ingested_as_documented(tmp_path):
    """Two splits, files of the repository beside them, and quicklooks, which are not read."""
    root = write(tmp_path / "ImpactMesh-Flood", sound(["EMSR1_7_a", "EMSR2_1_b"]))
    write(root, sound(["EMSR1_8_c"]), "test")
    (root / "README.md").write_text("# ImpactMesh")
    (root / "split").mkdir()
    (root / "split" / "impactmesh_flood_test_holdout.txt").write_text("EMSR1_8_c\n")
    (root / "train" / "S2RGB.tar").write_bytes(b"pictures")
    source = open_source(str(root))
    assert source.format == "impactmesh"
    bank = tb.create(tmp_path / "bank")
    report = ingest(source, bank, "t", INLINE)
    assert (report.n_added, list(report.findings)) == (3, [])
    for patch in ("EMSR1_7_a", "EMSR2_1_b", "EMSR1_8_c"):
        check(bank, patch)
    sql = "SELECT sample_id, subset, split, epsg, lon, lat, bounds, S2_times, S1_times FROM t ORDER BY sample_id"
    rows = bank.sql(sql).arrow().to_pylist()
    assert [(r["subset"], r["split"]) for r in rows] == [
        ("EMSR1", "train"),
        ("EMSR1", "test"),
        ("EMSR2", "train"),
    ]
    for row in rows:
        assert row["epsg"] == 32632
        assert (row["lon"], row["lat"]) == pytest.approx((10.25, 44.25))
        edges = {"x_min": 600_000, "x_max": 600_160, "y_min": 4_899_840, "y_max": 4_900_000}
        assert {name: row["bounds"][name] for name in edges} == edges
        for times in (row["S2_times"], row["S1_times"]):
            assert [t.strftime("%Y-%m-%dT%H:%M:%S") for t in times] == [date[:19] for date in DATES]
    schema = bank.table("t").schema
    assert schema["S2L2A"].band_names == tuple(BANDS["S2L2A"])
    assert schema["annotation"].band_names == ("annotation",)
    events = (
        bank.sql("SELECT sample_id FROM t WHERE subset NOT IN ('EMSR1')").arrow()["sample_id"].to_pylist()
    )
    assert events == ["EMSR2_1_b"], "events are kept apart by SQL"


def test_the_folder_of_one_split_is_read_and_what_a_split_lacks_is_told(tmp_path):
    write(tmp_path, sound(["e1_a"]))
    write(tmp_path, {"S2L2A": sound(["e2_b"])["S2L2A"]}, "val")
    shutil.copy(tmp_path / "train" / "DEM.tar", tmp_path / "val" / "DEM.tar.gz")
    (tmp_path / "val" / "notes.bin").write_bytes(b"?")
    archives, findings = open_source(str(tmp_path)).archives()
    assert [(a.name, len(a.files)) for a in archives] == [("train", 4), ("val", 1)]
    told = {(f.kind, f.archive, f.modality or f.member) for f in findings}
    lacking = {("missing-member", "val", m) for m in ("S1RTC", "DEM", "annotation")}
    assert told == lacking | {
        ("compressed-archive", "", "val/DEM.tar.gz"),
        ("stray-file", "", "val/notes.bin"),
    }
    (alone,), _ = open_source(str(tmp_path / "train")).archives()
    assert alone.split == "train"


def huge_tif() -> bytes:
    """A few bytes that claim 60,000 x 60,000 pixels."""
    out = io.BytesIO()
    tifffile.imwrite(out, shape=(64, 64), dtype=np.uint8, data=np.zeros((64, 64), np.uint8))
    data = bytearray(out.getvalue())
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        for tag in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            found = file.pages[0].tags[tag]
            data[found.valueoffset : found.valueoffset + 2] = (60_000).to_bytes(2, "little")
    return bytes(data)


VRT = (
    b'<VRTDataset rasterXSize="16" rasterYSize="16"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
    b"<SourceFilename>/etc/hostname</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
)
FLAT = tif_of(np.zeros((SIDE, SIDE), np.int16))
ODD = {
    "a tif that is cut off": ("DEM", FLAT[:200], "corrupt-member"),
    "no tif": ("annotation", b"not an image" * 40, "corrupt-member"),
    "an empty member": ("DEM", b"", "corrupt-member"),
    "a document of GDAL that names a file": ("annotation", VRT, "corrupt-member"),
    "a tif that claims gigabytes": ("DEM", huge_tif(), "over-limit"),
    "a zarr group that is cut off": ("S1RTC", group_of("e1_odd", "S1RTC")[:500], "truncated-archive"),
    "a zip that is none": ("S2L2A", b"PK" + bytes(300), "truncated-archive"),
}


@pytest.mark.parametrize("odd", ODD)
def test_a_member_that_cannot_be_read_costs_itself(tmp_path, odd):
    modality, data, kind = ODD[odd]
    members = sound(["e1_a", "e1_odd", "e1_z"])
    members[modality]["e1_odd"] = data
    source = open_source(
        str(write(tmp_path / "archive", members)), limits=ReadLimits(max_sample_bytes=64 << 20)
    )
    bank = tb.create(tmp_path / "bank")
    report = ingest(source, bank, "t", INLINE)
    assert report.n_added == 3
    assert {(f.kind, f.member, f.modality) for f in report.findings} == {(kind, "e1_odd", modality)}
    for patch in ("e1_a", "e1_z"):
        check(bank, patch)
    check(bank, "e1_odd", lacking=modality)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"annotation": tif_of(pixels_of("e1_odd", "annotation"), None)}, "bad-georeference"),
        ({"DEM": tif_of(pixels_of("e1_odd", "DEM"), GRID @ Affine.rotation(20))}, "bad-georeference"),
        ({"S2L2A": group_of("e1_odd", "S2L2A", datetime="yesterday;2023-05-01")}, "damaged-time"),
        ({"S2L2A": group_of("e1_odd", "S2L2A", datetime=";".join(DATES[:3]))}, "damaged-time"),
        ({"DEM": tif_of(pixels_of("e1_odd", "DEM"), GRID @ Affine.translation(5, 0))}, "footprint-mismatch"),
    ],
)
def test_what_a_member_says_wrongly_of_itself_is_told_and_its_pixels_count(tmp_path, change, kind):
    members = sound(["e1_a", "e1_odd"])
    for modality, data in change.items():
        members[modality]["e1_odd"] = data
    bank = tb.create(tmp_path / "bank")
    report = ingest(open_source(str(write(tmp_path / "archive", members))), bank, "t", INLINE)
    assert {(f.kind, f.member, f.modality) for f in report.findings} == {(kind, "e1_odd", m) for m in change}
    for patch in ("e1_a", "e1_odd"):
        check(bank, patch)


def test_names_that_do_not_belong_are_told_and_members_that_lack(tmp_path):
    members = sound(["e1_a", "e1_b"])
    del members["DEM"]["e1_b"]
    members["DEM"]["DEM/notes.txt"] = b"?"
    members["DEM"]["DEM/._e1_a_DEM.tif"] = b"of a Mac"
    members["annotation"]["MASK/e1_c_DEM.tif"] = b"of another tar"
    bank = tb.create(tmp_path / "bank")
    report = ingest(open_source(str(write(tmp_path / "archive", members))), bank, "t", INLINE)
    told = sorted((f.kind, f.modality, f.member) for f in report.findings)
    assert told == [
        ("missing-member", "DEM", "e1_b"),
        ("stray-file", "DEM", "DEM/._e1_a_DEM.tif"),
        ("stray-file", "DEM", "DEM/notes.txt"),
        ("stray-file", "annotation", "MASK/e1_c_DEM.tif"),
    ]
    check(bank, "e1_a")
    check(bank, "e1_b", lacking="DEM")


def test_a_tif_that_runs_from_south_to_north_is_turned(tmp_path):
    members = sound(["e1_a"])
    upside_down = Affine(10, 0, 600_000, 0, 10, 4_899_840)
    members["DEM"]["e1_a"] = tif_of(pixels_of("e1_a", "DEM")[::-1].copy(), upside_down)
    bank = tb.create(tmp_path / "bank")
    report = ingest(open_source(str(write(tmp_path / "archive", members))), bank, "t", INLINE)
    assert [f.kind for f in report.findings] == ["flipped"]
    check(bank, "e1_a")


def test_without_rasterio_nothing_is_begun(tmp_path, monkeypatch):
    """Else the elevation and the mask of every patch would be left out, with a finding for each."""
    write(tmp_path, sound(["e1_a"]))
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(InvalidInputError, match=r"pip install 'tensorbank\[geotiff\]'") as caught:
        open_source(str(tmp_path))
    assert caught.value.kind == "missing-extra"
