"""Numbers between Arrow and numpy: as pyarrow gives them, and without pandas."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tensorbank as tb
from support.handmade import make
from tensorbank.arrow_numpy import as_arrow, as_numpy, as_scalar, from_python, strings
from tensorbank_demo.landscape.archive import write_archives
from tensorbank_indexer import IngestOptions, ingest, open_source

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


@given(
    st.lists(st.none() | st.integers(-9, 9))
    | st.lists(st.none() | st.floats(-9, 9))
    | st.lists(st.none() | st.text())
)
def test_values_of_python_are_what_pyarrow_infers(values):
    assert from_python(values).equals(pa.array(values))


@pytest.mark.parametrize("values", [[True, None], [1, 2.5], [datetime(2020, 1, 1)], []])
def test_other_values_go_pyarrows_way(values):
    assert from_python(values).equals(pa.array(values))


@given(st.lists(st.none() | st.datetimes(timezones=st.timezones()), min_size=1))
def test_instants_are_of_utc(values):
    found = from_python(values)
    assert [None if v is None else v.astimezone(UTC) for v in values] == found.to_pylist()


@given(st.lists(st.booleans() | st.none()), st.lists(st.text() | st.none()))
def test_nulls_are_kept(bools, texts):
    null = np.array([b is None for b in bools], np.bool_)
    assert as_arrow(np.array([bool(b) for b in bools], np.bool_), null).to_pylist() == bools
    null = np.array([t is None for t in texts], np.bool_)
    assert strings([t or "" for t in texts], null).to_pylist() == texts


@pytest.mark.parametrize(
    ("value", "kind"),
    [(3, pa.int64()), (2.5, pa.float32()), (True, pa.bool_()), ("é", pa.string()), ("", pa.string())],
)
def test_a_scalar_is_pyarrows(value, kind):
    assert as_scalar(value, kind).equals(pa.scalar(value, kind))


def test_a_scalar_of_time_counts_its_units():
    moment = datetime(2020, 2, 29, 12, tzinfo=UTC)
    kind = pa.timestamp("us", "UTC")
    assert as_scalar(round(moment.timestamp() * 1e6), kind).equals(pa.scalar(moment, kind))


def test_a_plan_imports_nothing_that_it_does_not_use(tmp_path):
    archive = write_archives(tmp_path / "archive", n_samples=8, samples_per_tar=8, seed=1).root
    bank = tb.create(tmp_path / "bank")
    ingest(open_source(str(archive)), bank, "terramesh", IngestOptions(n_workers=1))
    sql = "SELECT sample_id, S2L2A FROM terramesh WHERE cloud_cover >= 0 AND S2L2A.B08.mean > 1"
    code = (
        "import sys, tensorbank as tb\n"
        f"assert len(tb.open({str(tmp_path / 'bank')!r}).sql({sql!r}).plan())\n"
        "print([name for name in ('pandas', 'shapely', 'numcodecs', 'xarray') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_first_batch_imports_no_pandas(tmp_path):
    assert importlib.util.find_spec("pandas"), "where it is missing, this shows nothing"
    make(tmp_path, 5).plan.save(tmp_path / "plan.arrow")
    code = (
        "import sys, tensorbank as tb\n"
        f"with tb.Plan.load({str(tmp_path / 'plan.arrow')!r}).dataloader(batch_size=2) as loader: next(iter(loader))\n"
        "assert 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
