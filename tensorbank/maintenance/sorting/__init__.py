"""Copies of samples that are sorted by a column: made, renewed and dropped."""

from __future__ import annotations

from tensorbank.maintenance.sorting.sorted_copies import (
    SortedCopyReport,
    add_sorted_copy,
    drop_sorted_copy,
    renew_sorted_copies,
    sorted_columns,
)

__all__ = ["SortedCopyReport", "add_sorted_copy", "drop_sorted_copy", "renew_sorted_copies", "sorted_columns"]
