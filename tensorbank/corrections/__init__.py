"""Corrections of a table that was ingested: samples that go, versions that come back. Each is one commit."""

from __future__ import annotations

from tensorbank.corrections.deletion import Deleted, delete, rows_of_deletion
from tensorbank.corrections.difference import Difference, Moved, changed_samples, diff
from tensorbank.corrections.dropped_modality import drop_modality
from tensorbank.corrections.restoration import Restored, restore
from tensorbank.corrections.rewritten_files import rewritten

__all__ = [
    "Deleted",
    "Difference",
    "Moved",
    "Restored",
    "changed_samples",
    "delete",
    "diff",
    "drop_modality",
    "restore",
    "rewritten",
    "rows_of_deletion",
]
