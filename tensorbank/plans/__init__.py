"""Plans: frozen answers of queries, the handles in them, and the bytes that they address."""

from __future__ import annotations

from tensorbank.plans.addresses import Addresses, HandleAddresses
from tensorbank.plans.handle import AddressColumns, Handle
from tensorbank.plans.origin import Origin, StoreAddress, common_origin
from tensorbank.plans.plan import Plan
from tensorbank.plans.plan_source import LevelReport, PlanSource, ReadSnapshot, by_name
from tensorbank.plans.streaming import (
    DatasetOptions,
    LoaderOptions,
    dataset_of,
    lineage_of,
    loader_of,
    loader_of_query,
)

__all__ = [
    "AddressColumns",
    "Addresses",
    "DatasetOptions",
    "Handle",
    "HandleAddresses",
    "LevelReport",
    "LoaderOptions",
    "Origin",
    "Plan",
    "PlanSource",
    "ReadSnapshot",
    "StoreAddress",
    "by_name",
    "common_origin",
    "dataset_of",
    "lineage_of",
    "loader_of",
    "loader_of_query",
]
