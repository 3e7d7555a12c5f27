"""The process of the service: a socket, uvicorn, and an end that lets running requests finish."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
import os
import socket
import sys
import threading
from functools import partial
from types import FrameType
from typing import Any, cast

import uvicorn
from fastapi import FastAPI

from tensorbank.errors import ErrorKind, StorageError
from tensorbank_server.front import Connection
from tensorbank_server.monitoring import JsonLines
from tensorbank_server.service import Service
from tensorbank_server.settings import Settings

__all__ = ["configure_logs", "is_loopback", "listen", "serve"]

BACKLOG = 512
KEEP_ALIVE_S = 75
END_S = 10.0
"""Seconds from the end of the last request to the end of the process: workers, banks and files are closed."""
UNREAD_MS = 60_000
"""Milliseconds that the end of an answer may wait in the kernel for a client that takes nothing."""
MAX_HEADER_BYTES = 64 << 10


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches a host name or address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """Bind a socket and listen; port 0 takes a free one.

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
            f"cannot listen at {host} port {port}: {error.strerror}", kind=ErrorKind.ADDRESS
        ) from error
    return listening


def configure_logs(level: str) -> None:
    """Log JSON lines of this process to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)


class _Server(uvicorn.Server):
    """A server with an orderly end: it stops being ready, serves on while balancers notice, then finishes what runs."""

    def __init__(self, config: uvicorn.Config, service: Service, settings: Settings) -> None:
        super().__init__(config)
        self._service = service
        self._drain_s = settings.drain_s
        self._limit_s = settings.drain_s + settings.finish_s + END_S
        self._draining = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's
        """Begin the end at the first signal, and cut it short at the second."""
        if self._draining:
            self.force_exit = True
            return
        self._draining = True
        self._service.is_ready = False
        last = threading.Timer(self._limit_s, _end, (self._limit_s,))
        last.daemon = True
        last.start()
        loop = asyncio.get_running_loop()
        loop.call_soon_threadsafe(loop.call_later, self._drain_s, self._stop_accepting)

    def _stop_accepting(self) -> None:
        self._service.is_ending = True
        self.should_exit = True


def _end(limit_s: float) -> None:
    """End the process, whatever hangs in it."""
    logging.getLogger(__name__).error(
        "the service did not end within %g s of its signal, and is cut", limit_s
    )
    os._exit(1)


def serve(app: FastAPI, settings: Settings, listening: socket.socket, trusted_proxies: str = "") -> None:
    """Run until SIGTERM or SIGINT; return when running requests have ended."""
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
        timeout_graceful_shutdown=math.ceil(settings.finish_s),
        lifespan="on",
        ws="none",
    )
    _Server(config, app.state.service, settings).run(sockets=[listening])
