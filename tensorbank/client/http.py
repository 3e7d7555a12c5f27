"""HTTP/1.1 over connections that are kept, for many threads.

``http.client`` reads a body into memory of ours and takes any URL, signatures and all. obstore would need a client, and so new
connections, for each signed object. urllib3 bounds the silence of a connection, but not the time of a whole
body, and its pools do not survive a fork: the loop that reads in pieces and the care for forks, most of this module, would stay.
"""

from __future__ import annotations

import http.client
import os
import ssl
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from functools import cached_property
from urllib.parse import urlsplit

import numpy as np

from tensorbank.errors import ErrorKind, StorageError

__all__ = ["Answer", "HttpPool"]

CONNECT_TIMEOUT_S = 5.0
STALL_TIMEOUT_S = 20.0
"""Seconds that a connection may be silent; bounds a silence, not a large body."""
RANGE_TIMEOUT_S = 300.0
"""Seconds that a range may take; bounds one whose bytes trickle."""
MAX_IDLE = 128
"""The most idle connections kept for each origin."""
MAX_REFUSAL_BYTES = 64 << 10
"""The most bytes kept of the body of a refusal; a longer body is cut, and the connection dropped."""

Origin = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of a server. ``body`` is the whole body, or the beginning of it if the server refused."""

    status: int
    headers: Message
    body: memoryview

    @property
    def text(self) -> str:
        return bytes(self.body).decode(errors="replace")


class HttpPool:
    """A pool of connections by origin. May be used from many threads; after a fork it begins anew.

    Redirects are not followed, and answers are what they are: statuses are the caller's to judge.
    """

    def __init__(self) -> None:
        self._idle: dict[Origin, list[http.client.HTTPConnection]] = {}
        self._lock = threading.Lock()
        self._pid = os.getpid()
        weakref.finalize(self, _close, self._idle).atexit = False

    def ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
        *,
        n_bytes: int = -1,
    ) -> Answer:
        """Send a request and return the answer.

        A connection that the server has closed meanwhile is replaced, once; so a request may arrive twice.

        Parameters
        ----------
        n_bytes
            If not negative: the request is for so many bytes of an object, and only the body of a 206 of this length is read;
            what else may be large is not.

        Raises
        ------
        StorageError
            The server cannot be reached, is silent, or cuts the answer.
        """
        parts = urlsplit(url)
        origin = (parts.scheme, parts.netloc)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        for connection, is_new in self._connections(origin):
            try:
                if is_new:
                    connection.connect()
                    connection.sock.settimeout(STALL_TIMEOUT_S)
                connection.request(method, target, body, dict(headers))
                response = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if is_new or isinstance(error, TimeoutError):
                    raise _unreachable(origin, error) from error
                self._drop(origin)
                continue
            try:
                answer, is_whole = _read(response, n_bytes)
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                raise _unreachable(origin, error) from error
            if is_whole and not response.will_close:
                self._keep(origin, connection)
            else:
                connection.close()
            return answer
        raise AssertionError("no connection was tried")

    def close(self) -> None:
        """Close what is idle. The pool can be used again."""
        with self._lock:
            _close(self._idle)

    def _connections(self, origin: Origin) -> Iterator[tuple[http.client.HTTPConnection, bool]]:
        """Yield an idle connection if there is one, then a new one; each with True if it is new."""
        if (
            self._pid != os.getpid()
        ):  # the other process goes on using its own, and a thread of it may have held the lock
            self._lock, self._pid = threading.Lock(), os.getpid()
            _close(self._idle)
        with self._lock:
            idle = self._idle.get(origin)
            kept = idle.pop() if idle else None
        if kept is not None:
            yield kept, False
        yield self._new(origin), True

    def _new(self, origin: Origin) -> http.client.HTTPConnection:
        scheme, netloc = origin
        if scheme == "https":
            return http.client.HTTPSConnection(netloc, timeout=CONNECT_TIMEOUT_S, context=self._tls)
        return http.client.HTTPConnection(netloc, timeout=CONNECT_TIMEOUT_S)

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context()

    def _keep(self, origin: Origin, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            idle = self._idle.setdefault(origin, [])
            if len(idle) < MAX_IDLE:
                idle.append(connection)
                return
        connection.close()

    def _drop(self, origin: Origin) -> None:
        """Drop the idle connections to an origin:
        one was closed by the server, and most likely so are others.
        """
        with self._lock:
            idle = self._idle.pop(origin, [])
        for connection in idle:
            connection.close()


def _close(idle: dict[Origin, list[http.client.HTTPConnection]]) -> None:
    for connections in idle.values():
        for connection in connections:
            connection.close()
    idle.clear()


def _read(response: http.client.HTTPResponse, n_bytes: int) -> tuple[Answer, bool]:
    """Return the answer, and True if nothing of it is left on the connection."""
    status, headers = response.status, response.headers
    if n_bytes >= 0 and status == 206 and response.length == n_bytes:
        body = np.empty(n_bytes, np.uint8).data
        at, until_s = 0, time.monotonic() + RANGE_TIMEOUT_S
        while at < n_bytes:
            if time.monotonic() > until_s:
                raise TimeoutError
            n = response.readinto(body[at:])
            if not n:
                raise http.client.IncompleteRead(b"", n_bytes - at)
            at += n
        response.read()  # nothing; the connection is told that the answer is over
        return Answer(status, headers, body.toreadonly()), True
    if n_bytes >= 0 or status >= 300:
        found = response.read(MAX_REFUSAL_BYTES) if status >= 300 else b""
        return Answer(status, headers, memoryview(found)), response.isclosed() or response.length == 0
    return Answer(status, headers, memoryview(response.read())), True


def _unreachable(origin: Origin, error: Exception) -> StorageError:
    reason = "it does not answer" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
    return StorageError(
        f"{origin[0]}://{origin[1]} cannot be reached: {ascii(reason)[1:-1][:200]}",
        kind=ErrorKind.UNREACHABLE,
    )
