"""Statistics of the numbers of one sample's modality, from the pixels that are about to be encoded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tensorbank.statistics.band_stats import QUANTILES, bin_edges
from tensorbank.statistics.moments import divide, merged_tiles, tile_moments

__all__ = ["PixelMeasure", "measure_pixels"]

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

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


def measure_pixels(pixels: npt.NDArray[np.generic], n_tiles: int) -> PixelMeasure:
    """Measure numbers, (time, band, y, x) of any real type. Pure."""
    times, bands, height, width = pixels.shape
    tiles = tile_moments(pixels, n_tiles)
    per_band = merged_tiles(tiles)
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
        tile_std=np.sqrt(divide(tiles.m2, tiles.valid)),
    )


def _n_infinite(pixels: npt.NDArray[np.generic], n_missing: Int64) -> Int64:
    """Count the infinite pixels of each band; looked for only where some are not valid."""
    found = np.zeros(len(n_missing), np.int64)
    for b in np.flatnonzero(n_missing):
        found[b] = np.count_nonzero(np.isinf(pixels[:, b]))
    return found


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
