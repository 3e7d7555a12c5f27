"""Builder, joins, splits and forecasts, on an index of real archives."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

import tensorbank as tb
from tensorbank.plans.forecast import Price, forecast
from tensorbank_indexer import IngestOptions, ingest, open_source


@pytest.fixture(scope="module")
def bank(make_archives, tmp_path_factory):
    source, _ = make_archives("terramesh", "--samples", "40", "--per-tar", "40", "--subset", "both")
    opened = tb.create(tmp_path_factory.mktemp("bank"))
    ingest(open_source(str(source)), opened, "t", IngestOptions(n_workers=2, samples_per_shard=16))
    return opened


def ids(rows: pa.Table) -> list[str]:
    return rows["sample_id"].to_pylist()


def test_building_and_writing_give_one_fingerprint(bank):
    built = (
        bank.query("t")
        .where("cloud_cover < 0.5")
        .select("sample_id", "S2L2A[B04, B08]", "DEM")
        .bbox(-180, -60, 180, 80)
        .between("2018-01-01", date(2022, 1, 1))
        .order_by("cloud_cover", "sample_id")
        .limit(7)
    )
    written = """
        select sample_id, bands(S2L2A, ['B04', 'B08']), DEM from t
        where (cloud_cover < 0.5) and (within_bbox(lon, lat, -180.0, -60.0, 180.0, 80.0))  -- a comment
          and (S2_time >= TIMESTAMPTZ '2018-01-01T00:00:00+00:00' and S2_time < TIMESTAMPTZ '2022-01-01T00:00:00+00:00')
        order by cloud_cover, sample_id limit 7"""
    assert built.plan() == bank.sql(written).plan()
    assert built.limit(6).plan().fingerprint != built.plan().fingerprint
    rows = bank.sql("SELECT sample_id, cloud_cover, lat, S2_time FROM t").arrow().to_pylist()
    expected = sorted(
        (r["cloud_cover"], r["sample_id"])
        for r in rows
        if r["cloud_cover"] < 0.5
        and -60 <= r["lat"] <= 80
        and datetime(2018, 1, 1, tzinfo=UTC) <= r["S2_time"] < datetime(2022, 1, 1, tzinfo=UTC)
    )
    assert ids(built.arrow()) == [name for _, name in expected][:7]


def test_a_box_across_the_antimeridian_is_the_rest_of_the_world(bank):
    east = set(ids(bank.query("t").select("sample_id").bbox(0, -90, 180, 90).arrow()))
    west = set(ids(bank.query("t").select("sample_id").bbox(-180, -90, 0, 90).arrow()))
    across = set(ids(bank.query("t").select("sample_id").bbox(100, -90, -100, 90).arrow()))
    lon = {r["sample_id"]: r["lon"] for r in bank.sql("SELECT sample_id, lon FROM t").arrow().to_pylist()}
    assert east == {s for s, v in lon.items() if v >= 0}
    assert west == {s for s, v in lon.items() if v <= 0}
    assert across == {s for s, v in lon.items() if v >= 100 or v <= -100}


@pytest.mark.parametrize("bad", ["last week", "2021-13-01"])
def test_a_wrong_date_is_named(bank, bad):
    with pytest.raises(tb.InvalidInputError, match=bad):
        bank.query("t").between(bad, "2022-01-01")


def test_wrong_steps_are_named(bank):
    with pytest.raises(tb.InvalidInputError, match="commas"):
        bank.query("t").select("S2L2A[B04,,B08]")
    with pytest.raises(tb.InvalidInputError, match="limit"):
        bank.query("t").limit(-1)
    with pytest.raises(tb.NotFoundError, match="B08"):
        bank.query("t").select("S2L2A[B80]").plan()


@pytest.mark.parametrize(
    "box",
    [(0, -90, 360, 90), ("a", 0, 1, 1), (math.nan, 0, 1, 1), (-math.inf, -90, 180, 90), (0, 50, 10, 40)],
    ids=str,
)
def test_a_box_that_holds_no_centre_is_refused(bank, box):
    with pytest.raises(tb.InvalidInputError, match=r"west|east|south"):
        bank.query("t").bbox(*box)


def test_a_condition_that_ends_in_a_comment_does_not_end_the_statement(bank):
    found = bank.query("t").where("lon > 0 -- the east").where("lat > 0").arrow()
    assert sorted(ids(found)) == sorted(
        r["sample_id"]
        for r in bank.sql("SELECT sample_id, lon, lat FROM t").arrow().to_pylist()
        if r["lon"] > 0 and r["lat"] > 0
    )


@pytest.mark.parametrize(
    "sql", [None, b"SELECT 1", "SELECT '\ud800'", "SELECT " + "NOT " * 900 + "true"], ids=str
)
def test_what_is_no_statement_is_refused(bank, sql):
    with pytest.raises(tb.InvalidInputError):
        bank.sql(sql).arrow()


def test_a_pin_is_of_a_table_that_there_is(bank):
    for versions in ({"tt": 1}, 3):
        with pytest.raises(tb.InvalidInputError):
            bank.at(versions)
    assert bank.at({"T": 0}).versions == {"t": 0}


def test_a_column_that_a_query_does_not_hand_on_is_not_its_own_hint(bank):
    split = bank.query("t").select("DEM").split_by("cell_id", {"train": 0.5})
    with pytest.raises(tb.InvalidInputError, match="subquery in between does not select it"):
        split["train"].plan()


def test_own_tables_join_and_are_part_of_the_fingerprint(bank, tmp_path):
    some = ids(bank.sql("SELECT sample_id FROM t ORDER BY sample_id").arrow())[:6]
    captions = pa.table({"sample_id": some, "caption": [f"a picture of {s}" for s in some]})
    sql = "SELECT t.sample_id, caption, S2L2A FROM t JOIN captions USING (sample_id) ORDER BY t.sample_id"
    with pytest.raises(tb.InvalidInputError, match="captions"):
        bank.sql(sql).plan()
    plans = []
    path = tmp_path / "captions.parquet"
    pq.write_table(captions, path)
    for given in (captions, captions.to_pandas(), path, captions.slice(0, 5)):
        bank.register("captions", given)
        plans.append(bank.sql(sql).plan())
    bank.registered.clear()
    assert [len(p) for p in plans] == [6, 6, 6, 5]
    assert plans[0].table["caption"].to_pylist() == captions["caption"].to_pylist()
    assert plans[0].fingerprint == plans[2].fingerprint != plans[3].fingerprint
    with pytest.raises(tb.InvalidInputError, match="already"):
        bank.register("T", captions)
    with pytest.raises(tb.InvalidInputError, match="list"):
        bank.register("other", [1, 2])
    with pytest.raises(tb.NotFoundError, match="nowhere"):
        bank.register("other", "nowhere.parquet")


def test_splits_share_no_group_and_lose_no_sample(bank):
    query = bank.sql("SELECT sample_id, cell_id, location_id, S2L2A FROM t")
    group = "coalesce(cell_id, location_id)"
    parts = query.split_by(group, {"train": 0.6, "val": 0.2, "test": 0.2}, seed=1)
    rows = {
        name: [(r["sample_id"], r["cell_id"] or r["location_id"]) for r in q.arrow().to_pylist()]
        for name, q in parts.items()
    }
    everything = [r for part in rows.values() for r in part]
    assert sorted(s for s, _ in everything) == sorted(ids(query.arrow()))
    groups = [{g for _, g in part} for part in rows.values()]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]
    assert len(parts["train"].plan()) == len(rows["train"]) > 0
    # a sample's part does not depend on what else is selected
    fewer = bank.sql("SELECT sample_id, cell_id, location_id FROM t WHERE cloud_cover < 0.3").split_by(
        group, {"train": 0.6, "val": 0.2, "test": 0.2}, seed=1
    )
    assert set(ids(fewer["train"].arrow())) <= {s for s, _ in rows["train"]}
    other = query.split_by(group, {"train": 0.6}, seed=2)["train"].arrow()
    assert sorted(ids(other)) != sorted(s for s, _ in rows["train"])
    for bad in ({"a": 0.9, "b": 0.2}, {"a": 0.0}, {}):
        with pytest.raises(tb.InvalidInputError, match="fractions"):
            query.split_by(group, bad)


def test_a_forecast_is_its_model(bank):
    found = forecast(
        read_bytes=10**9,
        tensor_bytes=2 * 10**9,
        n_requests=1000,
        network_gbps=8.0,
        rtt_ms=20.0,
        cores=2,
        n_inflight=10,
        price=Price(per_1000_requests=0.5, per_gb=0.1),
    )
    assert found.network_s == pytest.approx(1.0)
    assert found.latency_s == pytest.approx(2.0)
    assert found.decode_s == pytest.approx(2e9 / 4e9)
    assert (found.seconds, found.bound_by) == (pytest.approx(2.0), "latency")
    assert found.cost == pytest.approx(0.6)
    plan = bank.sql("SELECT S2L2A, bands(DEM, ['DEM']) AS height FROM t").plan()
    mine = plan.forecast(network_gbps=10, rtt_ms=30, cores=8)
    assert (mine.read_bytes, mine.n_requests) == (plan.read_bytes, 80)
    assert math.isfinite(mine.cost)
    two_runs = bank.sql("SELECT bands(S2L2A, ['B02', 'B08']) AS b FROM t").plan()
    assert two_runs.n_reads == 80
    with pytest.raises(tb.InvalidInputError, match="cores=0"):
        plan.forecast(network_gbps=10, rtt_ms=30, cores=0)


def square(lon: float, lat: float, half: float) -> dict:
    corners = [(-half, -half), (half, -half), (half, half), (-half, half), (-half, -half)]
    return {"type": "Polygon", "coordinates": [[[lon + x, lat + y] for x, y in corners]]}


def test_polygons_meet_exact_footprints(bank):
    rows = bank.sql("SELECT sample_id, lon, lat, footprint FROM t").arrow().to_pylist()
    target = rows[3]
    area = square(target["lon"], target["lat"], 0.5)
    shape = shapely.from_geojson(json.dumps(area))
    expected = {r["sample_id"] for r in rows if shapely.intersects(shape, shapely.from_wkb(r["footprint"]))}
    for form in (area, json.dumps(area), {"type": "Feature", "geometry": area}, shape):
        found = bank.query("t").select("sample_id", "S2L2A").intersecting(form).plan()
        assert set(found.table["sample_id"].to_pylist()) == expected
    assert target["sample_id"] in expected
    # a corner of the footprint is enough, and the box of the centre would not have found it
    west, south, _, _ = shapely.bounds(shapely.from_wkb(target["footprint"]))
    corner = bank.query("t").select("sample_id").intersecting(square(west, south, 0.004)).arrow()
    assert target["sample_id"] in ids(corner)
    for bad in ("{}", "no json", {"type": "Polygon", "coordinates": []}, 7):
        with pytest.raises(tb.InvalidInputError, match=r"GeoJSON|empty"):
            bank.query("t").intersecting(bad)
    with pytest.raises(tb.InvalidInputError, match="GeoJSON"):
        bank.sql("SELECT sample_id FROM t WHERE intersects_polygon(footprint, 'x')").arrow()


def test_a_plan_explains_itself_to_people_programs_and_notebooks(bank):
    plan = bank.sql("SELECT S2L2A, DEM FROM t WHERE cloud_cover < 0.3 AND pixels_any(NDVI, '> 0.5')").plan()
    told = json.loads(json.dumps(plan.explain_json()))
    samples = next(level for level in told["levels"] if level["level"] == "samples")
    assert samples["considered"] == 40
    assert samples["kept"] == len(plan) == 40 - samples["pruned"]
    assert told["read_bytes"] == plan.read_bytes <= told["scan_bytes"]
    assert f"{len(plan):,}" in plan.explain()
    page = plan._repr_html_()
    assert "&lt; 0.3" in page
    assert page.count("<tr>") == len(told["levels"]) + 1
