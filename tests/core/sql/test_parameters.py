"""Parameters of a statement: the plan of the literals that they stand for, whatever their values hold."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import tensorbank as tb
from support.tied_index import make_tied_table
from tensorbank import InvalidInputError, Plan
from tensorbank.sql.parameters import bound


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    bank = tb.create(tmp_path_factory.mktemp("parameters"))
    make_tied_table(bank, "tied", parts=2, n=300)
    return bank


@pytest.fixture(scope="module")
def rows(bank):
    return bank.sql("SELECT sample_id, lon, lat, season, S2_time FROM tied").arrow().to_pylist()


def ids(query) -> list[str]:
    return sorted(query.plan().table["sample_id"].to_pylist())


def test_a_parameter_is_its_literal(bank, rows):
    query = bank.sql(
        "SELECT sample_id, NDVI FROM tied WHERE lat < $lat AND season = $season", lat=0, season="summer"
    )
    assert ids(query) == sorted(r["sample_id"] for r in rows if r["lat"] < 0 and r["season"] == "summer")
    written = bank.sql("SELECT sample_id, NDVI FROM tied WHERE lat < 0 AND season = 'summer'")
    assert query.plan().fingerprint == written.plan().fingerprint
    other = bank.sql(
        "SELECT sample_id, NDVI FROM tied WHERE lat < $lat AND season = $season", lat=1, season="summer"
    )
    assert other.plan().fingerprint != query.plan().fingerprint


def test_a_saved_plan_says_the_values(bank, tmp_path):
    plan = bank.sql("SELECT NDVI FROM tied WHERE lat < $lat", lat=-3.5).plan()
    again = bank.sql(Plan.load(plan.save(tmp_path / "plan")).source.sql).plan()
    assert again.fingerprint == plan.fingerprint


@pytest.mark.parametrize(
    "form", ["season IN $names", "season IN ($names)", "season in\n $Names", "list_contains($names, season)"]
)
@pytest.mark.parametrize(
    "names", [["winter", "SUMMER"], ("winter",), {"summer", "it's"}, [], np.array(["summer"])]
)
def test_lists(bank, rows, form, names):
    query = bank.sql(f"SELECT sample_id, NDVI FROM tied WHERE {form}", names=names)
    assert query.arrow()["sample_id"].to_pylist() == [
        r["sample_id"] for r in rows if r["season"] in list(names)
    ]


def test_nothing_is_out_of_an_empty_list(bank, rows):
    query = bank.sql(
        "SELECT sample_id, NDVI FROM tied WHERE season NOT IN $names AND lon NOT IN ($numbers)",
        names=[],
        numbers=(),
    )
    assert len(ids(query)) == len(rows)


@pytest.mark.parametrize(
    "value",
    [
        *(0, -7, 2**62, -(2**62), 10**30, True, False, None, 0.1, -0.1, 1e300, -2.5e-300, 0.0, 3.0, float("inf")),
        *("", "it's", "a -- b", "a'; DROP TABLE t; --", '"$c"', "ünï\U0001f30d", "back\\slash", "new\nline", "/* c", "$$"),
        *(date(2020, 2, 29), datetime(2020, 2, 29, 12, 0, 1, 5), datetime(2020, 1, 1, tzinfo=timezone(timedelta(hours=5)))),
        *(Decimal("12.340"), Decimal("-0.01"), [1, 2, 3], ["a", "it's"]),
        *(np.float64(0.25), np.int64(-3), np.float32(0.5), np.bool_(True)),
    ],
    ids=repr,
)  # fmt: skip
def test_every_value_comes_back(bank, value):
    found = bank.sql("SELECT $c AS x, '$c', 1 AS y -- $c", c=value).arrow()["x"][0].as_py()
    if isinstance(value, datetime):
        value = value if value.tzinfo else value.replace(tzinfo=UTC)
    assert found == value
    assert not isinstance(value, float) or isinstance(found, float)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (np.datetime64("2020-02-29T12:00:00.000005123"), datetime(2020, 2, 29, 12, 0, 0, 5, UTC)),
        (np.array(["2020-01-01"], "M8[ns]"), [datetime(2020, 1, 1, tzinfo=UTC)]),
        (pd.Series(pd.to_datetime(["2020-01-01"])), [datetime(2020, 1, 1, tzinfo=UTC)]),
        (pd.Series(pd.to_datetime(["2020-01-01"])).dt.tz_localize("UTC"), [datetime(2020, 1, 1, tzinfo=UTC)]),
        (pd.Timestamp("2020-01-01 00:00:00.000001999"), datetime(2020, 1, 1, 0, 0, 0, 1, UTC)),
        *((nothing, None) for nothing in (pd.NaT, pd.NA, np.datetime64("NaT"), np.datetime64("NaT", "ns"))),
        *((pa.scalar(3), 3), (pa.array(["a", None]), ["a", None]), ([np.int64(3), np.int8(-4)], [3, -4])),
        ([pd.NaT, np.datetime64("2020-01-01", "ns")], [None, datetime(2020, 1, 1, tzinfo=UTC)]),
    ],
    ids=lambda v: type(v).__name__,
)
def test_values_of_numpy_pandas_and_arrow_are_those_of_python(bank, value, found):
    assert bank.sql("SELECT $c AS x", c=value).arrow()["x"][0].as_py() == found


def test_a_duration_can_be_added_to_a_time(bank):
    sql = "SELECT TIMESTAMPTZ '2020-01-01' - $c AS x"
    found = bank.sql(sql, c=timedelta(days=1, microseconds=3)).arrow()["x"][0].as_py()
    assert found == datetime(2019, 12, 30, 23, 59, 59, 999_997, tzinfo=UTC)


def test_a_negative_number_makes_no_comment(bank):
    assert bank.sql("SELECT 5 -$c AS x, -$c AS y", c=-2).arrow().to_pylist() == [{"x": 7, "y": 2}]


def test_text_that_only_looks_like_a_parameter_is_left_alone():
    sql = "SELECT '$c', \"$c\", $$ $c $$, $t$ $c $t$ /* $c */ FROM ü WHERE ü = $c -- $c"
    assert bound(sql, {"c": 3}) == sql.replace("ü = $c", "ü =  3 ")
    assert bound("SELECT 'a$b'", {}) == "SELECT 'a$b'"


@pytest.mark.parametrize(
    ("sql", "values"),
    [
        ("SELECT $c", {}),
        ("SELECT $c", {"d": 1}),
        ("SELECT 1", {"c": 1}),
        ("SELECT '$c'", {"c": 1}),
        ("SELECT $1", {}),
        ("SELECT $c", {"c": 1, "C": 2}),
        ("SELECT $c", {"c": object()}),
        ("SELECT $c", {"c": b"bytes"}),
        ("SELECT $c", {"c": "nul\0"}),
        ("SELECT $c", {"c": "\ud800"}),
        ("SELECT $c", {"c": Decimal("NaN")}),
        ("SELECT $c", {"c": [1, object()]}),
    ],
)
def test_what_cannot_be_bound_is_refused(bank, sql, values):
    with pytest.raises(InvalidInputError) as caught:
        bank.sql(sql, **values)
    assert caught.value.kind == "parameter"
    assert "$" in str(caught.value)


def test_positional_parameters_are_refused(bank):
    with pytest.raises(InvalidInputError) as caught:
        bank.sql("SELECT NDVI FROM tied WHERE lat < ?").plan()
    assert caught.value.kind in ("sql", "parameter")
