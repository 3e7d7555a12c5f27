"""Columns that hold NaN, found in tables and files."""

from __future__ import annotations

import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tensorbank.index_files.nan_columns import of_file, with_nan

ROWS = pa.table(
    {
        "lon": pa.array([1.0, math.nan], pa.float64()),
        "lat": pa.array([1.0, math.inf], pa.float64()),
        "cloud_cover": pa.array([None, 0.5], pa.float32()),
        "row": pa.array([1, 2], pa.int32()),
        "inner": pa.array([{"x": math.nan}, {"x": 1.0}]),
    }
)


def test_nan_is_neither_null_nor_infinite():
    assert with_nan(ROWS) == {"lon"}
    assert with_nan(ROWS.slice(0, 1)) == frozenset()


@pytest.mark.parametrize(("columns", "found"), [(["lon", "lat", "row", "inner"], {"lon"}), (["row"], set())])
def test_files_are_looked_through(tmp_path, columns, found):
    pq.write_table(ROWS.select(columns), tmp_path / "rows.parquet")
    assert of_file(str(tmp_path / "rows.parquet")) == found
