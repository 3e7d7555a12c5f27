"""Copies of samples that are sorted by a column: made, renewed and dropped."""

from __future__ import annotations

from tensorbank.maintenance.sorting.sorted_copies import (
    Renewal,
    SortedCopyReport,
    add_sorted_copy,
    drop_sorted_copy,
    renew_sorted_copies,
    sorted_columns,
    stale_columns,
)

__all__ = [
    "Renewal",
    "SortedCopyReport",
    "add_sorted_copy",
    "drop_sorted_copy",
    "renew_sorted_copies",
    "sorted_columns",
    "stale_columns",
]
