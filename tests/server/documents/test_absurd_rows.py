"""Rows that no ingest of today would write: each is served as far as it can be, and costs no other."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from tensorbank import Band, Modality, NotFoundError, TableSchema
from tensorbank_server.documents import row_json, stac_documents
from tensorbank_server.documents.formats import georeference
from tensorbank_server.documents.lookup import RowFiles, SampleTable

SCHEMA = TableSchema((Modality("DEM", "float32", (Band("elevation"),), 1, 4, 4),))
BOX = pa.struct([(n, pa.float64()) for n in ("west", "south", "east", "north")])
BOUNDS = pa.struct([(n, pa.float64()) for n in ("x_min", "y_min", "x_max", "y_max")])
COLUMNS = pa.schema(
    [
        ("sample_id", pa.string()),
        ("split", pa.string()),
        ("season", pa.string()),
        ("lon", pa.float64()),
        ("lat", pa.float64()),
        ("cloud_cover", pa.float64()),
        ("epsg", pa.int32()),
        ("S2_time", pa.timestamp("us", "UTC")),
        ("bbox", BOX),
        ("bounds", BOUNDS),
        ("footprint", pa.binary()),
    ]
)
INF = math.inf
GOOD: dict[str, Any] = {
    "sample_id": "good",
    "split": "val",
    "season": "summer",
    "lon": 10.0,
    "lat": 50.0,
    "cloud_cover": 0.25,
    "epsg": 32632,
    "S2_time": 1_600_000_000_000_000,
    "bbox": {"west": 9.0, "south": 49.0, "east": 11.0, "north": 51.0},
    "bounds": {"x_min": 0.0, "y_min": 0.0, "x_max": 40.0, "y_max": 40.0},
    "footprint": shapely.box(9, 49, 11, 51).wkb,
}
ABSURD: dict[str, dict[str, Any]] = {
    "infinite box": {"bbox": dict.fromkeys(("west", "south", "east", "north"), INF)},
    "box of NaN": {"bbox": {"west": math.nan, "south": -INF, "east": INF, "north": math.nan}},
    "place of NaN": {"lon": math.nan, "lat": -INF, "footprint": None},
    "clouds": {"cloud_cover": INF},
    "clouds of NaN": {"cloud_cover": math.nan},
    "time of a far year": {"S2_time": 2**62},
    "time before all": {"S2_time": -(2**62)},
    "garbage for a footprint": {"footprint": b"\x01garbage"},
    "endless footprint": {"footprint": shapely.Point(INF, INF).buffer(0).wkb},
    "a footprint at infinity": {"footprint": shapely.LineString([(0, 0), (INF, INF)]).wkb},
    "bounds": {"bounds": {"x_min": INF, "y_min": -INF, "x_max": math.nan, "y_max": 0.0}},
    "bounds without a size": {"bounds": dict.fromkeys(("x_min", "y_min", "x_max", "y_max"), 5.0)},
    "no projection": {"epsg": 0},
    "another projection": {"epsg": -1},
    "a projection that is none": {"epsg": 999_999},
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> SampleTable:
    folder = tmp_path_factory.mktemp("rows")
    values = [GOOD, *({**GOOD, **change, "sample_id": name} for name, change in ABSURD.items())]
    path = folder / "samples.parquet"
    pq.write_table(pa.Table.from_pylist(values, COLUMNS), path)
    return SampleTable.open("t", 1, SCHEMA, [Path(path)], RowFiles(folder, 1 << 30))


@pytest.mark.parametrize("name", ["good", *ABSURD])
def test_a_row_is_json_whatever_it_holds(table, name):
    (row,) = table.find(name)
    item = stac_documents.item(
        row, SCHEMA, base="http://h/stac", collection="b.t", table_url="http://h/t?snapshot=1"
    )
    for document in (item, row_json.sample_json(row, SCHEMA)):
        text = json.dumps(document, allow_nan=False)
        assert name in text
    assert item["properties"].get("eo:cloud_cover") == (None if "clouds" in name else 25.0)
    assert (item["properties"]["datetime"] is None) == name.startswith("time")
    if name == "good":
        assert item["geometry"]["type"] == "Polygon"
        assert item["bbox"] == [9.0, 49.0, 11.0, 51.0]


@pytest.mark.parametrize("name", [n for n in ABSURD if "bounds" in n or "projection" in n])
def test_a_georeference_that_is_none_is_said_so(table, name):
    (row,) = table.find(name)
    with pytest.raises(NotFoundError) as refused:
        georeference(row, 4, 4, (0, 4, 0, 4))
    assert refused.value.kind == "no-georeference"


def test_a_good_georeference_is_kept(table):
    (row,) = table.find("good")
    assert georeference(row, 4, 4, (0, 2, 0, 4)) == (32632, (0.0, 20.0, 40.0, 40.0))


@pytest.mark.parametrize("extent", [[None] * 4, [INF, 0.0, 1.0, 2.0], [math.nan] * 4])
def test_a_collection_is_json_whatever_its_extent(extent):
    options: dict[str, Any] = {
        "base": "http://h",
        "title": "t",
        "description": "",
        "licence": "",
        "schema": SCHEMA,
    }
    found = stac_documents.collection(
        "b.t", extent=[row_json.plain(v) for v in extent], times=[None, None], **options
    )
    assert json.loads(json.dumps(found, allow_nan=False))["extent"]["spatial"]["bbox"] == [
        [-180, -90, 180, 90]
    ]


def test_any_value_of_arrow_is_json():
    columns = {
        "far": pa.array([2**62, 0], pa.timestamp("us", "UTC")),
        "time": pa.array([1, None], pa.time64("us")),
        "span": pa.array([1, 2**62], pa.duration("us")),
        "decimal": pa.array([Decimal("1.5"), None]),
        "bytes": pa.array([b"\xff", b""]),
        "nested": pa.array([{"a": [INF]}, None]),
        "day": pa.array([2**31 - 1, 0], pa.date32()),
    }
    found = row_json.plain(row_json.readable(pa.table(columns)))
    json.dumps(found, allow_nan=False)
    assert [row["far"] for row in found] == [None, "1970-01-01T00:00:00Z"]
    assert found[0]["decimal"] == 1.5
    assert found[0]["nested"] == {"a": [None]}
    assert found[1]["day"] == "1970-01-01"
    assert row_json.plain(Decimal("NaN")) is None
    assert row_json.plain(datetime(2020, 1, 1, tzinfo=UTC)) == "2020-01-01T00:00:00Z"
