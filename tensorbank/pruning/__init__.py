"""Conditions that rows must satisfy, and the files, shards and row groups that therefore cannot hold an answer."""

from __future__ import annotations

from tensorbank.pruning.conditions import (
    ANYTHING,
    AllOf,
    AnyOf,
    Bounds,
    Compare,
    Condition,
    leaves,
    may_match,
)
from tensorbank.pruning.known_bounds import of_files, of_shards, shard_columns
from tensorbank.pruning.row_groups import count_row_groups, kept_row_groups
from tensorbank.pruning.table_conditions import wanted

__all__ = [
    "ANYTHING",
    "AllOf",
    "AnyOf",
    "Bounds",
    "Compare",
    "Condition",
    "count_row_groups",
    "kept_row_groups",
    "leaves",
    "may_match",
    "of_files",
    "of_shards",
    "shard_columns",
    "wanted",
]
