"""Searching: STAC with an outside client, and filters, counts and density against the library."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter

import pystac_client
import pytest
import shapely

import tensorbank as tb
from support.service import check_problem


@pytest.fixture(scope="module")
def rows(bank):
    columns = "sample_id, lon, lat, season, cloud_cover, S2_time, S2L2A.B08.mean AS b08, bbox"
    return bank.sql(f"SELECT {columns} FROM terramesh ORDER BY sample_id").arrow().to_pylist()


@pytest.fixture(scope="module")
def catalog(service):
    return pystac_client.Client.open(f"{service.url}/stac")


def ids_of(search) -> list[str]:
    return [item.id for item in search.items()]


def test_a_client_walks_the_catalog(catalog, rows):
    assert catalog.conforms_to("ITEM_SEARCH")
    assert catalog.conforms_to("FILTER")
    (collection,) = catalog.get_collections()
    assert collection.id == "eo.terramesh"
    west, _, _, north = collection.extent.spatial.bboxes[0]
    assert west <= min(r["lon"] for r in rows)
    assert north >= max(r["lat"] for r in rows)
    assert sorted(i.id for i in collection.get_items()) == [r["sample_id"] for r in rows]
    item = collection.get_item(rows[3]["sample_id"])
    assert item.collection_id == "eo.terramesh"
    assert item.datetime == rows[3]["S2_time"]
    assert "S2L2A" in item.assets


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_pages_of_a_search_are_all_samples_once(catalog, rows, method):
    found = ids_of(catalog.search(method=method, limit=3))
    assert found == [r["sample_id"] for r in rows]
    assert len(ids_of(catalog.search(method=method, limit=3, max_items=7))) == 7


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_filters_of_a_search(catalog, rows, method):
    chosen = [r["sample_id"] for r in rows if r["b08"] > 1500 and r["season"] in ("summer", "spring")]
    text = "S2L2A.B08.mean > 1500 AND season IN ('summer', 'spring')"
    tree = {
        "op": "and",
        "args": [
            {"op": ">", "args": [{"property": "S2L2A.B08.mean"}, 1500]},
            {"op": "in", "args": [{"property": "season"}, ["summer", "spring"]]},
        ],
    }
    if method == "GET":
        found = catalog.search(method=method, filter=text, filter_lang="cql2-text", limit=2)
    else:
        found = catalog.search(method=method, filter=tree, filter_lang="cql2-json", limit=2)
    assert ids_of(found) == chosen
    assert 0 < len(chosen) < len(rows)


def test_place_time_and_ids(catalog, rows):
    middle = rows[len(rows) // 2]
    box = [middle["lon"] - 3, middle["lat"] - 3, middle["lon"] + 3, middle["lat"] + 3]

    def touches(r):
        b = r["bbox"]
        return b["west"] <= box[2] and b["east"] >= box[0] and b["south"] <= box[3] and b["north"] >= box[1]

    expected = [r["sample_id"] for r in rows if touches(r)]
    assert ids_of(catalog.search(bbox=box)) == expected
    ring = [[box[0], box[1]], [box[2], box[1]], [box[2], box[3]], [box[0], box[3]], [box[0], box[1]]]
    assert ids_of(catalog.search(intersects={"type": "Polygon", "coordinates": [ring]})) == expected
    times = sorted(r["S2_time"] for r in rows)
    start, end = times[3], times[9]
    during = ids_of(catalog.search(datetime=[start, end]))
    assert during == [r["sample_id"] for r in rows if start <= r["S2_time"] <= end]
    wanted = [rows[5]["sample_id"], rows[1]["sample_id"]]
    assert ids_of(catalog.search(ids=wanted)) == sorted(wanted)
    assert ids_of(catalog.search(collections=["eo.other"])) == []


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/stac/collections/eo.nope", 404, "unknown-table"),
        ("/stac/collections/no.terramesh", 404, "unknown-bank"),
        ("/stac/collections/nope", 404, "unknown-bank"),
        ("/stac/collections/eo.", 404, "unknown-table"),
        ("/stac/collections/eo.terramesh/items/nobody", 404, "unknown-sample"),
        ("/stac/search?sortby=id", 400, "unsupported"),
        ("/stac/search?bbox=1,2,3", 400, "invalid-input"),
        ("/stac/search?bbox=0,0,nan,1", 400, "invalid-input"),
        ("/stac/search?datetime=yesterday", 400, "filter"),
        ("/stac/search?datetime=2020-01-01/2021-01-01/2022-01-01", 400, "invalid-input"),
        ("/stac/search?datetime=2020-01-01", 400, "filter"),
        ("/stac/search?datetime=/", 400, "invalid-input"),
        ("/stac/search?datetime=../..", 400, "invalid-input"),
        ("/stac/search?datetime=/..", 400, "invalid-input"),
        ("/stac/search?intersects=nothing", 400, "invalid-input"),
        ('/stac/search?intersects={"type":"Circle","coordinates":[1,2]}', 400, "filter"),
        ('/stac/search?intersects={"type":"Polygon","coordinates":[[[0,0],[1,1]]]}', 400, "filter"),
        ('/stac/search?bbox=0,0,1,1&intersects={"type":"Point","coordinates":[1,2]}', 400, "invalid-input"),
        ("/stac/search?filter-crs=http://www.opengis.net/def/crs/EPSG/0/3857", 400, "unsupported"),
        (f"/stac/search?ids={','.join(map(str, range(1500)))}", 400, "invalid-request"),
        ("/stac/collections/eo.terramesh/items?sortby=id", 400, "unsupported"),
        ("/stac/collections/eo.terramesh/items?collections=eo.other", 400, "invalid-input"),
        ("/stac/search?filter=password=1", 400, "filter"),
        ("/stac/search?filter-lang=sql", 400, "invalid-request"),
        ("/stac/search?limit=0", 400, "invalid-request"),
        ("/stac/search?token=x", 400, "page-token"),
    ],
)
def test_bad_searches_are_refused(service, path, status, code):
    check_problem(service.get(path), status, code)


def test_a_token_is_of_its_search(service):
    links = service.get("/stac/search?limit=2&filter=lon>-500").json()["links"]
    following = next(link["href"] for link in links if link["rel"] == "next")
    assert service.get(following.removeprefix(service.url)).status_code == 200
    check_problem(service.get(following.removeprefix(service.url).replace("-500", "-400")), 400, "page-token")


# ---------------------------------------------------- tables with a filter


def test_counts_and_rows_of_a_filter(service, table_url, rows):
    text = "S2L2A.B08.mean > 1500 AND cloud_cover < 0.5"
    chosen = [r["sample_id"] for r in rows if r["b08"] > 1500 and r["cloud_cover"] < 0.5]
    assert service.get(f"{table_url}/size", params={"filter": text}).json()["size"]["n_samples"] == len(
        chosen
    )
    found = service.get(f"{table_url}/rows", params={"filter": text}).json()["rows"]
    assert [r["row"]["sample_id"] for r in found] == chosen


def test_statistics_of_a_filter(service, table_url, bank):
    text = "S2L2A.B08.mean > 1500"
    answer = service.get(f"{table_url}/statistics", params={"filter": text, "modalities": "S2L2A,LULC"})
    expected = bank.sql(f"SELECT S2L2A, LULC FROM terramesh WHERE {text}")
    found = answer.json()["statistics"]
    assert set(found) == {"S2L2A", "LULC"}
    assert [b["mean"] for b in found["S2L2A"]["bands"]] == list(expected.statistics("S2L2A").mean)
    assert found["LULC"]["shares"] == dict(expected.statistics("LULC").shares)


@pytest.mark.parametrize("z", [0, 3, 8])
def test_density_counts_every_sample_in_its_cell(service, table_url, rows, z):
    found = service.get(f"{table_url}/density?z={z}").json()
    size = found["cell_degrees"]
    cells = Counter((math.floor((r["lon"] + 180) / size), math.floor((r["lat"] + 90) / size)) for r in rows)
    assert {(x, y): n for x, y, n in found["cells"]} == cells
    assert not found["partial"]


def test_density_of_a_box_and_a_filter(service, table_url, rows):
    answer = service.get(
        f"{table_url}/density", params={"bbox": "0,-90,180,90", "filter": "season = 'summer'"}
    ).json()
    assert sum(n for *_, n in answer["cells"]) == sum(r["lon"] >= 0 and r["season"] == "summer" for r in rows)


def test_queryables_are_json_schema(service, table_url, bank):
    answer = service.get(f"{table_url}/queryables")
    assert answer.headers["content-type"] == "application/schema+json"
    properties = answer.json()["properties"]
    assert properties["S2L2A.B08.mean"]["type"] == "number"
    assert properties["S2_time"]["format"] == "date-time"
    assert "summer" in properties["season"]["enum"]
    stac = service.get("/stac/collections/eo.terramesh/queryables").json()["properties"]
    assert stac == properties
    assert properties["collection"]["enum"] == ["eo.terramesh"]
    assert {"id", "eo:cloud_cover"} < set(properties)
    assert service.get("/stac/queryables").json()["properties"] == properties  # of one table, all are common


def test_items_take_what_a_search_takes(service, rows):
    wanted = sorted(rows[i]["sample_id"] for i in (2, 7))
    items = "/stac/collections/eo.terramesh/items"
    found = service.get(items, params={"ids": ",".join(wanted)}).json()["features"]
    assert [f["id"] for f in found] == wanted
    centre = {"type": "Point", "coordinates": [rows[2]["lon"], rows[2]["lat"]]}
    found = service.get(items, params={"intersects": json.dumps(centre)}).json()["features"]
    assert rows[2]["sample_id"] in [f["id"] for f in found]
    assert len(found) < len(rows)


@pytest.mark.parametrize(
    "kind", ["Point", "MultiPoint", "LineString", "MultiLineString", "GeometryCollection"]
)
def test_points_and_lines_meet_footprints(service, rows, kind):
    lon, lat = rows[4]["lon"], rows[4]["lat"]
    places = {
        "Point": shapely.Point(lon, lat),
        "MultiPoint": shapely.MultiPoint([(lon, lat), (0.0, -89.0)]),
        "LineString": shapely.LineString([(lon - 1, lat), (lon + 1, lat)]),
        "MultiLineString": shapely.MultiLineString([[(lon, lat), (lon, lat + 1)], [(0, -89), (1, -89)]]),
        "GeometryCollection": shapely.GeometryCollection([shapely.Point(lon, lat)]),
    }
    shape = places[kind]
    everything = service.get("/stac/search?limit=100").json()["features"]
    expected = [f["id"] for f in everything if shape.intersects(shapely.geometry.shape(f["geometry"]))]
    assert rows[4]["sample_id"] in expected
    by_get = service.get("/stac/search", params={"intersects": shapely.to_geojson(shape)}).json()["features"]
    by_post = service.post("/stac/search", json={"intersects": json.loads(shapely.to_geojson(shape))}).json()
    text = service.get("/stac/search", params={"filter": f"S_INTERSECTS(geometry, {shape.wkt})"}).json()
    for found in (by_get, by_post["features"], text["features"]):
        assert [f["id"] for f in found] == expected


def test_names_of_stac_filter_as_the_items_show_them(service):
    everything = service.get("/stac/search?limit=100").json()["features"]
    cover = everything[3]["properties"]["eo:cloud_cover"]
    assert len(everything) == 20
    for text, chosen in (
        (f"eo:cloud_cover = {cover}", lambda f: f["properties"]["eo:cloud_cover"] == cover),
        (f"eo:cloud_cover > {cover}", lambda f: f["properties"]["eo:cloud_cover"] > cover),
        (f"id = '{everything[5]['id']}'", lambda f: f["id"] == everything[5]["id"]),
        ("collection = 'eo.terramesh' AND id > '0'", lambda f: f["id"] > "0"),
        ("collection = 'eo.other'", lambda f: f["collection"] == "eo.other"),
    ):
        found = service.get("/stac/search", params={"filter": text, "limit": 100}).json()["features"]
        assert [f["id"] for f in found] == [f["id"] for f in everything if chosen(f)], text
        assert bool(found) == ("eo.other" not in text), text


def test_a_limit_beyond_the_maximum_gives_the_maximum(service, rows):
    assert len(service.get("/stac/search?limit=1000000").json()["features"]) == len(rows)
    assert len(service.post("/stac/search", json={"limit": 20_000}).json()["features"]) == len(rows)


def test_pixels_are_asked(service, table_url, bank):
    text = "pixels_share(NDVI, '> 0.3') >= 0.25 AND pixels_any(S2L2A.B08, '> 3000')"
    expected = bank.sql(f"SELECT count(*) AS n FROM terramesh WHERE {text}").arrow()["n"][0].as_py()
    assert service.get(f"{table_url}/size", params={"filter": text}).json()["size"]["n_samples"] == expected


def test_the_extent_is_of_the_samples_that_are_left(bank_folder, rows, serving_of, tmp_path):
    copied = tmp_path / "bank"
    shutil.copytree(bank_folder, copied)
    middle = sorted(r["lon"] for r in rows)[len(rows) // 2]
    left = [r for r in rows if r["lon"] <= middle]
    tb.open(copied).table("terramesh").delete(f"lon > {middle!r}")
    with serving_of(copied) as served:
        (collection,) = pystac_client.Client.open(f"{served.url}/stac").get_collections()
        west, south, east, north = collection.extent.spatial.bboxes[0]
        assert (west, east) == (min(r["bbox"]["west"] for r in left), max(r["bbox"]["east"] for r in left))
        assert (south, north) == (
            min(r["bbox"]["south"] for r in left),
            max(r["bbox"]["north"] for r in left),
        )
        ((first, last),) = collection.extent.temporal.intervals
        assert (first, last) == (min(r["S2_time"] for r in left), max(r["S2_time"] for r in left))
        assert sorted(i.id for i in collection.get_items()) == sorted(r["sample_id"] for r in left)
        size = served.get("/v1/banks/eo/tables/terramesh/size").json()["size"]
        assert size["n_samples"] == len(left)
        shown = served.get("/v1/banks/eo/tables/terramesh/snapshots").json()["snapshots"][0]
        assert shown.keys() == {"snapshot", "time", "operation", "n_samples_added", "tags"}
