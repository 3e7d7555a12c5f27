"""Statistics against numpy on the same pixels, and their algebra."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tensorbank import BandStats
from tensorbank.stats import QUANTILES, bin_edges, merge_all
from tensorbank_indexer.measure import measure_categories, measure_pixels, tile_edges

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
            st.floats(-3000, 3000, width=16), st.just(math.nan), st.sampled_from([0.0, 1e-4, 2000.0])
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
        valid = np.sort(band[~np.isnan(band)])
        assert found.count == band.size
        assert found.valid[b] == valid.size
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
                    valid = tile[~np.isnan(tile)]
                    assert found.tile_valid[t, b, i, j] == valid.size
                    if valid.size:
                        assert found.tile_low[t, b, i, j] == valid.min()
                        assert found.tile_high[t, b, i, j] == valid.max()
                        assert found.tile_mean[t, b, i, j] == pytest.approx(valid.mean(), rel=1e-12, abs=1e-9)
                        size = 1e-7 * (1 + np.nanmax(np.abs(wide)))
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
    """Brute force, independent of the indexer."""
    valid = values[~np.isnan(values)]
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
    np.float64, st.integers(0, 30), elements=st.one_of(st.floats(-1e4, 1e4, width=32), st.just(math.nan))
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
