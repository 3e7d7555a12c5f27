"""Numbers between Arrow and numpy: as pyarrow gives them, and without pandas."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from tensorbank.arrow_numpy import as_arrow, as_numpy

sys.path.insert(0, str(Path(__file__).parents[1] / "loader"))
from handmade import make

sys.path.pop(0)

TYPES = (pa.int8(), pa.int32(), pa.int64(), pa.uint16(), pa.float32(), pa.float64(), pa.bool_())


@given(st.data(), st.sampled_from(TYPES))
def test_numbers_are_what_pyarrow_says(data, kind):
    values = st.booleans() if pa.types.is_boolean(kind) else st.integers(0, 100)
    lists = data.draw(st.lists(st.lists(st.none() | values, max_size=20), max_size=3))
    column = pa.chunked_array([pa.array(part, kind) for part in lists], kind)
    start = data.draw(st.integers(0, len(column)))
    column = column.slice(start, data.draw(st.integers(0, len(column) - start)))
    null = 0 if pa.types.is_boolean(kind) else 101
    expected = [null if v is None else v for v in column.to_pylist()]
    found = as_numpy(column, null)
    assert found.tolist() == expected
    assert found.dtype == kind.to_pandas_dtype()


def test_null_of_floats_is_nan():
    found = as_numpy(pa.array([1.5, None, -2.0], pa.float32()))
    assert np.isnan(found).tolist() == [False, True, False]


@given(st.lists(st.integers(0, 99)), st.integers(1, 3))
def test_positions_go_to_arrow(numbers, step):
    positions = np.array(numbers, np.int64)[::step]
    assert as_arrow(positions).equals(pa.array(positions))


def test_a_first_batch_imports_no_pandas(tmp_path):
    assert importlib.util.find_spec("pandas"), "where it is missing, this shows nothing"
    make(tmp_path, 5).plan.save(tmp_path / "plan.arrow")
    code = (
        "import sys, tensorbank as tb\n"
        f"with tb.Plan.load({str(tmp_path / 'plan.arrow')!r}).dataloader(batch_size=2) as loader: next(iter(loader))\n"
        "assert 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
