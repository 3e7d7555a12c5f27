"""Pruning never loses a row: any statement gives what DuckDB gives over copies of all rows, which nothing is pruned of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import synthetic_index
import tensorbank as tb
from support.handmade_index import make_table
from tensorbank.sql.functions import MACROS

ROOT = Path(__file__).parents[2]

quiet = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@dataclass(frozen=True)
class Bed:
    """A bank, its rows in tables of DuckDB's own, and what may be asked of them."""

    bank: tb.Bank
    truth: duckdb.DuckDBPyConnection
    table: str
    numbers: dict[str, list[float]]
    texts: dict[str, list[str]]
    times: dict[str, list[str]]


def copies(bank: tb.Bank, table: str) -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    con.execute(MACROS)
    con.execute(f"CREATE SCHEMA {table}")
    for level in ("samples", "tiles", "shards"):
        paths = bank.catalog.mirror.paths(bank.catalog.files(table, level).files)
        rows = pa.concat_tables((pa.parquet.read_table(p) for p in paths), promote_options="permissive")
        con.register("given", rows)
        con.execute(f"CREATE TABLE {table}.{level} AS SELECT * FROM given")
        con.unregister("given")
    con.execute(f"CREATE VIEW main.{table} AS SELECT * FROM {table}.samples")
    return con


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Bed:
    """Sorted rows with true roll-ups at every level: most blocks can be skipped."""
    folder = tmp_path_factory.mktemp("world") / "bank"
    for _ in synthetic_index.write(folder, 4096, 5, 3, 1):
        pass
    bank = tb.open(str(folder))
    con = copies(bank, "world")
    asked = [
        "lon",
        "lat",
        "cloud_cover",
        "NDVI.mean",
        "NDVI.max",
        "S2L2A.B08.p75",
        "S1RTC.vv.min",
        "LULC.share.trees",
        "bbox.west",
    ]
    numbers = {
        c: con.execute(
            f"SELECT quantile_disc({c}, [0.0, 0.01, 0.3, 0.5, 0.8, 0.99, 1.0]) FROM world"
        ).fetchall()[0][0]
        for c in asked
    }
    texts = {
        "season": ["summer", "winter", "monsoon"],
        "part": ["part-0001", "part-0004"],
        "split": ["train"],
    }
    times = {"S2_time": ["2020-04-02", "2020-07-15 12:00:00", "2020-07-15T12:00:00+02:00"]}
    return Bed(bank, con, "world", numbers, texts, times)


@pytest.fixture(scope="module")
def gappy(tmp_path_factory) -> Bed:
    """Rows in no order, with nulls everywhere."""
    bank = tb.create(tmp_path_factory.mktemp("gappy"))
    make_table(bank, "world", parts=6, n=9)
    con = copies(bank, "world")
    numbers = {
        "lon": [-200, -30.5, 0, 170],
        "cloud_cover": [0, 0.05, 0.5, 0.991, 2],
        "NDVI.mean": [-5, 0, 20, 45, 60],
        "S2L2A.B08.max": [0, 30, 95],
        "S1GRD.vv.valid": [0, 64],
        "LULC.share.trees": [0, 0.5, 0.99],
    }
    texts = {"season": ["summer", "winter", ""], "part": ["part-3", "part-9"], "sample_id": ["part-2-0003"]}
    return Bed(bank, con, "world", numbers, texts, {})


@st.composite
def predicates(draw: st.DrawFn, bed: Bed, prefix: str = "", depth: int = 2) -> str:
    """Draw random predicates, some of a kind that pruning must not misunderstand."""
    kind = draw(st.sampled_from(["number"] * 3 + ["text", "time", "odd"] + ["tree"] * (3 if depth else 0)))
    if kind == "tree":
        parts = [draw(predicates(bed, prefix, depth - 1)) for _ in range(draw(st.integers(1, 3)))]
        text = f" {draw(st.sampled_from(['AND', 'OR']))} ".join(f"({p})" for p in parts)
        return f"NOT ({text})" if draw(st.booleans()) else text
    if kind == "time" and bed.times:
        column = draw(st.sampled_from(sorted(bed.times)))
        value = draw(st.sampled_from(bed.times[column]))
        cast = draw(st.sampled_from(["'{}'", "TIMESTAMPTZ '{}'", "'{}'::TIMESTAMPTZ"])).format(value)
        return f"{prefix}{column} {draw(st.sampled_from(['<', '>=', '>', '<=']))} {cast}"
    if kind == "text":
        column = draw(st.sampled_from(sorted(bed.texts)))
        values = bed.texts[column]
        form = draw(
            st.sampled_from(
                [
                    "{c} = '{v}'",
                    "'{v}' != {c}",
                    "{c} IN ('{v}', '{w}')",
                    "{c} NOT IN ('{v}')",
                    "{c} LIKE '{v}%'",
                    "{c} > '{v}'",
                ]
            )
        )
        return form.format(
            c=prefix + column, v=draw(st.sampled_from(values)), w=draw(st.sampled_from(values))
        )
    column = prefix + draw(st.sampled_from(sorted(bed.numbers)))
    values = bed.numbers[column.removeprefix(prefix)]
    v, w = draw(st.sampled_from(values)), draw(st.sampled_from(values))
    if kind == "odd":
        form = draw(
            st.sampled_from(
                [
                    "abs({c}) > {v}",
                    "-{c} < {v}",
                    "{c} + 1 > {v}",
                    "{c} IS NULL",
                    "{c} IS NOT DISTINCT FROM {v}",
                    "coalesce({c}, {v}) >= {w}",
                    "CASE WHEN {c} > {v} THEN true ELSE {c} < {w} END",
                    "try_cast({c} AS INTEGER) = 0",
                    "{c}::INTEGER > {v}",
                    "({c} > {v}) = ({c} > {w})",
                    "{c} > {v} IS NOT TRUE",
                    "{c} > (SELECT {v})",
                    "within_bbox({p}lon, {p}lat, 170, -60, -150, 60)",
                    "within_bbox({p}lon, {p}lat, -20, -90, 40, 90)",
                    "{c} NOT BETWEEN {v} AND {w}",
                ]
            )
        )
        if "lat" in form and "lat" not in bed.numbers:
            form = "{c} > {v}"
        return form.format(c=column, v=v, w=w, p=prefix)
    form = draw(
        st.sampled_from(["{c} {o} {v}", "{v} {o} {c}", "{c} BETWEEN {v} AND {w}", "{c} IN ({v}, {w})"])
    )
    return form.format(c=column, o=draw(st.sampled_from(["<", "<=", ">", ">=", "=", "!=", "<>"])), v=v, w=w)


STATEMENTS = [
    "SELECT sample_id FROM {t} WHERE {a}",
    "SELECT x.sample_id FROM {t} AS x WHERE {x}",
    "SELECT sample_id FROM (SELECT * FROM {t} WHERE {a}) AS q WHERE {b}",
    "WITH q AS (SELECT * FROM {t} WHERE {a}) SELECT sample_id FROM q UNION ALL SELECT sample_id FROM {t} WHERE {b}",
    "SELECT sample_id FROM {t} WHERE {a} EXCEPT SELECT sample_id FROM {t} WHERE {b}",
    "SELECT x.sample_id FROM {t} AS x JOIN {t} AS y USING (sample_id) WHERE {x} AND {y}",
    (
        "SELECT x.sample_id FROM {t} AS x LEFT JOIN (SELECT * FROM {t} WHERE {a}) AS y USING (sample_id)"
        " WHERE {x} AND y.sample_id IS NULL"
    ),
    "SELECT x.sample_id FROM {t} AS x LEFT JOIN {t} AS y ON x.sample_id = y.sample_id AND {y} WHERE {x}",
    (
        "SELECT coalesce(x.sample_id, y.sample_id) AS sample_id FROM (SELECT * FROM {t}"
        " WHERE {a}) AS x FULL JOIN {t} AS y USING (sample_id) WHERE {y} OR {x}"
    ),
    "SELECT sample_id FROM {t} ANTI JOIN (SELECT sample_id AS s FROM {t} WHERE {a}) AS y ON sample_id = y.s",
    (
        "SELECT sample_id FROM {t} AS x WHERE {x} AND NOT EXISTS (SELECT 1 FROM {t} AS y"
        " WHERE y.sample_id = x.sample_id AND {y})"
    ),
    "SELECT sample_id FROM {t} WHERE {a} QUALIFY row_number() OVER (PARTITION BY season ORDER BY sample_id) <= 2",
    "SELECT sample_id FROM {t} WHERE sample_id IN (SELECT sample_id FROM {t}.tiles WHERE {c})",
    "SELECT sample_id || '/' || tile AS sample_id FROM {t}.tiles WHERE {c}",
    "SELECT x.sample_id FROM {t} AS x JOIN {t}.tiles AS y ON x.sample_id = y.sample_id WHERE {x} AND y.tile < 2",
    "SELECT season AS sample_id FROM {t} GROUP BY season HAVING count(*) FILTER (WHERE {a}) > 3",
    "SELECT sample_id FROM {t} WHERE {a} ORDER BY sample_id LIMIT 5 OFFSET 2",
    "SELECT sample_id FROM {t}, (SELECT max(lon) AS far FROM {t} WHERE {b}) AS q WHERE {a} AND lon <= far",
    "SELECT part || shard AS sample_id FROM {t}.shards WHERE n_samples > 3",
    "SELECT CASE WHEN {a} THEN sample_id END AS sample_id FROM {t}",
]


def check(bed: Bed, data: st.DataObject) -> None:
    sql = data.draw(st.sampled_from(STATEMENTS))
    given_ = {"t": bed.table}
    for name, prefix in {"a": "", "b": "", "x": "x.", "y": "y."}.items():
        if f"{{{name}}}" in sql:
            given_[name] = f"({data.draw(predicates(bed, prefix))})"
    if "{c}" in sql:
        limit = data.draw(st.sampled_from([-0.5, 0.2, 0.5, 0.9]))
        given_["c"] = data.draw(
            st.sampled_from(
                [
                    f"NDVI.mean > {limit}",
                    f"season = 'summer' AND NDVI.max < {limit}",
                    f"tile = 1 OR NDVI.min >= {limit}",
                    "lon > 150",
                    f"LULC.share.trees > {limit}",
                ]
            )
        )
    sql = sql.format(**given_)
    expected = sorted(map(str, bed.truth.sql(sql).to_arrow_table()["sample_id"].to_pylist()))
    assert sorted(map(str, bed.bank.sql(sql).arrow()["sample_id"].to_pylist())) == expected, sql


@quiet
@given(data=st.data())
def test_sorted_rows_are_pruned_without_loss(world, data):
    check(world, data)


@quiet
@given(data=st.data())
def test_rows_with_gaps_are_pruned_without_loss(gappy, data):
    check(gappy, data)


def test_these_beds_do_prune(world):
    """Otherwise the properties above would say nothing."""
    plan = world.bank.sql(
        "SELECT S2L2A FROM world WHERE season = 'summer' AND lon > 100 AND NDVI.mean > 0.2"
    ).plan()
    levels = {r.level: r for r in plan.source.levels}
    assert 0 < levels["files"].kept < levels["files"].considered
    assert 0 < levels["shards"].kept < levels["shards"].considered
    assert (
        len(plan)
        == world.truth.execute(
            "SELECT count(*) FROM world WHERE season = 'summer' AND lon > 100 AND NDVI.mean > 0.2"
        ).fetchall()[0][0]
    )
