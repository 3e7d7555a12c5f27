"""Copies of samples sorted by a column, and when a statement is answered from one. Values and pure functions."""

from __future__ import annotations

from tensorbank.sorted_copies.choice import UsableCopy, copy_among, usable_copy, with_fewest_rows
from tensorbank.sorted_copies.sorted_copy import (
    SortedCopy,
    copy_name,
    leaf_of,
    mentioned,
    settings_of,
    sortable,
)

__all__ = [
    "SortedCopy",
    "UsableCopy",
    "copy_among",
    "copy_name",
    "leaf_of",
    "mentioned",
    "settings_of",
    "sortable",
    "usable_copy",
    "with_fewest_rows",
]
