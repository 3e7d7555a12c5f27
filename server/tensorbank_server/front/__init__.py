"""The front of the service: connections, bodies, and the checks, limits and logs that every request passes."""

from __future__ import annotations

from tensorbank_server.front.connections import Connection
from tensorbank_server.front.middleware import Front

__all__ = [
    "Connection",
    "Front",
]
