"""Changes of modalities of a table: from archives or from a callable, each a part of its own, one commit."""

from __future__ import annotations

from tensorbank_indexer.modality_changes.changes import add_modality, change_modalities, replace_modality
from tensorbank_indexer.modality_changes.index_change import shard_states
from tensorbank_indexer.modality_changes.job import REFRESH, ModalityJob
from tensorbank_indexer.modality_changes.modality_report import ModalityReport
from tensorbank_indexer.modality_changes.origins import SourceOrigin

__all__ = [
    "REFRESH",
    "ModalityJob",
    "ModalityReport",
    "SourceOrigin",
    "add_modality",
    "change_modalities",
    "replace_modality",
    "shard_states",
]
