"""Batches of samples that become a part each: of some archives, one after the other, or of the order of all archives."""

from __future__ import annotations

from tensorbank_indexer.ordering.batches import Batch, archive_batches
from tensorbank_indexer.ordering.listing import listed_archives, require_single_samples
from tensorbank_indexer.ordering.ordered_references import OrderedReferences

__all__ = ["Batch", "OrderedReferences", "archive_batches", "listed_archives", "require_single_samples"]
