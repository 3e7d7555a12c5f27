"""Planning: a statement and a catalog in, a plan out."""

from __future__ import annotations

from tensorbank.planning.added_columns import needed_columns
from tensorbank.planning.editions import Edition, with_editions
from tensorbank.planning.planner import PLANNER_VERSION, Planner

__all__ = [
    "PLANNER_VERSION",
    "Edition",
    "Planner",
    "needed_columns",
    "with_editions",
]
