"""Index rows: what the tables of samples, tiles and shards say of stored samples, without NaN and infinity."""

from __future__ import annotations

from tensorbank_indexer.rows.facts import OPTICAL_MODALITIES, RADAR_MODALITIES, sample_facts
from tensorbank_indexer.rows.levels import IndexRows, index_rows
from tensorbank_indexer.rows.stored_sample import StoredModality, StoredSample

__all__ = [
    "IndexRows",
    "OPTICAL_MODALITIES",
    "RADAR_MODALITIES",
    "StoredModality",
    "StoredSample",
    "index_rows",
    "sample_facts",
]
