"""A bank behind a service: its tables, selections and plans, asked for over HTTP."""

from __future__ import annotations

from tensorbank.served.remote_bank import RemoteBank, find_service
from tensorbank.served.service_planner import RemotePlanner

__all__ = [
    "RemoteBank",
    "RemotePlanner",
    "find_service",
]
