"""Measures of a sample: statistics of its pixels, its place and season, its radiometric offset, and values that look wrong."""

from __future__ import annotations

from tensorbank.statistics import CategoryMeasure, Measure, PixelMeasure, measure, tile_edges
from tensorbank_indexer.measures.geography import contains, hilbert_index, normal_place, place_of, season_of
from tensorbank_indexer.measures.offsets import radiometric_offset
from tensorbank_indexer.measures.suspicious_values import suspicions

__all__ = [
    "CategoryMeasure",
    "Measure",
    "PixelMeasure",
    "contains",
    "hilbert_index",
    "measure",
    "normal_place",
    "place_of",
    "radiometric_offset",
    "season_of",
    "suspicions",
    "tile_edges",
]
