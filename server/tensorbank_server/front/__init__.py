"""The front of the service: connections, bodies, and what every request passes, whatever it asks for."""

from __future__ import annotations

from tensorbank_server.front.connections import Connection
from tensorbank_server.front.middleware import Front

__all__ = [
    "Connection",
    "Front",
]
