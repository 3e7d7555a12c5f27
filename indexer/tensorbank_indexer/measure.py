"""Statistics of one sample's modality, from the pixels that are about to be encoded.

Integers are summed in int64, so their counts, sums, means and roll-ups are exact; floats in float64 with NaN left out.
Tiles are an n x n grid of the sample; with edge ``i * size // n`` its cells differ by at most one pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tensorbank.schema import Modality
from tensorbank.stats import QUANTILES, bin_edges

__all__ = ["CategoryMeasure", "PixelMeasure", "measure", "measure_categories", "measure_pixels", "tile_edges"]

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

_EDGES = bin_edges()
_PROBABILITIES = np.array([p for _, p in QUANTILES])


@dataclass(slots=True)
class PixelMeasure:
    """Statistics of a continuous modality of one sample.

    ``valid, low, high, mean, m2`` are (band,), ``quantiles`` (band, q), ``histogram`` (band, N_BINS) over all dates;
    ``low, high, mean, quantiles`` are NaN where no pixel is valid. ``tile_*`` are (time, band, n, n).
    """

    count: int
    valid: Int64
    low: Float64
    high: Float64
    mean: Float64
    m2: Float64
    quantiles: Float64
    histogram: Int64
    tile_valid: Int64
    tile_low: Float64
    tile_high: Float64
    tile_mean: Float64
    tile_std: Float64


@dataclass(slots=True)
class CategoryMeasure:
    """Statistics of a categorical modality: pixels per class, (class,) and per tile (time, n, n, class)."""

    count: int
    classes: Int64
    tile_count: Int64
    tile_classes: Int64


def measure(
    pixels: npt.NDArray[np.generic], modality: Modality, n_tiles: int
) -> PixelMeasure | CategoryMeasure:
    """Measure one sample of a modality: ``pixels`` is (time, band, y, x) in the stored dtype."""
    if modality.categorical:
        return measure_categories(pixels, [code for code, _ in modality.classes], n_tiles)
    return measure_pixels(pixels, n_tiles)


def tile_edges(size: int, n_tiles: int) -> Int64:
    """Edges of the cells along one axis, (n_tiles + 1,) int64."""
    return np.arange(n_tiles + 1, dtype=np.int64) * size // n_tiles


def measure_pixels(pixels: npt.NDArray[np.generic], n_tiles: int) -> PixelMeasure:
    """Statistics of numbers, (time, band, y, x)."""
    times, bands, height, width = pixels.shape
    ys, xs = tile_edges(height, n_tiles)[:-1], tile_edges(width, n_tiles)[:-1]
    if pixels.dtype.kind == "f":
        tiles = _float_tiles(pixels, ys, xs)
    else:
        tiles = _integer_tiles(pixels, ys, xs)
    per_band = _merge_tiles(tiles)
    quantiles = np.full((bands, len(_PROBABILITIES)), np.nan)
    histogram = np.zeros((bands, len(_EDGES)), np.int64)
    for b in range(bands):
        ordered = _sorted_values(pixels[:, b])
        if ordered.size:
            rank = np.floor(_PROBABILITIES * (ordered.size - 1)).astype(np.int64)
            quantiles[b] = ordered[rank]
            histogram[b] = _histogram(ordered)
    return PixelMeasure(
        count=times * height * width,
        valid=per_band.valid,
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
    """Pixels per class, (time, 1, y, x) of integers; a code outside ``codes`` counts as pixel of no class."""
    times, _, height, width = pixels.shape
    ys, xs = tile_edges(height, n_tiles), tile_edges(width, n_tiles)
    rows = np.repeat(np.arange(n_tiles), np.diff(ys))
    columns = np.repeat(np.arange(n_tiles), np.diff(xs))
    cell = rows[:, None] * n_tiles + columns
    lookup = np.full(1 << (8 * pixels.dtype.itemsize), len(codes), np.int64)
    lookup[np.array(codes)] = np.arange(len(codes))
    unsigned = pixels[:, 0].view(f"u{pixels.dtype.itemsize}")
    n_classes = len(codes) + 1
    flat = (np.arange(times)[:, None, None] * n_tiles**2 + cell) * n_classes + lookup[unsigned]
    counts = np.bincount(flat.reshape(-1), minlength=times * n_tiles**2 * n_classes)
    per_tile = counts.reshape(times, n_tiles, n_tiles, n_classes)
    return CategoryMeasure(
        count=times * height * width,
        classes=per_tile[..., :-1].sum(axis=(0, 1, 2)),
        tile_count=per_tile.sum(axis=-1),
        tile_classes=per_tile[..., :-1],
    )


@dataclass(slots=True)
class _Moments:
    valid: Int64
    low: Float64
    high: Float64
    mean: Float64
    m2: Float64


def _reduce(ufunc: np.ufunc, values: npt.NDArray[np.generic], ys: Int64, xs: Int64, **kind: object) -> npt.NDArray[np.generic]:
    """Reduce (time, band, y, x) to its tiles (time, band, n, n)."""
    rows = ufunc.reduceat(values, ys, axis=2, **kind)
    return ufunc.reduceat(rows, xs, axis=3, **kind)


def _integer_tiles(pixels: npt.NDArray[np.generic], ys: Int64, xs: Int64) -> _Moments:
    valid = _reduce(np.add, np.ones((1, 1, *pixels.shape[2:]), np.int64), ys, xs)
    valid = np.broadcast_to(valid, (*pixels.shape[:2], len(ys), len(xs))).astype(np.int64)
    wide = pixels.astype(np.int64)
    total = _reduce(np.add, wide, ys, xs)
    squares = _reduce(np.add, wide * wide, ys, xs)
    # n * sum(x^2) - sum(x)^2 is exact in int64 for 16-bit pixels of tiles below 46,000 px
    mean = total / valid
    m2 = (valid * squares - total * total) / valid
    low = _reduce(np.minimum, pixels, ys, xs).astype(np.float64)
    high = _reduce(np.maximum, pixels, ys, xs).astype(np.float64)
    return _Moments(valid, low, high, mean, m2)


def _float_tiles(pixels: npt.NDArray[np.generic], ys: Int64, xs: Int64) -> _Moments:
    wide = pixels.astype(np.float64)
    missing = np.isnan(wide)
    valid = _reduce(np.add, (~missing).astype(np.int64), ys, xs).astype(np.int64)
    total = _reduce(np.add, np.where(missing, 0.0, wide), ys, xs)
    mean = _divide(total, valid)
    per_pixel = np.repeat(np.repeat(mean, _sizes(ys, pixels.shape[2]), axis=2), _sizes(xs, pixels.shape[3]), axis=3)
    deviation = np.where(missing, 0.0, wide - per_pixel)
    m2 = _reduce(np.add, deviation * deviation, ys, xs).astype(np.float64)
    empty = valid == 0
    low = np.where(empty, np.nan, _reduce(np.fmin, wide, ys, xs))
    high = np.where(empty, np.nan, _reduce(np.fmax, wide, ys, xs))
    return _Moments(valid, low, high, mean, np.where(empty, np.nan, m2))


def _sizes(starts: Int64, size: int) -> Int64:
    return np.diff(np.append(starts, size))


def _merge_tiles(tiles: _Moments) -> _Moments:
    """Merge the tiles of each band, (time, band, n, n) to (band,)."""
    axes = (0, 2, 3)
    valid = tiles.valid.sum(axis=axes)
    total = np.where(tiles.valid > 0, tiles.mean * tiles.valid, 0.0).sum(axis=axes)
    mean = _divide(total, valid)
    away = np.where(tiles.valid > 0, tiles.mean - mean[None, :, None, None], 0.0)
    m2 = (np.where(tiles.valid > 0, tiles.m2, 0.0) + tiles.valid * away * away).sum(axis=axes)
    empty = valid == 0
    low = np.where(empty, np.nan, np.fmin.reduce(tiles.low, axis=axes))
    high = np.where(empty, np.nan, np.fmax.reduce(tiles.high, axis=axes))
    return _Moments(valid, low, high, mean, m2)


def _sorted_values(band: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Valid values of one band, ascending."""
    if band.dtype.kind != "f":
        return np.sort(band, axis=None)
    values = band[~np.isnan(band)]
    return np.sort(values.astype(np.float32) if values.dtype == np.float16 else values)


def _histogram(ordered: npt.NDArray[np.generic]) -> Int64:
    """Counts per bin of :func:`tensorbank.stats.bin_edges` from sorted values."""
    first, last = np.searchsorted(_EDGES, [ordered[0], ordered[-1]], side="right")
    counts = np.zeros(len(_EDGES), np.int64)
    inner = _EDGES[first:last]
    limits = np.ceil(inner).astype(ordered.dtype) if ordered.dtype.kind != "f" else inner.astype(ordered.dtype)
    cuts = np.searchsorted(ordered, limits, side="left")
    counts[first - 1 : last] = np.diff(np.concatenate([[0], cuts, [ordered.size]]))
    return counts


def _divide(a: npt.NDArray[np.generic], n: Int64) -> Float64:
    """``a / n``, NaN where n is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(n > 0, a / np.maximum(n, 1), np.nan)
