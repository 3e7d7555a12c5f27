"""SHOW, DESCRIBE, SUMMARIZE and PIVOT: rows for people to look at, and refused by plans with what to write instead."""

from __future__ import annotations

from collections import Counter

import pytest

import tensorbank as tb
from support.tied_index import make_tied_table
from tensorbank import InvalidInputError
from tensorbank.sql.shorthands import with_columns


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    bank = tb.create(tmp_path_factory.mktemp("shows"))
    make_tied_table(bank, "tied", parts=2, n=300)
    make_tied_table(bank, "other", parts=1, n=20)
    return bank


def refused(ask) -> str:
    with pytest.raises(InvalidInputError) as caught:
        ask()
    return f"{caught.value.kind}: {caught.value}"


@pytest.mark.parametrize(
    "sql", ["SHOW TABLES", "show tables;", "SELECT name FROM (SHOW TABLES) AS s ORDER BY name"]
)
def test_show_tables(bank, sql):
    assert bank.sql(sql).arrow().to_pylist() == [{"name": "other"}, {"name": "tied"}]
    assert refused(bank.sql(sql).plan).startswith("sql: SHOW")


@pytest.mark.parametrize(
    "sql", ["DESCRIBE tied", "DESC tied", "SHOW tied", "FROM (DESCRIBE tied)", "DESCRIBE SELECT * FROM tied"]
)
def test_describe(bank, sql):
    found = {r["column_name"]: r["column_type"] for r in bank.sql(sql).arrow().to_pylist()}
    assert found["NDVI"] == "TENSOR float32[1, 1, 8, 8]"
    assert found["lon"] == "DOUBLE"
    assert found["S2_time"] == "TIMESTAMP WITH TIME ZONE"
    assert list(found) == bank.sql("SELECT * FROM tied LIMIT 0").arrow().column_names
    assert refused(bank.sql(sql).plan).startswith("sql: SHOW")


def test_describe_of_some_columns_and_of_another_level(bank):
    found = bank.sql("DESCRIBE SELECT NDVI AS x, lon + 1 AS y FROM tied").arrow().to_pylist()
    types = [("x", "TENSOR float32[1, 1, 8, 8]"), ("y", "DOUBLE")]
    assert [(r["column_name"], r["column_type"]) for r in found] == types
    (found,) = bank.sql("DESCRIBE SELECT list_value(NDVI)[1] AS x FROM tied").arrow().to_pylist()
    assert found["column_type"] == "TENSOR", "of what cannot be followed nothing is claimed"
    found = bank.sql("DESCRIBE tied.tiles").arrow()["column_name"].to_pylist()
    assert "tile" in found
    assert (
        refused(bank.sql("DESCRIBE tide").arrow)
        == "unknown-table: there is no table 'tide'. Did you mean 'tied'?"
    )


def test_summarize(bank):
    found = {
        r["column_name"]: r for r in bank.sql("SUMMARIZE SELECT lon, split FROM tied").arrow().to_pylist()
    }
    assert found["lon"]["count"] == 600
    assert {found["split"]["min"], found["split"]["max"]} == {"train", "val"}


@pytest.mark.parametrize("sql", ["SHOW DATABASES", "SHOW SCHEMAS"])
def test_there_is_nothing_else_to_show(bank, sql):
    assert refused(bank.sql(sql).arrow).startswith("sql: only SHOW TABLES")


def test_what_lists_tables_is_no_table_to_hint_at(bank):
    assert (
        refused(bank.sql("SHOW FUNCTIONS").arrow)
        == "unknown-table: there is no table 'FUNCTIONS'. Choose from other, tied."
    )


@pytest.mark.parametrize(
    "sql",
    [
        "PIVOT (SELECT split, season FROM tied) ON split USING count(*) GROUP BY season",
        "pivot (SELECT split, season FROM tied) on split -- IN\nusing count(*);",
        "SELECT * FROM (PIVOT (SELECT split, season FROM tied) ON split USING count(*)) AS p",
        "WITH c AS (SELECT split, season FROM tied) PIVOT c ON (split) USING count(*)",
        "PIVOT (SELECT split, season FROM tied) ON split IN ('train', 'val') USING count(*)",
    ],
)
def test_pivot(bank, sql):
    rows = bank.sql("SELECT split, season FROM tied").arrow().to_pylist()
    right = Counter((r["season"], r["split"]) for r in rows)
    found = {(r["season"], s): r[s] for r in bank.sql(sql).arrow().to_pylist() for s in ("train", "val")}
    assert found == right
    assert len(right) == 6


def test_pivot_on_an_expression_and_on_two(bank):
    found = bank.sql("PIVOT (SELECT split FROM tied) ON upper(split) || '!' USING count(*)").arrow()
    assert found.column_names == ["TRAIN!", "VAL!"]
    found = bank.sql(
        "PIVOT (SELECT split, lat > 0 AS n FROM tied) ON split, n IN (true) USING count(*)"
    ).arrow()
    assert found.column_names == ["train_true", "val_true"]


def test_a_plan_needs_the_columns_of_a_pivot_named(bank):
    pivot = "(PIVOT (SELECT split, season FROM tied) ON split{} USING count(*))"
    dynamic = f"SELECT t.sample_id, NDVI FROM tied t JOIN {pivot} USING (season)"
    assert refused(bank.sql(dynamic.format("")).plan).startswith(
        "sql: the columns of this PIVOT follow from the data"
    )
    assert len(bank.sql(dynamic.format(" IN ('train')")).plan()) == 600
    assert refused(bank.sql("PIVOT 'pick.csv' ON x").arrow).startswith("outside-bank")
    assert refused(bank.sql("PIVOT tide ON x").arrow).startswith("unknown-table")
    assert bank.sql("SELECT NDVI FROM tied").plan(), "what a PIVOT left behind is not met again"


def test_columns_are_named_where_only_the_data_name_them():
    assert with_columns("FROM t PIVOT (sum(x) FOR y IN ('a'))") is None
    assert with_columns("PIVOT t ON a IN ('x') USING sum(b)") is None
    assert (
        with_columns("PIVOT t ON a, b[1] USING sum(c)")
        == "PIVOT t ON a IN ('') , (b[1] ) IN ('') USING sum(c)"
    )
