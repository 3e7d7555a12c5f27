"""Bytes through a service: HTTP connections, questions in JSON, signed URLs, and the bytes of a plan made there."""

from __future__ import annotations

from tensorbank.client.plan_client import make_plan
from tensorbank.client.served_plan import Access, ServedPlan
from tensorbank.client.service import BANKS, ServiceClient

__all__ = [
    "Access",
    "BANKS",
    "ServedPlan",
    "ServiceClient",
    "make_plan",
]
