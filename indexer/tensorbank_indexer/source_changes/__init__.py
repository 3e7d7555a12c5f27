"""Archives that changed after their ingest: what is other than the table says, and one commit that takes over what it is now."""

from __future__ import annotations

from tensorbank_indexer.source_changes.modality_refresh import ModalityRefresh
from tensorbank_indexer.source_changes.source_history import SourceChanges, SourceHistory
from tensorbank_indexer.source_changes.stored_origins import live_rows

__all__ = ["ModalityRefresh", "SourceChanges", "SourceHistory", "live_rows"]
