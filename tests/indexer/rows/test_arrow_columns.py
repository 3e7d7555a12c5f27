"""No NaN and no infinity passes into index rows, however deep it lies."""

from __future__ import annotations

import math

import pyarrow as pa

from tensorbank_indexer.rows.arrow_columns import finite_only

BAND = pa.struct([("mean", pa.float32()), ("count", pa.int64())])


def test_what_is_not_finite_is_null_in_structs_and_lists():
    rows = pa.table(
        {
            "lon": pa.array([1.5, math.nan, None]),
            "S2": pa.array(
                [{"mean": math.inf, "count": 3}, None, {"mean": 2.0, "count": None}], pa.struct(list(BAND))
            ),
            "covers": pa.array([[0.5, math.nan], [], None], pa.list_(pa.float64())),
            "bands": pa.array(
                [{"B01": {"mean": -math.inf, "count": 1}}, None, {"B01": None}], pa.struct([("B01", BAND)])
            ),
            "stem": ["a", "b", "c"],
        }
    )
    found = finite_only(rows)
    assert found.schema == rows.schema
    assert found.to_pydict() == {
        "lon": [1.5, None, None],
        "S2": [{"mean": None, "count": 3}, None, {"mean": 2.0, "count": None}],
        "covers": [[0.5, None], [], None],
        "bands": [{"B01": {"mean": None, "count": 1}}, None, {"B01": None}],
        "stem": ["a", "b", "c"],
    }


def test_rows_without_any_stay_as_they_are():
    rows = pa.table(
        {
            "lon": [1.0, None],
            "covers": [[0.25], None],
            "S2": pa.array([None, {"mean": 1.0, "count": 1}], BAND),
        }
    )
    assert finite_only(rows).equals(rows)
    assert finite_only(rows.schema.empty_table()) == rows.schema.empty_table()
