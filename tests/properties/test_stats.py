"""Statistics against numpy on the same pixels, and their algebra."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tensorbank import BandStats
from tensorbank.statistics.band_stats import QUANTILES, bin_edges, merge_all
from tensorbank.statistics.classes import measure_categories
from tensorbank.statistics.pixels import measure_pixels
from tensorbank_indexer.measures import tile_edges

INTEGERS = [np.int16, np.uint8, np.uint16, np.int32]
FLOATS = [np.float16, np.float32, np.float64]


@st.composite
def pixels(draw: st.DrawFn, dtypes=(*INTEGERS, *FLOATS)) -> np.ndarray:
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    shape = (
        draw(st.integers(1, 2)),
        draw(st.integers(1, 3)),
        draw(st.integers(4, 11)),
        draw(st.integers(4, 11)),
    )
    if dtype.kind == "f":
        elements = st.one_of(
            st.floats(-3000, 3000, width=16),
            st.sampled_from([math.nan, math.inf, -math.inf]),
            st.sampled_from([0.0, 1e-4, 2000.0]),
        )
    else:
        info = np.iinfo(dtype)
        elements = st.integers(max(info.min, -(2**20)), min(info.max, 2**20))
    return draw(hnp.arrays(dtype, shape, elements=elements))


@given(pixels(), st.integers(1, 4))
def test_a_measure_is_what_numpy_says(values, n_tiles):
    found = measure_pixels(values, n_tiles)
    wide = values.astype(np.float64)
    ys, xs = tile_edges(values.shape[2], n_tiles), tile_edges(values.shape[3], n_tiles)
    for b in range(values.shape[1]):
        band = wide[:, b]
        valid = np.sort(band[np.isfinite(band)])
        assert found.count == band.size
        assert found.valid[b] == valid.size
        assert found.infinite[b] == np.isinf(band).sum()
        assert found.histogram[b].sum() == valid.size
        if not valid.size:
            assert np.isnan([found.low[b], found.high[b], found.mean[b], found.m2[b]]).all()
            continue
        assert (found.low[b], found.high[b]) == (valid[0], valid[-1])
        assert found.mean[b] == pytest.approx(valid.mean(), rel=1e-12, abs=1e-9)
        assert found.m2[b] == pytest.approx(valid.var() * valid.size, rel=1e-9, abs=1e-6)
        for (_, p), q in zip(QUANTILES, found.quantiles[b], strict=True):
            assert q == np.quantile(valid, p, method="lower")
        counts = np.bincount(
            np.searchsorted(bin_edges(), valid, side="right") - 1, minlength=len(bin_edges())
        )
        assert (counts == found.histogram[b]).all()
    for t in range(values.shape[0]):
        for b in range(values.shape[1]):
            for i in range(n_tiles):
                for j in range(n_tiles):
                    tile = wide[t, b, ys[i] : ys[i + 1], xs[j] : xs[j + 1]]
                    valid = tile[np.isfinite(tile)]
                    assert found.tile_valid[t, b, i, j] == valid.size
                    if valid.size:
                        assert found.tile_low[t, b, i, j] == valid.min()
                        assert found.tile_high[t, b, i, j] == valid.max()
                        assert found.tile_mean[t, b, i, j] == pytest.approx(valid.mean(), rel=1e-12, abs=1e-9)
                        size = 1e-7 * (1 + np.abs(wide[np.isfinite(wide)]).max())
                        assert found.tile_std[t, b, i, j] == pytest.approx(valid.std(), rel=1e-6, abs=size)


@given(hnp.arrays(np.uint8, (2, 1, 9, 7), elements=st.integers(0, 12)), st.integers(1, 4))
def test_classes_are_counted_per_tile_and_unknown_codes_nowhere(values, n_tiles):
    codes = [0, 1, 2, 4, 9]
    found = measure_categories(values, codes, n_tiles)
    assert found.classes.tolist() == [int((values == c).sum()) for c in codes]
    assert found.tile_count.sum() == values.size
    ys, xs = tile_edges(9, n_tiles), tile_edges(7, n_tiles)
    tile = values[1, 0, ys[-2] : ys[-1], xs[0] : xs[1]]
    assert found.tile_classes[1, -1, 0].tolist() == [int((tile == c).sum()) for c in codes]


def stats_of(values: np.ndarray) -> BandStats:
    """Compute statistics by brute force, independent of the indexer."""
    valid = values[np.isfinite(values)]
    if not valid.size:
        return BandStats(count=values.size)
    bins = np.searchsorted(bin_edges(), valid, side="right") - 1
    return BandStats(
        count=values.size,
        valid=valid.size,
        min=float(valid.min()),
        max=float(valid.max()),
        mean=float(valid.mean()),
        m2=float(((valid - valid.mean()) ** 2).sum()),
        histogram=np.bincount(bins, minlength=len(bin_edges())),
    )


floats = hnp.arrays(
    np.float64,
    st.integers(0, 30),
    elements=st.one_of(st.floats(-1e4, 1e4, width=32), st.sampled_from([math.nan, math.inf, -math.inf])),
)


@given(st.lists(floats, max_size=6), st.randoms(use_true_random=False))
def test_merging_in_any_order_equals_the_whole(parts, random):
    whole = stats_of(np.concatenate([np.zeros(0), *parts]))
    random.shuffle(parts)
    merged = merge_all(stats_of(p) for p in parts)
    assert (merged.count, merged.valid, merged.min, merged.max) == (
        whole.count,
        whole.valid,
        whole.min,
        whole.max,
    )
    assert (merged.histogram == whole.histogram).all()
    assert merged.mean == pytest.approx(whole.mean, rel=1e-12, abs=1e-9)
    assert merged.m2 == pytest.approx(whole.m2, rel=1e-9, abs=1e-6)


def test_edges_ascend_and_hold_every_float16():
    edges = bin_edges()
    assert edges[0] == -np.inf
    assert (edges[1:] >= edges[:-1]).all()
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float64)
    every = every[np.isfinite(every)]
    index = np.searchsorted(edges, every, side="right") - 1
    upper = np.append(edges[1:], np.inf)[index]
    assert (edges[index] <= every).all()
    assert (every < upper).all()


def test_a_large_offset_does_not_cancel():
    values = (np.random.default_rng(0).normal(0, 1e-3, (1, 1, 64, 64)) + 1e6).astype(np.float64)
    assert measure_pixels(values, 4).m2[0] == pytest.approx(values.var() * values.size, rel=1e-6)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("planted", [math.nan, math.inf, -math.inf])
def test_one_pixel_without_a_value_changes_nothing_but_counts(dtype, planted):
    values = np.random.default_rng(1).normal(-12, 4, (1, 2, 32, 32)).astype(dtype)
    values[0, 0, 5, 5] = planted
    found = measure_pixels(values, 4)
    rest = np.delete(values[0, 0].astype(np.float64).reshape(-1), 5 * 32 + 5)
    assert (found.count, found.valid.tolist()) == (1024, [1023, 1024])
    assert found.infinite.tolist() == [int(math.isinf(planted)), 0]
    assert (found.low[0], found.high[0]) == (rest.min(), rest.max())
    assert found.mean[0] == pytest.approx(rest.mean(), rel=1e-12)
    assert found.m2[0] == pytest.approx(rest.var() * rest.size, rel=1e-9)
    assert np.isfinite([found.tile_mean, found.tile_std, found.tile_low, found.tile_high]).all()


EXTREMES = {
    "float16 near its largest": np.linspace(60000, 65504, 32 * 32).astype(np.float16),
    "float32 near its largest": np.linspace(3e38, 3.4e38, 32 * 32).astype(np.float32),
    "float64 near its largest": np.linspace(-1, 1, 32 * 32) * 1.7e308,
    "float64 whose squares overflow": np.linspace(1e160, 2e160, 32 * 32),
    "subnormals": np.linspace(5e-324, 4e-320, 32 * 32),
    "float32 subnormals": np.linspace(1e-45, 1e-40, 32 * 32).astype(np.float32),
    "one constant": np.full(32 * 32, 0.1),
    "uint16 at its largest": np.full(32 * 32, 65535, np.uint16),
    "int64 beyond the integers of float64": np.arange(2**53, 2**53 + 32 * 32, dtype=np.int64),
    "uint64 at its largest": np.full(32 * 32, 2**64 - 1, np.uint64),
    "one value and infinities": np.where(np.arange(32 * 32) == 7, 5.0, np.inf).astype(np.float32),
    "nothing but NaN and infinities": np.where(np.arange(32 * 32) % 2, np.nan, -np.inf),
}


@pytest.mark.parametrize("name", EXTREMES)
def test_statistics_of_extreme_values_are_right_or_unknown(name):
    """Against exact fractions: extremes bound, means lie between them, and what float64 cannot hold is infinite, never NaN."""
    values = EXTREMES[name]
    found = measure_pixels(values.reshape(1, 1, 32, 32), 4)
    sound = [Fraction(v.item()) for v in values if np.isfinite(v)]
    assert found.valid[0] == len(sound) == found.tile_valid.sum()
    assert found.histogram.sum() == len(sound)
    if not sound:
        assert np.isnan([found.low[0], found.high[0], found.mean[0]]).all()
        return
    least, most = Fraction(float(found.low[0])), Fraction(float(found.high[0]))
    assert least <= min(sound)
    assert max(sound) <= most
    if values.dtype.kind == "f" or values.dtype.itemsize < 8:
        assert (least, most) == (min(sound), max(sound))
    mean = sum(sound) / len(sound)
    assert least <= Fraction(float(found.mean[0])) <= most
    assert float(found.mean[0]) == pytest.approx(
        float(mean), rel=1e-9, abs=float(max(map(abs, sound))) * 1e-9
    )
    m2 = sum((v - mean) ** 2 for v in sound)
    if m2 > Fraction(np.finfo(np.float64).max):
        assert found.m2[0] == math.inf
    else:
        largest = float(max(abs(v) for v in sound))
        assert found.m2[0] == pytest.approx(float(m2), rel=1e-6, abs=(largest * 1e-13) ** 2 * len(sound))


def test_sums_of_large_tiles_do_not_overflow():
    values = np.full((1, 1, 1024, 1024), 65535, np.uint16)
    values[0, 0, ::2] = 0
    found = measure_pixels(values, 1)
    assert found.mean[0] == 32767.5
    assert found.m2[0] == pytest.approx(32767.5**2 * values.size, rel=1e-12)
    assert found.tile_std[0, 0, 0, 0] == pytest.approx(32767.5, rel=1e-12)


def test_merging_huge_means_stays_finite():
    far = 1.7e308
    merged = BandStats(1, 1, far, far, far).merge(BandStats(1, 1, -far, -far, -far))
    assert merged.mean == 0.0


@pytest.mark.parametrize(
    "dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32"]
)
def test_classes_are_counted_by_their_values_whatever_the_dtype(dtype):
    values = np.random.default_rng(3).integers(0, 12, (1, 1, 16, 16)).astype(dtype)
    values[0, 0, 0, 0] = np.iinfo(dtype).max if dtype[0] != "f" else np.nan
    found = measure_categories(values, [0, 1, 2, 4, 9], 4)
    assert found.classes.tolist() == [int((values == c).sum()) for c in (0, 1, 2, 4, 9)]
    known = {0, 1, 2, 4, 9}
    left = {float(v) for v in values.reshape(-1) if v not in known and not (dtype[0] == "f" and np.isnan(v))}
    assert set(found.unknown_codes.tolist()) == left
    assert found.tile_count.sum() == values.size
