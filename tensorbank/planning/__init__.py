"""Planning: a statement and a catalog in, a plan out."""

from __future__ import annotations

from tensorbank.planning.planner import PLANNER_VERSION, Planner

__all__ = [
    "PLANNER_VERSION",
    "Planner",
]
