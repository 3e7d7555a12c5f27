"""Coalescing: what any set of ranges and any limits must give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorbank import ByteRange, InvalidInputError
from tensorbank.ranges import coalesce


@st.composite
def ranges(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    steps = draw(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 40)), min_size=1, max_size=40))
    starts, ends, at = [], [], 0
    for gap, length in steps:
        starts.append(at + gap)
        at += gap + length
        ends.append(at)
    return np.array(starts, np.int64), np.array(ends, np.int64)


@given(ranges(), st.integers(0, 60), st.floats(1.0, 3.0), st.integers(1, 400))
def test_reads_cover_every_range_once_and_keep_the_limits(given_ranges, gap, amplification, most):
    starts, ends = given_ranges
    first, last, owner = coalesce(
        starts, ends, max_gap_bytes=gap, max_amplification=amplification, max_read_bytes=most
    )
    assert (first[1:] >= last[:-1]).all(), "reads overlap"
    assert sorted(set(owner.tolist())) == list(range(len(first))), "a read without a range"
    assert (first[owner] <= starts).all()
    assert (ends <= last[owner]).all()
    for read in range(len(first)):
        mine = owner == read
        asked = int((ends[mine] - starts[mine]).sum())
        size = int(last[read] - first[read])
        assert first[read] == starts[mine][0]
        assert last[read] == ends[mine][-1]
        assert mine.sum() == 1 or size <= most
        holes = starts[mine][1:] - ends[mine][:-1]
        assert (holes <= gap).all()
        assert size <= asked * amplification + 1e-6 or not holes.any()


def test_touching_ranges_become_one_read_without_a_gap_allowed():
    starts, ends = np.array([0, 10, 30]), np.array([10, 20, 40])
    first, last, owner = coalesce(starts, ends, max_gap_bytes=0, max_amplification=1.0, max_read_bytes=1000)
    assert (first.tolist(), last.tolist(), owner.tolist()) == ([0, 30], [20, 40], [0, 0, 1])


def test_the_first_bad_pair_is_named():
    with pytest.raises(InvalidInputError, match="at 1"):
        coalesce(
            np.array([0, 10, 15]),
            np.array([5, 20, 30]),
            max_gap_bytes=0,
            max_amplification=1.0,
            max_read_bytes=1000,
        )


def test_a_byte_range_knows_its_size_and_refuses_nonsense():
    assert ByteRange("k", 3, 10).n_bytes == 7
    with pytest.raises(InvalidInputError):
        ByteRange("k", 10, 3)
