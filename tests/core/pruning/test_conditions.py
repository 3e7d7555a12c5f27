"""Bounds of blocks: a block is ruled out only if what is known of it is sound and leaves no row."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.differential.rows import SCHEMA
from tensorbank import Band, Modality, TableSchema
from tensorbank.pruning.conditions import MAX_COMPARED, AnyOf, Compare, may_match
from tensorbank.pruning.known_bounds import shard_columns

OPERATORS = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}


def kept(op: str, value: float | str, low: list, high: list, kind: pa.DataType) -> list[bool]:
    bounds = pa.array(low, kind), pa.array(high, kind)
    return may_match(Compare(("x",), op, value), lambda _: bounds, len(low)).tolist()


@pytest.mark.parametrize("kind", [pa.float64(), pa.float32()])
@pytest.mark.parametrize(
    ("low", "high"),
    [
        (math.nan, math.nan),
        (math.nan, 1.0),
        (0.0, math.nan),
        (None, 1.0),
        (0.0, None),
        (math.inf, -math.inf),  # what a merge of nothing begins with
        (math.inf, math.inf),
        (-math.inf, -math.inf),
        (2.0, 1.0),
    ],
)
def test_bounds_that_are_none_rule_nothing_out(low, high, kind):
    for op in OPERATORS:
        assert kept(op, 0.5, [low, 5.0], [high, 6.0], kind)[0], op


def test_half_infinite_bounds_still_bound_on_the_other_side():
    assert kept(">", 3, [-math.inf, -math.inf], [2.0, 4.0], pa.float64()) == [False, True]
    assert kept("<", 3, [2.0, 4.0], [math.inf, math.inf], pa.float64()) == [True, False]


@given(
    op=st.sampled_from(sorted(OPERATORS)),
    value=st.one_of(
        st.floats(-1e6, 1e6), st.integers(-5, 5), st.sampled_from([0.1, 0.3, 1 / 3, 2.0**24 + 1])
    ),
    block=st.lists(
        st.one_of(st.floats(-1e6, 1e6, width=32), st.sampled_from([0.1, 0.3])), min_size=1, max_size=4
    ),
)
def test_a_float32_block_with_a_match_is_kept_whichever_way_the_constant_is_rounded(op, value, block):
    values = np.array(block, np.float32)
    meant = {float(value), float(np.float32(value))}
    found = kept(op, value, [float(values.min())], [float(values.max())], pa.float32())
    assert found == [True] or not any(OPERATORS[op](float(v), c) for v in values for c in meant)


@given(
    op=st.sampled_from(sorted(OPERATORS)),
    first=st.integers(2**53 - 4, 2**53 + 8),
    near=st.integers(-3, 3),
    decimal=st.booleans(),
)
def test_integers_beyond_the_floats_are_compared_as_they_are_or_as_floats(op, first, near, decimal):
    value = first + near
    given_ = float(value) if decimal else value  # a decimal arrives rounded
    found = kept(op, given_, [first], [first + 1], pa.int64())
    exact = any(OPERATORS[op](x, value) for x in (first, first + 1))
    as_floats = decimal and any(OPERATORS[op](float(x), float(value)) for x in (first, first + 1))
    assert found == [True] or not (exact or as_floats)


def test_constants_beyond_all_integers_of_a_column_rule_nothing_out():
    assert kept("<", 2**62, [0], [5], pa.int64()) == [True]
    assert kept(">", 1e300, [0], [5], pa.int64()) == [True]


NEAR = 2**53
CONSTANTS = {
    pa.int64(): st.one_of(
        st.integers(-9, 9),
        st.integers(NEAR - 4, NEAR + 9),
        st.integers(NEAR - 4, NEAR + 9).map(float),  # as wide as its neighbours are far
        st.floats(-9, 9),
    ),
    pa.float32(): st.one_of(st.floats(-9, 9), st.integers(-9, 9), st.sampled_from([0.1, 1 / 3])),
    pa.float64(): st.one_of(st.floats(-9, 9), st.integers(NEAR - 4, NEAR + 9)),
    pa.string(): st.text("abc", max_size=2),
    pa.timestamp("us", "UTC"): st.sampled_from(
        ["2020-01-01", "2020-01-01 00:00:00.0005", "2020-06-30 12:00:00", "2021-01-01T00:00:00Z"]
    ),
}


@pytest.mark.parametrize("kind", CONSTANTS, ids=str)
@given(data=st.data())
def test_a_long_list_keeps_the_blocks_that_its_constants_keep_one_by_one(kind, data):
    values = data.draw(st.lists(CONSTANTS[kind], min_size=MAX_COMPARED + 1, max_size=30))
    ends = {
        pa.int64(): st.one_of(st.integers(-10, 10), st.integers(NEAR - 5, NEAR + 10)),
        pa.string(): st.text("abcd", max_size=2),
        pa.timestamp("us", "UTC"): st.integers(1_577_836_799_999_000, 1_577_836_800_002_000),
    }.get(kind, st.floats(-10, 10, width=32))
    blocks = data.draw(st.lists(st.tuples(ends, ends).map(sorted), min_size=1, max_size=8))
    low, high = (pa.array(side, kind) for side in zip(*blocks, strict=True))
    each = [Compare(("x",), "=", value) for value in values]
    alone = np.logical_or.reduce([may_match(one, lambda _: (low, high), len(low)) for one in each])
    assert may_match(AnyOf(tuple(each)), lambda _: (low, high), len(low)).tolist() == alone.tolist()


def test_strict_comparisons_leave_out_a_block_that_only_touches():
    assert kept("<", 3, [3, 2], [9, 9], pa.int64()) == [False, True]
    assert kept(">", 3, [0, 0], [3, 4], pa.int64()) == [False, True]
    assert kept("<", "b", ["b", "a"], ["c", "c"], pa.string()) == [False, True]


def test_centres_are_bounded_by_centres_and_boxes_by_boxes():
    assert shard_columns(("lon",), SCHEMA, "samples") == ("min_lon", "max_lon")
    assert shard_columns(("lat",), SCHEMA, "tiles") == ("min_lat", "max_lat")
    for side, columns in {"west": ("west", "east"), "north": ("south", "north")}.items():
        assert shard_columns(("bbox", side), SCHEMA, "samples") == tuple(f"bbox.{c}" for c in columns)


def test_names_that_differ_by_their_capitals_only_have_no_bounds():
    schema = TableSchema((Modality("X", "int16", (Band("\u00e9"), Band("\u00c9"), Band("b")), 1, 8, 8),))
    assert shard_columns(("x", "\u00e9", "min"), schema, "samples") is None
    assert shard_columns(("x", "b", "min"), schema, "samples") is not None
