"""Summaries of selections, against numbers that are worked out by hand."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from tensorbank import Band, Modality, NotFoundError
from tensorbank.statistics import BandSummary, Statistics, of_samples
from tensorbank.statistics.summaries import bracket_quantiles, histogram_quantiles, merge_moments

NDVI = Modality("NDVI", "float32", (Band("NDVI"),), 1, 2, 2)
LULC = Modality("LULC", "uint8", (Band("LULC"),), 1, 2, 2, classes=((0, "water"), (1, "trees")))

ONE_TO_FOUR = {
    "count": 4,
    "valid": 4,
    "min": 1.0,
    "max": 4.0,
    "mean": 2.5,
    "std": 1.25**0.5,
    "p02": 1.0,
    "p25": 1.0,
    "p50": 2.0,
    "p75": 3.0,
    "p98": 3.0,
}
"""A row of a sample with the pixels 1, 2, 3, 4; quantiles are lower order statistics."""
ALL_NINE = {**dict.fromkeys(ONE_TO_FOUR, 9.0), "count": 4, "valid": 2, "std": 0.0}
"""A row of a sample with two pixels of 9, and two that are NaN."""
NO_PIXEL = {**dict.fromkeys(ONE_TO_FOUR, None), "count": 4, "valid": 0}


def test_samples_of_one_band():
    found = of_samples(NDVI, pa.Table.from_pylist([ONE_TO_FOUR, ALL_NINE, NO_PIXEL]))
    assert (found.modality, found.n_samples, len(found.bands)) == ("NDVI", 3, 1)
    band = found["ndvi"]  # 1, 2, 3, 4, 9, 9: mean 28 / 6
    assert (band.count, band.valid, band.min, band.max) == (12, 6, 1.0, 9.0)
    assert band.mean == pytest.approx(28 / 6)
    assert band.std == pytest.approx(np.std([1, 2, 3, 4, 9, 9]))
    assert band.quantiles is not None
    for name, p in (("p02", 0.02), ("p25", 0.25), ("p50", 0.5), ("p75", 0.75), ("p98", 0.98)):
        true = np.quantile([1, 2, 3, 4, 9, 9], p, method="lower")
        assert band.quantiles[name].low <= true <= band.quantiles[name].high, name


def test_a_statistic_that_one_sample_does_not_know_is_none():
    unknown = {**ONE_TO_FOUR, "mean": None, "std": None, "p50": None}
    band = of_samples(NDVI, pa.Table.from_pylist([ONE_TO_FOUR, unknown]))["NDVI"]
    assert (band.min, band.max, band.valid) == (1.0, 4.0, 8)
    assert (band.mean, band.std, band.quantiles) == (None, None, None)


def test_nothing_valid_leaves_the_counts():
    assert of_samples(NDVI, pa.Table.from_pylist([NO_PIXEL])).bands == (BandSummary("NDVI", 4, 0),)
    empty = pa.Table.from_pylist([ONE_TO_FOUR]).slice(0, 0)
    assert of_samples(NDVI, empty).bands == (BandSummary("NDVI", 0, 0),)


def test_shares_of_classes_are_weighted_by_pixels():
    rows = [
        {"count": 4, "share": {"water": 1.0, "trees": 0.0}},
        {"count": 12, "share": {"water": 0.5, "trees": 0.5}},
    ]
    found = of_samples(LULC, pa.Table.from_pylist(rows))
    assert found.shares == {"water": 0.625, "trees": 0.375}
    assert "62.50%" in str(found)


def test_an_unknown_band_is_named_with_the_nearest():
    with pytest.raises(NotFoundError, match="B08") as caught:
        Statistics("S2L2A", 1, (BandSummary("B08", 1, 1),))["B8"]
    assert caught.value.kind == "unknown-band"


def test_moments_of_two_samples():
    mean, std = merge_moments(np.array([3, 1]), np.array([2.0, 10.0]), np.array([(2 / 3) ** 0.5, 0.0]))
    assert mean == pytest.approx(4.0)
    assert std == pytest.approx(12.5**0.5)


def test_moments_of_huge_numbers_do_not_overflow():
    mean, std = merge_moments(np.array([1, 1]), np.array([1e308, 1e308]), np.array([0.0, 0.0]))
    assert mean == pytest.approx(1e308)
    assert std == 0.0


def test_the_quantiles_of_one_sample_are_those_that_are_stored():
    knots = np.array([[1.0, 1.0, 1.0, 2.0, 3.0, 3.0, 4.0]])
    found = bracket_quantiles(knots, np.array([4]))
    assert set(found) == {"p02", "p25", "p50", "p75", "p98"}
    assert found["p02"].low == found["p02"].high == 1.0
    assert found["p50"].low <= 2.0 <= found["p50"].high


def test_a_histogram_brackets_by_its_bin_and_the_bounds():
    counts = np.zeros(2048, np.int64)
    counts[1024 + 15 * 32] = 10  # the bin of [1, 1 + 1/32): exponent 15 of float16
    found = histogram_quantiles(counts, 1.0, 1.02)
    assert [(q.low, q.high) for q in found.values()] == [(1.0, 1.02)] * 5
    assert found["p50"].estimate == pytest.approx(1.01)
