"""Running the service: a socket, uvicorn, and an end that takes no running request with it."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, cast

import uvicorn
from fastapi import FastAPI

from tensorbank.errors import StorageError
from tensorbank_server.connections import Connection
from tensorbank_server.logs import JsonLines
from tensorbank_server.settings import Settings

__all__ = ["configure_logs", "is_loopback", "listen", "serve"]

BACKLOG = 512
KEEP_ALIVE_S = 75
UNREAD_MS = 60_000
"""For how long the end of an answer may wait in the kernel for a client that takes nothing."""
MAX_HEADER_BYTES = 64 << 10


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host name or address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """A bound socket; port 0 takes a free one.

    Raises
    ------
    StorageError
        The address is taken, or not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only where the protocol is named; with it, a small answer takes 40 ms
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(
            socket, "TCP_USER_TIMEOUT"
        ):  # connections inherit it: the kernel drops who never reads the rest
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_MS)
        listening.bind((host.strip("[]"), port))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise StorageError(
            f"cannot listen at {host} port {port}: {error.strerror}", kind="address"
        ) from error
    return listening


def configure_logs(level: str) -> None:
    """JSON lines on standard error, of this process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)


class _Server(uvicorn.Server):
    """Stops being ready at once, goes on serving while balancers find out, then accepts no more and finishes what runs."""

    def __init__(self, config: uvicorn.Config, drain_s: float, stop_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._drain_s = drain_s
        self._stop_ready = stop_ready
        self._draining = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's
        """The first signal drains, the second cuts. The process then ends as a program does that has done its work."""
        if self._draining:
            self.force_exit = True
            return
        self._draining = True
        self._stop_ready()
        loop = asyncio.get_running_loop()
        loop.call_soon_threadsafe(loop.call_later, self._drain_s, self._stop_accepting)

    def _stop_accepting(self) -> None:
        self.should_exit = True


def serve(app: FastAPI, settings: Settings, listening: socket.socket, trusted_proxies: str = "") -> None:
    """Run until SIGTERM or SIGINT; returns when running requests have ended."""
    service = app.state.service

    def stop_ready() -> None:
        service.is_ready = False

    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        http=cast(
            Any, partial(Connection, header_s=settings.limits.header_s)
        ),  # over h11, which refuses what httptools lets pass: huge headers, two hosts
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        proxy_headers=bool(trusted_proxies),
        forwarded_allow_ips=trusted_proxies or None,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(settings.limits.request_s + settings.limits.send_stall_s) + 1,
        lifespan="on",
        ws="none",
    )
    _Server(config, settings.drain_s, stop_ready).run(sockets=[listening])
