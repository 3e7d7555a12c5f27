"""Samples by id: every format holds the pixels that were ingested, and outside programs read it."""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import pytest
import rasterio
import safetensors.numpy
import xarray
import zarr
from PIL import Image
from rio_cogeo.cogeo import cog_validate

import tensorbank as tb
from support.service import check_problem
from tensorbank_server.documents.formats import as_geotiff

pytestmark = pytest.mark.usefixtures("service")


@pytest.fixture(scope="session")
def one(truth):
    """A sample with a footprint and a projection."""
    return next((r, p) for r, p in truth if r["epsg"] is not None and "S1RTC" in p)


def address(table_url, row):
    return f"{table_url}/samples/{row['sample_id']}"


# -------------------------------------------------------------- JSON


def test_json_says_where_and_when_and_what(service, table_url, truth):
    assert len(truth) == 20
    for row, pixels in truth:
        found = service.get(address(table_url, row)).json()
        assert found["sample_id"] == row["sample_id"]
        assert (found["lon"], found["lat"], found["season"]) == (row["lon"], row["lat"], row["season"])
        assert found["S2_time"] == row["S2_time"].isoformat().replace("+00:00", "Z")
        assert set(found["modalities"]) == set(pixels)
        assert found["geometry"]["type"] == "Polygon"
        for name, described in found["modalities"].items():
            assert tuple(described["shape"]) == pixels[name].shape
            assert described["dtype"] == str(pixels[name].dtype)
        assert not {"part", "stem", "key", "offset"} & set(found), "where things lie is nobody's business"


def test_stac_item(service, table_url, one):
    row, pixels = one
    answer = service.get(address(table_url, row), headers={"Accept": "application/geo+json"})
    assert answer.headers["content-type"] == "application/geo+json"
    item = answer.json()
    assert (item["type"], item["id"], item["collection"]) == ("Feature", row["sample_id"], "eo.terramesh")
    assert item["properties"]["proj:code"] == f"EPSG:{row['epsg']}"
    assert set(item["assets"]) == {"preview", *pixels}
    for asset in item["assets"].values():
        assert service.get(asset["href"]).status_code == 200


def test_statistics_are_those_of_the_index(service, table_url, bank, one):
    row, _ = one
    found = service.get(address(table_url, row) + "/statistics").json()["statistics"]
    sql = f"SELECT S2L2A.B08 AS b, NDVI.mean AS n, LULC.share AS s FROM terramesh WHERE sample_id = '{row['sample_id']}'"
    (expected,) = bank.sql(sql).arrow().to_pylist()
    assert found["S2L2A"]["B08"] == expected["b"]
    assert found["NDVI"]["NDVI"]["mean"] == expected["n"]
    assert found["LULC"]["share"] == expected["s"]


# ----------------------------------------------------------- tensors


def test_npy_is_every_pixel(service, table_url, truth):
    n_read = 0
    for row, pixels in truth[:6]:
        for name, expected in pixels.items():
            answer = service.get(f"{address(table_url, row)}/{name}.npy")
            found = np.load(io.BytesIO(answer.content))
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)
            n_read += 1
    assert n_read >= 6 * 3


def test_bands_and_windows_are_cut_out(service, table_url, one):
    row, pixels = one
    answer = service.get(f"{address(table_url, row)}/S2L2A.npy?bands=B08,B02&window=10,20,30,40")
    np.testing.assert_array_equal(
        np.load(io.BytesIO(answer.content)), pixels["S2L2A"][:, [7, 1], 10:40, 20:60]
    )


def test_npz_and_safetensors_hold_several(service, table_url, one):
    row, pixels = one
    answer = service.get(f"{address(table_url, row)}/tensors.npz?modalities=DEM,S1GRD,LULC")
    found = np.load(io.BytesIO(answer.content))
    assert set(found) == {"DEM", "LULC"}, "what the sample lacks is left out"
    np.testing.assert_array_equal(found["DEM"], pixels["DEM"])
    answer = service.get(f"{address(table_url, row)}/tensors.safetensors")
    tensors = safetensors.numpy.load(answer.content)
    assert set(tensors) == set(pixels)
    for name, expected in pixels.items():
        np.testing.assert_array_equal(tensors[name], expected)
    one_only = service.get(f"{address(table_url, row)}/S1RTC.safetensors?bands=vh")
    np.testing.assert_array_equal(safetensors.numpy.load(one_only.content)["S1RTC"], pixels["S1RTC"][:, [1]])


@pytest.mark.parametrize("name", ["S2L2A", "S1RTC", "DEM", "NDVI", "LULC"])
def test_gdal_reads_a_geotiff_where_it_lies(service, table_url, one, name):
    row, pixels = one
    body = service.get(f"{address(table_url, row)}/{name}.tif").content
    with rasterio.MemoryFile(body) as memory, memory.open() as image:
        found = image.read()
        assert image.crs.to_epsg() == row["epsg"]
        b = row["bounds"]
        assert image.bounds == pytest.approx((b["x_min"], b["y_min"], b["x_max"], b["y_max"]))
        assert len(set(image.descriptions)) == len(found)
    np.testing.assert_array_equal(found, pixels[name][0].astype(found.dtype))
    body = service.get(f"{address(table_url, row)}/{name}.tif?window=100,50,20,30").content
    with rasterio.MemoryFile(body) as memory, memory.open() as image:
        np.testing.assert_array_equal(image.read(), pixels[name][0, :, 100:120, 50:80].astype(found.dtype))
        x, y = image.transform @ (0, 0)
    size = (b["x_max"] - b["x_min"]) / pixels[name].shape[-1]
    assert (x, y) == pytest.approx((b["x_min"] + 50 * size, b["y_max"] - 100 * size))


@pytest.mark.parametrize("name", ["S2L2A", "LULC"])
def test_gdal_opens_a_geotiff_by_its_url(service, table_url, one, name):
    row, pixels = one
    with rasterio.open(f"/vsicurl/{service.url}{address(table_url, row)}/{name}.tif?snapshot=1") as image:
        assert image.crs.to_epsg() == row["epsg"]
        window = rasterio.windows.Window(50, 100, 30, 20)
        np.testing.assert_array_equal(image.read(1, window=window), pixels[name][0, 0, 100:120, 50:80])
    item = service.get(f"/stac/collections/eo.terramesh/items/{row['sample_id']}").json()
    assert item["assets"][name]["type"] == service.get(item["assets"][name]["href"]).headers["content-type"]


def test_ranges_of_a_geotiff_are_those_of_the_file(service, table_url, one):
    row, _ = one
    url = f"{address(table_url, row)}/DEM.tif"
    whole = service.get(url)
    assert whole.headers["accept-ranges"] == "bytes"
    for asked, start, end in (("0-99", 0, 100), ("1000-", 1000, None), ("-7", -7, None)):
        found = service.get(url, headers={"Range": f"bytes={asked}"})
        assert found.status_code == 206
        assert found.content == whole.content[start:end]
        assert found.headers["etag"] == whole.headers["etag"]
        assert found.headers["content-range"].endswith(f"/{len(whole.content)}")
    check_problem(service.get(url, headers={"Range": "bytes=99999999-"}), 416, "range")


@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")  # of rio-cogeo
@pytest.mark.parametrize("side", [1, 66, 264, 512, 1068])
@pytest.mark.parametrize("categorical", [False, True])
def test_a_geotiff_is_optimized_for_the_cloud(tmp_path, side, categorical):
    tensor = np.random.default_rng(side).integers(1, 9, (3, side, side)).astype(np.uint8)
    place = (32632, (500_000.0, 5_000_000.0, 500_000.0 + 10 * side, 5_000_000.0 + 10 * side))
    path = tmp_path / "sample.tif"
    path.write_bytes(as_geotiff(tensor, place, ["a", "b", "c"], categorical=categorical))
    valid, errors, warnings = cog_validate(path)
    assert (valid, errors, warnings) == (True, [], [])
    with rasterio.open(path) as image:
        np.testing.assert_array_equal(image.read(), tensor)
        assert image.descriptions == ("a", "b", "c")
        assert bool(image.overviews(1)) == (side > 512)
        for factor in image.overviews(1):
            coarse = image.read(1, out_shape=(side // factor, side // factor))
            assert set(np.unique(coarse)) <= set(range(1, 9))


def test_point_is_the_pixel_of_the_geotiff(service, table_url, one):
    row, pixels = one
    body = service.get(f"{address(table_url, row)}/DEM.tif").content
    lon, lat = row["lon"], row["lat"]
    found = service.get(f"{address(table_url, row)}/point/{lon},{lat}?modalities=DEM,S2L2A").json()["values"]
    with rasterio.MemoryFile(body) as memory, memory.open() as image:
        from rasterio.warp import transform

        (x,), (y,) = transform("EPSG:4326", image.crs, [lon], [lat])
        line, column = image.index(x, y)
        assert found["DEM"]["values"] == [[image.read(1)[line, column]]]
    assert found["S2L2A"]["values"] == pixels["S2L2A"][:, :, line, column].tolist()
    check_problem(service.get(f"{address(table_url, row)}/point/0,0"), 404, "outside")


def test_zarr_of_a_sample_opens_in_xarray(service, table_url, one):
    row, pixels = one
    url = f"{service.url}{address(table_url, row)}/zarr"
    dataset = xarray.open_zarr(url, consolidated=True, mask_and_scale=False)
    assert dataset.attrs["sample_id"] == row["sample_id"]
    assert dataset["S2L2A_band"].values.tolist()[:2] == ["B01", "B02"]
    for name, expected in pixels.items():
        np.testing.assert_array_equal(dataset[name].values, expected)
    array = zarr.open_array(f"{service.url}{address(table_url, row)}/S2L2A.zarr", mode="r")
    np.testing.assert_array_equal(array[0, 3], pixels["S2L2A"][0, 3])


# ---------------------------------------------------------- previews


@pytest.mark.parametrize(
    "composite",
    ["s2-true-color", "s2-false-color", "s2-swir", "s1-vv-vh", "dem-hillshade", "ndvi", "lulc", "cloud-mask"],
)
@pytest.mark.parametrize("form", ["png", "webp"])
def test_every_composite_paints(service, table_url, one, composite, form):
    row, _ = one
    answer = service.get(f"{address(table_url, row)}/preview.{form}?composite={composite}&size=100")
    image = Image.open(io.BytesIO(answer.content))
    assert (image.size, image.mode, image.format) == ((100, 100), "RGB", form.upper())
    assert np.asarray(image).std() > 1, "a picture of something"


def test_rescale_is_what_it_says(service, table_url, one):
    row, pixels = one
    answer = service.get(
        f"{address(table_url, row)}/preview.png?composite=s2-true-color&rescale=0,2550&size=264"
    )
    found = np.asarray(Image.open(io.BytesIO(answer.content))).astype(int)
    expected = np.clip(np.moveaxis(pixels["S2L2A"][0, [3, 2, 1]], 0, -1) / 10, 0, 255)
    assert np.abs(found - expected).max() <= 1


def test_classes_keep_their_colours(service, table_url, truth):
    row, pixels = next((r, p) for r, p in truth if len(np.unique(p["LULC"])) > 1)
    answer = service.get(f"{address(table_url, row)}/preview.png?composite=lulc&size=528")
    found = np.asarray(Image.open(io.BytesIO(answer.content)))
    doubled = pixels["LULC"][0, 0].repeat(2, 0).repeat(2, 1)
    codes = np.unique(doubled)
    assert len(codes) > 1
    for code in codes:
        assert len(np.unique(found[doubled == code], axis=0)) == 1, "no mixed classes"


# ----------------------------------------------------------- caching


@pytest.mark.parametrize("tail", ["", "/DEM.npy", "/preview.png", "/zarr/zarr.json", "/statistics"])
def test_what_is_known_is_not_sent_again(service, table_url, one, tail):
    row, _ = one
    url = address(table_url, row) + tail
    first = service.get(url)
    etag = first.headers["etag"]
    assert etag.startswith('"')
    assert first.headers["cache-control"] == "public, no-cache"
    again = service.get(url, headers={"If-None-Match": f'W/"x", {etag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    pinned = service.get(f"{url}?snapshot=1")
    assert pinned.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert pinned.headers["etag"] == etag, "the same bytes, however asked for"
    assert service.get(f"{url}?split=train").headers["etag"] != etag


def test_representations_differ_in_their_etag(service, table_url, one):
    row, _ = one
    kinds = {
        service.get(address(table_url, row), headers={"Accept": a}).headers["etag"]
        for a in ("application/json", "application/geo+json")
    }
    assert len(kinds) == 2


# --------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("tail", "status", "code"),
    [
        ("/NOPE.npy", 404, "unknown-modality"),
        ("/S2L2A.npy?bands=B99", 404, "unknown-band"),
        ("/S2L2A.npy?bands=", 404, "unknown-band"),
        ("/S2L2A.npy?bands=B02,B02", 400, "invalid-input"),
        ("/S2L2A.npy?window=0,0,0,1", 400, "invalid-input"),
        ("/S2L2A.npy?window=0,0,265,1", 400, "invalid-input"),
        ("/S2L2A.npy?window=-1,0,5,5", 400, "invalid-input"),
        ("/S2L2A.npy?window=1,2,3", 400, "invalid-input"),
        ("/S2L2A.npy?window=" + "9" * 60, 400, "invalid-input"),
        ("/S2L2A.pickle", 422, "invalid-request"),
        ("/S1GRD.npy", 404, "no-modality"),
        ("/tensors.npz?modalities=NOPE", 404, "unknown-modality"),
        ("/preview.gif", 422, "invalid-request"),
        ("/preview.png?size=100000", 422, "invalid-request"),
        ("/preview.png?composite=x", 404, "unknown-composite"),
        ("/preview.png?rescale=1", 400, "invalid-input"),
        ("/preview.png?rescale=nan,1", 400, "invalid-input"),
        ("/preview.png?time=1", 404, "unknown-time"),
        ("/point/200,0", 422, "invalid-request"),
        ("/point/nan,0", 422, "invalid-request"),
        ("/zarr/DEM/c/0/0/0/1", 404, "no-chunk"),
        ("/zarr/DEM/c/0/0/0", 404, "no-chunk"),
        ("/zarr/DEM/c/00/0/0/0", 404, "no-chunk"),
        ("/zarr/DEM/c/" + "9" * 30 + "/0/0/0", 404, "no-chunk"),
        ("/zarr/S1GRD/zarr.json", 404, "not-found"),
        ("?split=nope", 404, "unknown-sample"),
    ],
)
def test_bad_requests_are_refused(service, table_url, one, tail, status, code):
    check_problem(service.get(address(table_url, one[0]) + tail), status, code)


def test_a_large_answer_is_refused(bank_folder, one):
    from support.server_process import serving

    with serving(str(bank_folder), "--name", "eo", TENSORBANK_LIMITS__TENSOR_BYTES="1000000") as served:
        url = f"/v1/banks/eo/tables/terramesh/samples/{one[0]['sample_id']}"
        check_problem(served.get(f"{url}/S2L2A.npy"), 413, "too-large")
        assert served.get(f"{url}/S2L2A.npy?bands=B02").status_code == 200


# ------------------------------------------------------------- tables


def test_tables_tell_what_the_bank_tells(service, table_url, bank):
    assert service.get("/v1/banks/eo").json()["tables"] == [{"name": "terramesh"}]
    schema = bank.table("terramesh").schema
    modalities = service.get(f"{table_url}/schema").json()["modalities"]
    assert [json.loads(m.to_json()) for m in schema] == modalities
    snapshot = bank.table("terramesh").snapshot()
    size = service.get(f"{table_url}/size").json()["size"]
    assert (size["n_samples"], size["stored_bytes"]) == (snapshot.n_samples, snapshot.stored_bytes)
    described = service.get(f"{table_url}/statistics").json()["statistics"]
    b08 = bank.table("terramesh").describe()["S2L2A"]["B08"]
    assert next(b for b in described["S2L2A"]["bands"] if b["name"] == "B08")["mean"] == b08.mean
    versions = [s["snapshot"] for s in service.get(f"{table_url}/snapshots").json()["snapshots"]]
    assert versions == [1, 0]
    assert service.get(f"{table_url}/snapshots/1").json()["n_samples_added"] == 20
    check_problem(service.get(f"{table_url}/snapshots/7"), 404, "unknown-snapshot")


def test_rows_are_paged_by_number(service, table_url, bank):
    ids = bank.sql("SELECT sample_id FROM terramesh ORDER BY sample_id").arrow()["sample_id"].to_pylist()
    first = service.get(f"{table_url}/first-rows").json()
    assert [r["row"]["sample_id"] for r in first["rows"]] == ids
    assert first["num_rows_total"] == 20
    page = service.get(f"{table_url}/rows?offset=18&length=5").json()
    assert [r["row_idx"] for r in page["rows"]] == [18, 19]
    assert [r["row"]["sample_id"] for r in page["rows"]] == ids[18:]
    assert {f["name"] for f in page["features"]} >= {"sample_id", "lon", "cloud_cover"}


def test_an_empty_snapshot_is_a_table_without_samples(service, table_url, one):
    check_problem(service.get(f"{address(table_url, one[0])}?snapshot=0"), 404, "unknown-sample")
    assert service.get(f"{table_url}/first-rows?snapshot=0").json()["rows"] == []


def test_a_new_snapshot_is_seen_and_the_old_one_stays(bank_folder, tmp_path):
    from support.server_process import serving
    from support.tiny_source import TinySource
    from tensorbank_indexer import IngestOptions, ingest

    folder = tmp_path / "bank"
    shutil.copytree(bank_folder, folder)
    with serving(str(folder), "--name", "eo", TENSORBANK_LATEST_S="0") as served:
        assert served.get("/v1/banks/eo").json()["tables"] == [{"name": "terramesh"}]
        before = served.get("/v1/banks/eo/tables/terramesh/size").json()
        ingest(TinySource(2), tb.open(folder), "two", IngestOptions(n_workers=1))
        assert [t["name"] for t in served.get("/v1/banks/eo").json()["tables"]] == ["terramesh", "two"]
        assert served.get("/v1/banks/eo/tables/terramesh/size").json() == before
