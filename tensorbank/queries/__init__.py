"""Queries that are not yet answered: SQL, selections built step by step, and mixes of several."""

from __future__ import annotations

from tensorbank.queries.answers import MAX_DATASET_BYTES, Answers
from tensorbank.queries.mixture import Mix, mix
from tensorbank.queries.proportions import Proportions
from tensorbank.queries.query import Query
from tensorbank.queries.selection import Selection, sides_of

__all__ = [
    "MAX_DATASET_BYTES",
    "Answers",
    "Mix",
    "Proportions",
    "Query",
    "Selection",
    "mix",
    "sides_of",
]
