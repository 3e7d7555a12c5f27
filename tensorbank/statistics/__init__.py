"""Numbers about pixels: measures of samples, statistics of bands that merge, summaries, published normalisation constants."""

from __future__ import annotations

from tensorbank.statistics.band_stats import QUANTILES, BandStats, bin_edges, merge_all
from tensorbank.statistics.classes import CategoryMeasure
from tensorbank.statistics.modality_measure import Measure, measure
from tensorbank.statistics.moments import tile_edges
from tensorbank.statistics.pixels import PixelMeasure
from tensorbank.statistics.published import Normalization, normalization
from tensorbank.statistics.summaries import BandSummary, Quantile, Statistics, of_samples, of_shards

__all__ = [
    "BandStats",
    "BandSummary",
    "CategoryMeasure",
    "Measure",
    "Normalization",
    "QUANTILES",
    "PixelMeasure",
    "Quantile",
    "Statistics",
    "bin_edges",
    "measure",
    "merge_all",
    "normalization",
    "of_samples",
    "of_shards",
    "tile_edges",
]
