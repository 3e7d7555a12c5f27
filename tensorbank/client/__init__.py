"""Bytes through a service: HTTP connections, questions in JSON, signed URLs, and the bytes of a plan made there."""

from __future__ import annotations

from tensorbank.client.plan_bytes import open_store
from tensorbank.client.served_plan import make_plan
from tensorbank.client.service import BANKS, ServiceClient

__all__ = [
    "BANKS",
    "ServiceClient",
    "make_plan",
    "open_store",
]
