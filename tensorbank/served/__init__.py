"""A bank behind a service: the engine that asks it for tables, selections and plans over HTTP."""

from __future__ import annotations

from tensorbank.served.discovery import find_service
from tensorbank.served.served_engine import ServedEngine
from tensorbank.served.service_planner import ServicePlanner

__all__ = [
    "ServedEngine",
    "ServicePlanner",
    "find_service",
]
