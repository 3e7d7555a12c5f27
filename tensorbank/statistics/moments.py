"""Moments of the tiles of an array: count, extremes, mean and sum of squared deviations, and how they merge.

Sums of 16-bit integers are exact, so their means and roll-ups are; other numbers are summed in float64. NaN and the infinities
are no values: they are left out and counted as not valid, since one of them would spoil all moments.
Tiles are an n x n grid of the sample; with edge ``i * size // n`` its cells differ by at most one pixel.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Moments", "divide", "merged_tiles", "tile_edges", "tile_moments"]

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

MAX_EXACT_BYTES = 2
"""The most bytes of an integer whose sums and sums of squares are computed exactly."""
MAX_EXACT_AREA = 1 << 15
"""The most pixels of a tile with which ``area * squares`` of 16-bit integers stays
below 2**63 (and the sums below 2**53)."""
MAX_SQUARED = 1e150
"""The magnitude up to which sums of squares in float64 cannot overflow;
larger values are scaled by a power of two."""


def tile_edges(size: int, n_tiles: int) -> Int64:
    """Return the edges of the cells along one axis, (n_tiles + 1,) int64."""
    return np.arange(n_tiles + 1, dtype=np.int64) * size // n_tiles


@dataclass(slots=True)
class Moments:
    """The moments of bands or of their tiles, arrays of one shape.

    ``valid`` counts finite pixels, ``m2`` is the sum of their squared deviations from ``mean``; the others are NaN where none
    is valid.
    """

    valid: Int64
    low: Float64
    high: Float64
    mean: Float64
    m2: Float64


def tile_moments(pixels: npt.NDArray[np.generic], n_tiles: int) -> Moments:
    """Return the moments of the tiles of (time, band, y, x), each (time, band, n, n).

    Band by band, so that the float64 copy of a band stays in the processor's cache.
    """
    times, bands, height, width = pixels.shape
    ys, xs = tile_edges(height, n_tiles), tile_edges(width, n_tiles)
    area = np.diff(ys)[:, None] * np.diff(xs)[None, :]
    shape = (times, bands, n_tiles, n_tiles)
    tiles = Moments(np.empty(shape, np.int64), *(np.empty(shape) for _ in range(4)))
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
    """Return the moments of at most 16-bit integers; sums and sums of squares of a tile stay below 2**53, hence exact in
    float64.
    """
    wide = band.astype(np.float64)
    low, high = _reduce(np.minimum, band, ys, xs), _reduce(np.maximum, band, ys, xs)
    total = _reduce(np.add, wide, ys, xs).astype(np.int64)
    np.multiply(wide, wide, out=wide)
    squares = _reduce(np.add, wide, ys, xs).astype(np.int64)
    return area, low, high, total / area, (area * squares - total * total) / area


def _float_moments(band: npt.NDArray[np.generic], ys: Int64, xs: Int64, area: Int64) -> tuple[Any, ...]:
    """Return the moments of floats and of wide integers, shifted by the band's mean against cancellation."""
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
    mean = divide(total, valid)
    m2 = np.where(valid > 0, np.maximum(squares - np.nan_to_num(mean) * total, 0.0), np.nan)
    if band.dtype.kind != "f" and band.dtype.itemsize > 4:
        low, high = _outward_of(band, low, high, ys, xs)
    mean = np.clip((mean + shift) * scale, low, high)  # rounding must not take a mean beyond the extremes
    with np.errstate(over="ignore"):
        return valid, low, high, mean, m2 * scale * scale


def _scale_of(magnitude: float) -> float:
    """Return a power of two by which values of this magnitude are divided so that their squares do not overflow; mostly 1."""
    return 1.0 if magnitude <= MAX_SQUARED else 2.0 ** float(np.floor(np.log2(magnitude)))


def _outward_of(
    band: npt.NDArray[np.generic], low: Float64, high: Float64, ys: Int64, xs: Int64
) -> tuple[Float64, Float64]:
    """Move the extremes of 64-bit integers outward where float64 rounded them inward.

    A bound may be wider than the values, never narrower, or pruning loses samples.
    """
    least, most = _reduce(np.minimum, band, ys, xs), _reduce(np.maximum, band, ys, xs)
    inside_low = np.vectorize(lambda f, i: int(f) > int(i), otypes=[bool])(low, least)
    inside_high = np.vectorize(lambda f, i: int(f) < int(i), otypes=[bool])(high, most)
    return (
        np.where(inside_low, np.nextafter(low, -np.inf), low),
        np.where(inside_high, np.nextafter(high, np.inf), high),
    )


def _reduce(ufunc: np.ufunc, band: npt.NDArray[np.generic], ys: Int64, xs: Int64) -> Any:
    """Reduce (y, x) to its tiles (n, n). Rows first: that is elementwise over x, which vectorises."""
    rows = np.stack([ufunc.reduce(band[y0:y1], axis=0) for y0, y1 in itertools.pairwise(ys)])
    return np.stack([ufunc.reduce(rows[:, x0:x1], axis=1) for x0, x1 in itertools.pairwise(xs)], axis=1)


def merged_tiles(tiles: Moments) -> Moments:
    """Merge the tiles of each band, (time, band, n, n) to (band,)."""
    axes = (0, 2, 3)
    valid = tiles.valid.sum(axis=axes)
    # The mean of means by weights, for bands whose sum overflows.
    weight = tiles.valid / np.maximum(valid, 1)[None, :, None, None]
    empty = valid == 0
    low = np.where(empty, np.nan, np.fmin.reduce(tiles.low, axis=axes))
    high = np.where(empty, np.nan, np.fmax.reduce(tiles.high, axis=axes))
    with np.errstate(over="ignore", invalid="ignore"):
        exact = np.where(tiles.valid > 0, tiles.mean * tiles.valid, 0.0).sum(axis=axes)
        weighted = np.where(tiles.valid > 0, tiles.mean * weight, 0.0).sum(axis=axes)
        mean = np.clip(np.where(np.isfinite(exact), divide(exact, valid), weighted), low, high)
        mean = np.where(empty, np.nan, mean)
        away = np.where(tiles.valid > 0, tiles.mean - mean[None, :, None, None], 0.0)
        m2 = (np.where(tiles.valid > 0, tiles.m2, 0.0) + tiles.valid * away * away).sum(axis=axes)
    return Moments(valid, low, high, mean, np.where(empty, np.nan, m2))


def divide(a: npt.NDArray[np.generic], n: Int64) -> Float64:
    """Return ``a / n``, NaN where n is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(n > 0, a / np.maximum(n, 1), np.nan)
