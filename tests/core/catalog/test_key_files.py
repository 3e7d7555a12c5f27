"""Files of keys: those that are written here are read page by page, and all others as well, each as pyarrow reads it."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorbank.catalog.key_files import KEYS_SCHEMA, KeyPages, read_column, read_keys
from tensorbank.catalog.membership import KeysInMemory, Membership
from tensorbank.errors import IntegrityError
from tensorbank.index_files import ROW_GROUP_ROWS, index_file_name, parquet_bytes

N = 2 * ROW_GROUP_ROWS + 1001
OTHERS = {
    "a dictionary": {"use_dictionary": True},
    "compressed": {"use_dictionary": False, "compression": "zstd"},
    "several pages": {"use_dictionary": False, "compression": "none", "data_page_size": 4096},
    "pages of few rows": {"use_dictionary": False, "compression": "none", "max_rows_per_page": 100},
    "pages of version 2": {"use_dictionary": False, "compression": "none", "data_page_version": "2.0"},
    "differences": {
        "use_dictionary": False,
        "compression": "none",
        "column_encoding": {"key": "DELTA_BINARY_PACKED", "stem_key": "PLAIN"},
    },
    "no statistics": {"use_dictionary": False, "compression": "none", "write_statistics": False},
    "checksums of pages": {"use_dictionary": False, "compression": "none", "write_page_checksum": True},
}


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(5)
    limits = np.iinfo(np.int64)
    keys, stems = rng.integers(limits.min, limits.max, (2, N), endpoint=True)
    return pa.table([np.sort(keys), stems], schema=KEYS_SCHEMA)


def written(folder, data):
    path = folder / index_file_name(data)
    path.write_bytes(data)
    return path


def counted(path, asked):
    """Return how often keys are there, page by page, and whether the file has such pages."""
    pages = KeyPages.find(path)
    return None if pages is None else pages.counts(asked)


def some_of(rows):
    """Return ascending keys, of which every other is there once, and one twice."""
    there = np.append(rows["key"].to_numpy()[::1009], rows["key"].to_numpy()[[0, -1]])
    return np.sort(np.concatenate([there, there[:-2] + 1]))


def occurrences(rows, asked):
    every, n = np.unique(rows["key"].to_numpy(), return_counts=True)
    known = dict(zip(every.tolist(), n.tolist(), strict=True))
    return [known.get(key, 0) for key in asked.tolist()]


def test_what_is_written_here_is_read_page_by_page(rows, tmp_path):
    path = written(tmp_path, parquet_bytes(rows))
    keys, stems = (column.to_numpy() for column in rows.columns)
    asked = some_of(rows)
    assert counted(path, asked).tolist() == occurrences(rows, asked)
    assert sum(occurrences(rows, asked)) > 200
    np.testing.assert_array_equal(read_column(path, 0), keys)
    np.testing.assert_array_equal(read_column(path, 1), np.sort(stems))
    np.testing.assert_array_equal(read_keys(path), np.stack([keys, stems], axis=1))


def test_a_key_that_lies_in_two_pages_is_counted_in_both(tmp_path):
    keys = np.sort(np.append(np.arange(ROW_GROUP_ROWS + 10), [ROW_GROUP_ROWS - 1] * 7))
    path = written(tmp_path, parquet_bytes(pa.table([keys, keys], schema=KEYS_SCHEMA)))
    asked = np.arange(ROW_GROUP_ROWS - 3, ROW_GROUP_ROWS + 3)
    assert counted(path, asked).tolist() == [1, 1, 8, 1, 1, 1]


def test_keys_that_do_not_ascend_are_found_all_the_same(tmp_path):
    keys = np.random.default_rng(3).permutation(3 * ROW_GROUP_ROWS)
    path = written(tmp_path, parquet_bytes(pa.table([keys, keys], schema=KEYS_SCHEMA)))
    assert counted(path, np.array([-1, 0, 77, len(keys) - 1, len(keys)])).tolist() == [0, 1, 1, 1, 0]


def test_only_pages_that_may_have_a_key_are_read(rows, tmp_path):
    path = written(tmp_path, parquet_bytes(rows))
    pages = KeyPages.find(path)
    data = bytearray(path.read_bytes())
    start = int(pages.starts[1])
    data[start : start + 8 * int(pages.n_rows[1])] = bytes(8 * int(pages.n_rows[1]))
    path.write_bytes(data)
    asked = rows["key"].to_numpy()[[5, -5]]
    assert pages.counts(asked).tolist() == [1, 1]


def test_a_file_that_became_shorter_is_told(rows, tmp_path):
    path = written(tmp_path, parquet_bytes(rows))
    pages = KeyPages.find(path)
    path.write_bytes(path.read_bytes()[: int(pages.starts[2]) + 80])
    with pytest.raises(IntegrityError, match="shorter"):
        pages.counts(rows["key"].to_numpy()[-3:])


@pytest.mark.parametrize("settings", OTHERS.values(), ids=OTHERS)
def test_what_others_wrote_is_read_as_it_is(settings, rows, tmp_path):
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, row_group_size=50_000, **settings)
    path = written(tmp_path, sink.getvalue().to_pybytes())
    asked = some_of(rows)
    found = counted(path, asked)
    assert found is None or found.tolist() == occurrences(rows, asked)
    for which in (0, 1):
        np.testing.assert_array_equal(read_column(path, which), np.sort(rows.column(which).to_numpy()))


@pytest.mark.parametrize("settings", [OTHERS["several pages"], OTHERS["pages of few rows"]])
def test_several_pages_are_not_taken_for_one(settings, rows, tmp_path):
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, **settings)
    assert KeyPages.find(written(tmp_path, sink.getvalue().to_pybytes())) is None


def test_a_footer_is_not_asked_for_pages_unless_a_checksum_vouches_for_it(rows, tmp_path):
    path = tmp_path / "part-0.parquet"
    path.write_bytes(parquet_bytes(rows))
    assert KeyPages.find(path) is None


def test_columns_of_another_order_are_found_by_their_names(rows, tmp_path):
    path = written(tmp_path, parquet_bytes(rows.select(["stem_key", "key"])))
    assert KeyPages.find(path) is None
    np.testing.assert_array_equal(read_column(path, 0), rows["key"].to_numpy())


def test_a_file_without_rows(tmp_path):
    path = written(tmp_path, parquet_bytes(KEYS_SCHEMA.empty_table()))
    assert [len(read_column(path, which)) for which in (0, 1)] == [0, 0]
    found = counted(path, np.arange(3))
    assert found is None or found.tolist() == [0, 0, 0]


numbers = st.lists(st.integers(-6, 6), max_size=12)


@given(held=st.lists(numbers, max_size=3), deleted=st.lists(numbers, max_size=2), asked=numbers)
def test_a_sample_is_there_as_often_as_it_came_less_as_often_as_it_went(held, deleted, asked):
    def files(lists):
        return [
            KeysInMemory(np.array([[key, -key] for key in keys], np.int64).reshape(-1, 2)) for keys in lists
        ]

    members = Membership(files(held), files(deleted))
    came, went = ([*itertools.chain(*lists)] for lists in (held, deleted))
    keys = np.array(asked, np.int64)
    expected = [came.count(key) > went.count(key) for key in asked]
    assert members.has_samples(keys).tolist() == expected
    assert members.has_stems(-keys).tolist() == expected
