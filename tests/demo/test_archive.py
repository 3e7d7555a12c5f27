from __future__ import annotations

import io
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import xarray
import zarr
from pyproj import Transformer

from tensorbank.errors import InvalidInputError
from tensorbank_demo.landscape.archive import BANDS, MODALITIES, DemoTruth, write_archives
from tensorbank_demo.landscape.places import majortom_footprint

DTYPES = {"S2RGB": "uint8", "LULC": "uint8", "S1RTC": "float16", "S1GRD": "float16", "NDVI": "float16"}


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> DemoTruth:
    counts: list[int] = []
    folder = tmp_path_factory.mktemp("archives")
    made = write_archives(folder, n_samples=20, samples_per_tar=7, seed=3, progress=counts.append)
    assert counts == list(range(1, 21))
    return made


def members(truth: DemoTruth, modality: str) -> dict[str, bytes]:
    found = {}
    for path in sorted((truth.root / "train" / modality).glob("*.tar")):
        with tarfile.open(path) as tar:
            for info in tar:
                stream = tar.extractfile(info)
                assert stream is not None
                found[info.name] = stream.read()
    return found


def opened(data: bytes, tmp_path: Path) -> zarr.Group:
    (tmp_path / "member.zarr.zip").write_bytes(data)
    store = zarr.storage.ZipStore(tmp_path / "member.zarr.zip", mode="r")
    return zarr.open_group(store, mode="r", zarr_format=2, use_consolidated=True)


def test_tars_hold_every_sample_once(truth: DemoTruth):
    rows = pq.read_table(truth.root / "train_metadata.parquet").to_pylist()
    assert [row["sample_id"] for row in rows] == list(truth.samples)
    assert len(set(truth.samples)) == 20
    assert [row["zarr"].split("_")[0] for row in rows] == ["majortom"] * 18 + ["ssl4eos12"] * 2
    for subset, modalities in MODALITIES.items():
        wanted = [row["zarr"] for row in rows if row["zarr"].startswith(subset)]
        for modality in modalities:
            assert [name for name in members(truth, modality) if name.startswith(subset)] == wanted
    tars = {(row["tar"], row["zarr"].split("_")[0]) for row in rows}
    assert len(tars) * 7 == truth.n_tars
    assert sum(path.stat().st_size for path in truth.root.rglob("*.tar")) == truth.n_bytes


@pytest.mark.parametrize("modality", list(BANDS))
def test_zarr_reads_what_the_truth_says(truth: DemoTruth, modality: str, tmp_path: Path):
    found = members(truth, modality)
    assert found
    for data in found.values():
        group = opened(data, tmp_path)
        bands = np.asarray(group["bands"])
        sample_id = str(np.asarray(group["sample"])[()])
        assert bands.shape == (1, len(BANDS[modality]), 264, 264)
        assert bands.dtype == DTYPES.get(modality, "int16")
        assert zlib.crc32(bands[0].tobytes()) == truth.crc32[sample_id, modality]
        assert ("cloud_mask" in group) == modality.startswith("S2")


def test_xarray_opens_a_member(truth: DemoTruth, tmp_path: Path):
    name, data = next(iter(members(truth, "S2L2A").items()))
    assert name == "majortom_train_0000001.zarr.zip"
    path = tmp_path / name
    path.write_bytes(data)
    with xarray.open_zarr(zarr.storage.ZipStore(path, mode="r"), zarr_format=2, consolidated=True) as dataset:
        assert dataset["bands"].dims == ("time", "band", "y", "x")
        assert dataset["band"].values.tolist() == BANDS["S2L2A"]
        assert dataset["time"].dtype.kind == "M"
        assert 2018 <= dataset["time"].dt.year.item() <= 2024
        sample_id = dataset["sample"].item()
        cloudy = np.isin(dataset["cloud_mask"].values, (3, 4)).mean()
        assert truth.cloud_cover[sample_id] == pytest.approx(cloudy)


def test_georeference_is_that_of_the_cell(truth: DemoTruth, tmp_path: Path):
    row = pq.read_table(truth.root / "train_metadata.parquet").to_pylist()[0]
    group = opened(members(truth, "DEM")[row["zarr"]], tmp_path)
    footprint = majortom_footprint(row["sample_id"])
    x, y = np.asarray(group["x"]), np.asarray(group["y"])
    assert (x[0], y[0]) == (footprint.left + 5, footprint.top - 5)
    assert np.allclose(np.diff(x), 10)
    assert np.allclose(np.diff(y), -10)
    assert row["bounds"] == footprint.bounds
    to_wgs84 = Transformer.from_crs(row["crs"], 4326, always_xy=True)
    lon, lat = to_wgs84.transform(x.mean(), y.mean())
    assert (row["center_lon"], row["center_lat"]) == pytest.approx((lon, lat), abs=1e-9)


@pytest.mark.parametrize(
    ("sample_id", "epsg", "left", "top"),
    [
        ("282D_485L_3_3", 32722, 790236.040382, 7198039.252334),
        ("433D_629L_3_1", 32718, 717729.835205, 5700093.330553),
        ("637U_59R_1_3", 32632, 549892.697031, 6344077.614259),
    ],
)
def test_footprints_are_those_of_published_tiles(sample_id: str, epsg: int, left: float, top: float):
    footprint = majortom_footprint(sample_id)
    assert footprint.epsg == epsg
    assert (footprint.left, footprint.top) == pytest.approx((left, top), abs=1e-3)


def test_pixels_agree_with_each_other(truth: DemoTruth, tmp_path: Path):
    l2a_members = members(truth, "S2L2A")
    assert len(l2a_members) == len(truth.samples) > 0
    for name, data in l2a_members.items():
        group = opened(data, tmp_path)
        l2a = np.asarray(group["bands"])[0].astype(np.float32)
        mask = np.asarray(group["cloud_mask"])[0]
        ndvi = np.asarray(opened(members(truth, "NDVI")[name], tmp_path)["bands"])[0, 0]
        lulc = np.asarray(opened(members(truth, "LULC")[name], tmp_path)["bands"])[0, 0]
        with np.errstate(invalid="ignore"):
            wanted = ((l2a[7] - l2a[3]) / (l2a[7] + l2a[3])).astype(np.float16)
        np.testing.assert_array_equal(ndvi, wanted)
        assert ((mask == 4) == (lulc == 8)).mean() > 0.99
        assert lulc.max() <= 9
        assert mask.max() <= 6
        # 20 m bands are blocks of 2 x 2 pixels.
        np.testing.assert_array_equal(l2a[10, ::2, ::2], l2a[10, 1::2, 1::2])


def test_bytes_depend_on_the_seed_only(tmp_path: Path):
    options = {"n_samples": 3, "samples_per_tar": 2}
    one = write_archives(tmp_path / "one", seed=5, n_threads=1, **options)
    two = write_archives(tmp_path / "two", seed=5, n_threads=2, **options)
    other = write_archives(tmp_path / "other", seed=6, **options)
    tars = list(one.root.rglob("*.tar"))
    assert len(tars) == one.n_tars == two.n_tars == 14
    for path in tars:
        assert path.read_bytes() == (two.root / path.relative_to(one.root)).read_bytes()
    assert one.crc32 == two.crc32
    assert set(one.crc32.values()).isdisjoint(other.crc32.values())


def test_wrong_counts_and_existing_folders_are_refused(truth: DemoTruth, tmp_path: Path):
    with pytest.raises(InvalidInputError, match="must be positive, got n_samples=0"):
        write_archives(tmp_path, n_samples=0, samples_per_tar=1, seed=0)
    with pytest.raises(InvalidInputError, match="exists already"):
        write_archives(truth.root, n_samples=1, samples_per_tar=1, seed=0)


def test_members_are_ordinary_zips(truth: DemoTruth):
    import zipfile

    data = next(iter(members(truth, "LULC").values()))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert {"bands/0.0.0.0", ".zmetadata", "center_lat/0"} <= set(archive.namelist())
