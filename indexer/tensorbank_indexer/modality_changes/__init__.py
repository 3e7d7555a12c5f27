"""Changes of one modality of a table: from archives or from a callable, each a part of its own, one commit."""

from __future__ import annotations

from tensorbank_indexer.modality_changes.changes import add_modality, replace_modality
from tensorbank_indexer.modality_changes.modality_report import ModalityReport

__all__ = ["ModalityReport", "add_modality", "replace_modality"]
