"""Values that say what is asked and what was answered: queries, selections, mixes, plans, and the handles in them."""

from __future__ import annotations

from tensorbank.plans.addresses import Addresses, HandleAddresses
from tensorbank.plans.answers import MAX_DATASET_BYTES
from tensorbank.plans.handle import AddressColumns, Handle
from tensorbank.plans.mixture import Mix, mix
from tensorbank.plans.origin import Origin, StoreAddress
from tensorbank.plans.plan import Plan
from tensorbank.plans.plan_source import LevelReport, PlanSource
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
    "Origin",
    "Plan",
    "PlanSource",
    "Proportions",
    "Query",
    "Selection",
    "StoreAddress",
    "mix",
    "sides_of",
]
