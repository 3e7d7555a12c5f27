"""Addresses of handles by numbers that were worked out by hand."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from support.handmade_index import NDVI, S2
from tensorbank import IntegrityError, InvalidInputError, TableSchema
from tensorbank.addressing.handle_columns import HandleColumn, address_columns, resolve
from tensorbank.index_schema import TILE_REF_TYPE
from tensorbank.layout import shard_key
from tensorbank.plans import Handle

KEY = shard_key("a", "p", "S2L2A", 0)
POWERS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
"""The lengths of ten blocks, two dates of five bands, whose sums tell which blocks they are of."""


def column(*refs: dict | None) -> HandleColumn:
    whole = {"key": KEY, "row": None, "time_index": None, "y0": None, "y1": None, "x0": None, "x1": None}
    rows = [None if ref is None else {**whole, "length": sum(ref["block_bytes"]), **ref} for ref in refs]
    return HandleColumn.of_refs("S2L2A", pa.array(rows, TILE_REF_TYPE))


RUNS = {
    "one band": ((0,), [(100, 1), (131, 32)]),
    "the last band": ((4,), [(115, 16), (611, 512)]),
    "neighbours": ((1, 2), [(101, 2 + 4), (163, 64 + 128)]),
    "the ends of two dates meet": ((0, 4), [(100, 1), (115, 16 + 32), (611, 512)]),
    "all": ((0, 1, 2, 3, 4), [(100, 1023)]),
}


@pytest.mark.parametrize(("bands", "right"), RUNS.values(), ids=RUNS)
def test_the_runs_of_some_bands(bands, right):
    found = address_columns(column({"offset": 100, "block_bytes": POWERS}, None), Handle("h", S2, bands))
    first = list(zip(found["h.starts"].to_pylist()[0], found["h.lengths"].to_pylist()[0], strict=True))
    assert first == right
    assert found["h.key"].to_pylist() == [KEY, None]
    assert found["h.lengths"].to_pylist()[1] == [0] * len(right)
    assert "h.n_times" not in found


def test_a_date_that_a_sample_lacks_takes_no_bytes():
    refs = (
        {"offset": 100, "block_bytes": POWERS},
        {"offset": 7, "block_bytes": [*POWERS[:5], 0, 0, 0, 0, 0]},
    )
    found = address_columns(column(*refs), Handle("h", S2, (1, 2)))
    assert found["h.n_times"].to_pylist() == [2, 1]
    assert found["h.starts"].to_pylist()[1] == [8, 38]
    assert found["h.lengths"].to_pylist()[1] == [6, 0]


def test_a_date_alone():
    ref = {"offset": 100, "block_bytes": POWERS}
    found = address_columns(column(ref), Handle("h", S2, (0, 1, 2, 3, 4), by_date=True))
    assert found["h.starts"].to_pylist() == [[100, 131]]
    assert found["h.lengths"].to_pylist() == [[31, 992]]


def test_a_tile_is_of_one_date():
    tile = {"offset": 100, "block_bytes": POWERS, "time_index": 1, "y0": 4, "y1": 8, "x0": 0, "x1": 4}
    table, handle = resolve(column(tile), {"a": TableSchema((S2,))})
    assert (table, handle.window) == ("a", (4, 4))
    found = address_columns(column(tile), handle)
    assert (found["S2L2A.starts"].to_pylist(), found["S2L2A.lengths"].to_pylist()) == ([[131]], [[992]])
    assert found["S2L2A.corner"].to_pylist() == [[4, 0]]


def test_bytes_that_cannot_be_are_refused():
    wrong = {"offset": 100, "block_bytes": [1, -5, *POWERS[2:]], "length": 10}
    with pytest.raises(IntegrityError, match="which cannot be"):
        address_columns(column(wrong), Handle("h", S2, (1,)))
    short = {"offset": 100, "block_bytes": POWERS[:3]}
    with pytest.raises(IntegrityError, match="another number of blocks"):
        address_columns(column(short), Handle("h", S2, (1,)))
    with pytest.raises(IntegrityError, match="which is not the key of a shard"):
        column({"key": "../elsewhere", "offset": 0, "block_bytes": POWERS})


def test_tiles_of_two_sizes_do_not_fit_one_batch():
    def tile(size: int) -> dict:
        return {"offset": 0, "block_bytes": POWERS, "time_index": 0, "y0": 0, "y1": size, "x0": 0, "x1": size}

    with pytest.raises(InvalidInputError, match="windows of 4 x 4 and 8 x 8 pixels"):
        resolve(column(tile(4), tile(8)), {"a": TableSchema((S2, NDVI))})


def test_numbers_of_a_missing_modality_are_zero():
    assert column(None, {"offset": 5, "block_bytes": POWERS}).numbers("offset").tolist() == [0, 5]
    assert column(None).numbers("offset").dtype == np.int64
