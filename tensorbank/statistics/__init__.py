"""Numbers about pixels: mergeable statistics of a band, summaries of a selection, published normalisation constants."""

from __future__ import annotations

from tensorbank.statistics.band_stats import QUANTILES, BandStats, bin_edges, merge_all
from tensorbank.statistics.published import Normalization, normalization
from tensorbank.statistics.summaries import BandSummary, Quantile, Statistics, of_samples, of_shards

__all__ = [
    "BandStats",
    "BandSummary",
    "Normalization",
    "QUANTILES",
    "Quantile",
    "Statistics",
    "bin_edges",
    "merge_all",
    "normalization",
    "of_samples",
    "of_shards",
]
