"""Statistics of one sample's modality, from the pixels that are about to be encoded.

Sums of 16-bit integers are exact, so their means and roll-ups are; floats are summed in float64. NaN and the infinities are
no values: they are left out of every statistic and counted as not valid, since one of them would spoil all moments.
Tiles are an n x n grid of the sample; with edge ``i * size // n`` its cells differ by at most one pixel.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tensorbank.schema import Modality
from tensorbank.statistics import QUANTILES, bin_edges

__all__ = ["CategoryMeasure", "PixelMeasure", "measure", "measure_categories", "measure_pixels", "tile_edges"]

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

MAX_EXACT_BYTES = 2
MAX_EXACT_AREA = 1 << 15
"""The most pixels of a tile with which ``area * squares`` of 16-bit integers stays
below 2**63 (and the sums below 2**53)."""
MAX_SQUARED = 1e150
"""The magnitude up to which sums of squares in float64 cannot overflow;
larger values are scaled by a power of two."""
_EDGES = bin_edges()
_PROBABILITIES = np.array([p for _, p in QUANTILES])


@dataclass(slots=True)
class PixelMeasure:
    """The statistics of a continuous modality of one sample.

    ``valid, low, high, mean, m2`` are (band,), ``quantiles`` (band, q), ``histogram`` (band, N_BINS) over all dates;
    ``low, high, mean, quantiles`` are NaN where no pixel is valid. ``tile_*`` are (time, band, n, n). ``infinite`` is (band,),
    the pixels that are not valid because they are infinite rather than NaN.
    """

    count: int
    valid: Int64
    infinite: Int64
    low: Float64
    high: Float64
    mean: Float64
    m2: Float64
    quantiles: Float64
    histogram: npt.NDArray[np.int32]
    tile_valid: Int64
    tile_low: Float64
    tile_high: Float64
    tile_mean: Float64
    tile_std: Float64


@dataclass(slots=True)
class CategoryMeasure:
    """The statistics of a categorical modality: pixels per class, (class,) and per tile (time, n, n, class).

    ``unknown_codes`` are the distinct values of pixels that are of no class, ascending.
    """

    count: int
    classes: Int64
    tile_count: Int64
    tile_classes: Int64
    unknown_codes: Float64


def measure(
    pixels: npt.NDArray[np.generic], modality: Modality, n_tiles: int
) -> PixelMeasure | CategoryMeasure:
    """Measure one sample of a modality: ``pixels`` is (time, band, y, x) in the stored dtype."""
    if modality.categorical:
        return measure_categories(pixels, [code for code, _ in modality.classes], n_tiles)
    return measure_pixels(pixels, n_tiles)


def tile_edges(size: int, n_tiles: int) -> Int64:
    """Return the edges of the cells along one axis, (n_tiles + 1,) int64."""
    return np.arange(n_tiles + 1, dtype=np.int64) * size // n_tiles


def measure_pixels(pixels: npt.NDArray[np.generic], n_tiles: int) -> PixelMeasure:
    """Measure numbers, (time, band, y, x)."""
    times, bands, height, width = pixels.shape
    tiles = _tile_moments(pixels, n_tiles)
    per_band = _merge_tiles(tiles)
    quantiles = np.full((bands, len(_PROBABILITIES)), np.nan)
    histogram = np.zeros((bands, len(_EDGES)), np.int32)  # held for every sample of a shard
    for b in range(bands):
        ordered = _sorted_values(pixels[:, b])
        if ordered.size:
            rank = np.floor(_PROBABILITIES * (ordered.size - 1)).astype(np.int64)
            quantiles[b] = ordered[rank]
            histogram[b] = _histogram(ordered)
    return PixelMeasure(
        count=times * height * width,
        valid=per_band.valid,
        infinite=_n_infinite(pixels, times * height * width - per_band.valid),
        low=per_band.low,
        high=per_band.high,
        mean=per_band.mean,
        m2=per_band.m2,
        quantiles=quantiles,
        histogram=histogram,
        tile_valid=tiles.valid,
        tile_low=tiles.low,
        tile_high=tiles.high,
        tile_mean=tiles.mean,
        tile_std=np.sqrt(_divide(tiles.m2, tiles.valid)),
    )


def measure_categories(pixels: npt.NDArray[np.generic], codes: list[int], n_tiles: int) -> CategoryMeasure:
    """Count the pixels of each class in (time, 1, y, x) integers;
    a code outside ``codes`` counts as pixel of no class."""
    times, _, height, width = pixels.shape
    ys, xs = tile_edges(height, n_tiles), tile_edges(width, n_tiles)
    rows = np.repeat(np.arange(n_tiles), np.diff(ys))
    columns = np.repeat(np.arange(n_tiles), np.diff(xs))
    cell = rows[:, None] * n_tiles + columns
    n_classes = len(codes) + 1
    number = _class_numbers(pixels[:, 0], codes)
    flat = (np.arange(times)[:, None, None] * n_tiles**2 + cell) * n_classes + number
    counts = np.bincount(flat.reshape(-1), minlength=times * n_tiles**2 * n_classes)
    per_tile = counts.reshape(times, n_tiles, n_tiles, n_classes)
    unknown = pixels[:, 0][number == len(codes)] if per_tile[..., -1].any() else pixels[:0, 0]
    distinct = np.unique(unknown).astype(np.float64)
    return CategoryMeasure(
        count=times * height * width,
        classes=per_tile[..., :-1].sum(axis=(0, 1, 2)),
        tile_count=per_tile.sum(axis=-1),
        tile_classes=per_tile[..., :-1],
        unknown_codes=distinct[~np.isnan(distinct)],
    )


def _class_numbers(values: npt.NDArray[np.generic], codes: list[int]) -> Int64:
    """Return for each value the position of its code, ``len(codes)`` for any other.
    A table for bytes, a search for wider types."""
    if values.dtype.itemsize == 1:
        table = np.full(256, len(codes), np.int64)
        sound = [(c, i) for i, c in enumerate(codes) if 0 <= c < (128 if values.dtype.kind == "i" else 256)]
        table[[c for c, _ in sound]] = [i for _, i in sound]
        return table[values.view(np.uint8)]
    order = np.argsort(codes)
    known = np.asarray(codes)[order]
    at = np.minimum(np.searchsorted(known, values), len(codes) - 1)
    return np.where(known[at] == values, order[at], len(codes))


@dataclass(slots=True)
class _Moments:
    valid: Int64
    low: Float64
    high: Float64
    mean: Float64
    m2: Float64


def _tile_moments(pixels: npt.NDArray[np.generic], n_tiles: int) -> _Moments:
    """Return the moments of the tiles of (time, band, y, x), each (time, band, n, n).

    Band by band, so that the float64 copy of a band stays in the processor's cache.
    """
    times, bands, height, width = pixels.shape
    ys, xs = tile_edges(height, n_tiles), tile_edges(width, n_tiles)
    area = np.diff(ys)[:, None] * np.diff(xs)[None, :]
    shape = (times, bands, n_tiles, n_tiles)
    tiles = _Moments(np.empty(shape, np.int64), *(np.empty(shape) for _ in range(4)))
    exact = (
        pixels.dtype.kind != "f" and pixels.dtype.itemsize <= MAX_EXACT_BYTES and area.max() <= MAX_EXACT_AREA
    )
    for t in range(times):
        for b in range(bands):
            moments = _exact_moments if exact else _float_moments
            result = moments(pixels[t, b], ys, xs, area)
            tiles.valid[t, b], tiles.low[t, b], tiles.high[t, b], tiles.mean[t, b], tiles.m2[t, b] = result
    return tiles


def _exact_moments(band: npt.NDArray[np.generic], ys: Int64, xs: Int64, area: Int64) -> tuple[Any, ...]:
    """Return the moments of at most 16-bit integers:
    sums and sums of squares of a tile stay below 2**53, hence exact in float64."""
    wide = band.astype(np.float64)
    low, high = _reduce(np.minimum, band, ys, xs), _reduce(np.maximum, band, ys, xs)
    total = _reduce(np.add, wide, ys, xs).astype(np.int64)
    np.multiply(wide, wide, out=wide)
    squares = _reduce(np.add, wide, ys, xs).astype(np.int64)
    return area, low, high, total / area, (area * squares - total * total) / area


def _float_moments(band: npt.NDArray[np.generic], ys: Int64, xs: Int64, area: Int64) -> tuple[Any, ...]:
    """Return the moments of finite floats, and of wide integers;
    shifted by the band's mean against cancellation."""
    wide = band.astype(np.float64)
    missing = ~np.isfinite(wide)
    some = bool(missing.any())
    if some and missing.all():
        nothing = np.full(area.shape, np.nan)
        return np.zeros_like(area), nothing, nothing, nothing, nothing
    valid = area
    if some:
        valid = area - _reduce(np.add, missing.astype(np.float64), ys, xs).astype(np.int64)
        wide[missing] = np.nan
    low, high = _reduce(np.fmin, wide, ys, xs), _reduce(np.fmax, wide, ys, xs)
    scale = _scale_of(max(-float(np.nanmin(low)), float(np.nanmax(high))))
    if scale != 1.0:
        wide /= scale
    shift = float(np.nanmean(wide)) if some else float(wide.mean())
    wide -= shift
    if some:
        wide[missing] = 0.0
    total = _reduce(np.add, wide, ys, xs)
    np.multiply(wide, wide, out=wide)
    squares = _reduce(np.add, wide, ys, xs)
    mean = _divide(total, valid)
    m2 = np.where(valid > 0, np.maximum(squares - np.nan_to_num(mean) * total, 0.0), np.nan)
    if band.dtype.kind != "f" and band.dtype.itemsize > 4:
        low, high = _outward_of(band, low, high, ys, xs)
    mean = np.clip((mean + shift) * scale, low, high)  # rounding must not take a mean beyond the extremes
    with np.errstate(over="ignore"):
        return valid, low, high, mean, m2 * scale * scale


def _scale_of(magnitude: float) -> float:
    """A power of two that brings values of this magnitude to where their squares do not overflow; 1 for all but huge ones."""
    return 1.0 if magnitude <= MAX_SQUARED else 2.0 ** float(np.floor(np.log2(magnitude)))


def _outward_of(
    band: npt.NDArray[np.generic], low: Float64, high: Float64, ys: Int64, xs: Int64
) -> tuple[Float64, Float64]:
    """Return the extremes of 64-bit integers, which float64 may have rounded,
    moved outward where it moved them inward."""
    least, most = _reduce(np.minimum, band, ys, xs), _reduce(np.maximum, band, ys, xs)
    inside_low = np.vectorize(lambda f, i: int(f) > int(i), otypes=[bool])(low, least)
    inside_high = np.vectorize(lambda f, i: int(f) < int(i), otypes=[bool])(high, most)
    return (
        np.where(inside_low, np.nextafter(low, -np.inf), low),
        np.where(inside_high, np.nextafter(high, np.inf), high),
    )


def _n_infinite(pixels: npt.NDArray[np.generic], n_missing: Int64) -> Int64:
    """Count the infinite pixels of each band; looked for only where some are not valid."""
    found = np.zeros(len(n_missing), np.int64)
    for b in np.flatnonzero(n_missing):
        found[b] = np.count_nonzero(np.isinf(pixels[:, b]))
    return found


def _reduce(ufunc: np.ufunc, band: npt.NDArray[np.generic], ys: Int64, xs: Int64) -> Any:
    """Reduce (y, x) to its tiles (n, n). Rows first: that is elementwise over x, which vectorises."""
    rows = np.stack([ufunc.reduce(band[y0:y1], axis=0) for y0, y1 in itertools.pairwise(ys)])
    return np.stack([ufunc.reduce(rows[:, x0:x1], axis=1) for x0, x1 in itertools.pairwise(xs)], axis=1)


def _merge_tiles(tiles: _Moments) -> _Moments:
    """Merge the tiles of each band, (time, band, n, n) to (band,)."""
    axes = (0, 2, 3)
    valid = tiles.valid.sum(axis=axes)
    weight = (
        tiles.valid / np.maximum(valid, 1)[None, :, None, None]
    )  # not the sum: that of huge values overflows
    empty = valid == 0
    low = np.where(empty, np.nan, np.fmin.reduce(tiles.low, axis=axes))
    high = np.where(empty, np.nan, np.fmax.reduce(tiles.high, axis=axes))
    with np.errstate(over="ignore", invalid="ignore"):
        exact = np.where(tiles.valid > 0, tiles.mean * tiles.valid, 0.0).sum(axis=axes)
        weighted = np.where(tiles.valid > 0, tiles.mean * weight, 0.0).sum(axis=axes)
        mean = np.clip(np.where(np.isfinite(exact), _divide(exact, valid), weighted), low, high)
        mean = np.where(empty, np.nan, mean)
        away = np.where(tiles.valid > 0, tiles.mean - mean[None, :, None, None], 0.0)
        m2 = (np.where(tiles.valid > 0, tiles.m2, 0.0) + tiles.valid * away * away).sum(axis=axes)
    return _Moments(valid, low, high, mean, np.where(empty, np.nan, m2))


def _sorted_values(band: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Return the valid values of one band, ascending."""
    if band.dtype == np.uint8:  # numpy has no vectorised sort of bytes: counting is ten times faster
        return np.repeat(np.arange(256, dtype=np.uint8), np.bincount(band.reshape(-1), minlength=256))
    if band.dtype.kind != "f":
        return np.sort(band, axis=None)
    values = band[np.isfinite(band)]
    return np.sort(values.astype(np.float32) if values.dtype == np.float16 else values)


def _histogram(ordered: npt.NDArray[np.generic]) -> Int64:
    """Return the counts per bin of :func:`tensorbank.statistics.band_stats.bin_edges` from sorted values."""
    first, last = np.searchsorted(_EDGES, [ordered[0], ordered[-1]], side="right")
    counts = np.zeros(len(_EDGES), np.int64)
    inner = _EDGES[first:last]
    limits = (
        np.ceil(inner).astype(ordered.dtype) if ordered.dtype.kind != "f" else inner.astype(ordered.dtype)
    )
    cuts = np.searchsorted(ordered, limits, side="left")
    counts[first - 1 : last] = np.diff(np.concatenate([[0], cuts, [ordered.size]]))
    return counts


def _divide(a: npt.NDArray[np.generic], n: Int64) -> Float64:
    """Return ``a / n``, NaN where n is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(n > 0, a / np.maximum(n, 1), np.nan)
