"""Values that say what is asked and what was answered: queries, selections, mixes, plans, and the handles in them."""

from __future__ import annotations

from tensorbank.plans.addresses import Addresses, HandleAddresses
from tensorbank.plans.answers import MAX_DATASET_BYTES
from tensorbank.plans.handle import AddressColumns, Handle
from tensorbank.plans.mixture import Mix, mix
from tensorbank.plans.plan import LevelReport, Plan, PlanSource
from tensorbank.plans.proportions import Proportions
from tensorbank.plans.query import Query
from tensorbank.plans.selection import Selection, sides_of

__all__ = [
    "AddressColumns",
    "Addresses",
    "Handle",
    "HandleAddresses",
    "LevelReport",
    "MAX_DATASET_BYTES",
    "Mix",
    "Plan",
    "PlanSource",
    "Proportions",
    "Query",
    "Selection",
    "mix",
    "sides_of",
]
