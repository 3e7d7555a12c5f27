"""Statistics of a band, against numbers that are worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tensorbank.statistics import BandStats, bin_edges, merge_all

ONE_TO_THREE = BandStats(count=4, valid=3, min=1.0, max=3.0, mean=2.0, m2=2.0)
"""The pixels 1, 2, 3 and one that is NaN."""
TEN = BandStats(count=1, valid=1, min=10.0, max=10.0, mean=10.0, m2=0.0)


def test_two_sets_of_pixels_together():
    both = ONE_TO_THREE.merge(TEN)  # 1, 2, 3, 10: mean 4, squared differences 9 + 4 + 1 + 36
    assert (both.count, both.valid, both.min, both.max) == (5, 4, 1.0, 10.0)
    assert both.mean == pytest.approx(4.0)
    assert both.m2 == pytest.approx(50.0)
    assert both.std == pytest.approx(math.sqrt(12.5))


def test_nothing_added_changes_nothing():
    for both in (ONE_TO_THREE.merge(BandStats()), BandStats().merge(ONE_TO_THREE), merge_all([ONE_TO_THREE])):
        assert (both.count, both.valid, both.min, both.max, both.mean, both.m2) == (4, 3, 1.0, 3.0, 2.0, 2.0)


def test_no_pixels_have_no_deviation():
    none = merge_all([])
    assert (none.count, none.valid, none.min, none.max) == (0, 0, math.inf, -math.inf)
    assert math.isnan(none.std)


def test_bins_are_steps_of_an_octave_on_both_sides_of_zero():
    edges = bin_edges()
    assert edges.shape == (2048,)
    assert edges.tolist() == sorted(edges.tolist())
    assert edges[0] == -np.inf
    assert edges[1024] == 0.0
    octave = edges[(edges >= 1.0) & (edges < 2.0)]
    assert octave.tolist() == [1 + step / 32 for step in range(32)]
    assert -1.5 in edges
