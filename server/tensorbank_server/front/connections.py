"""A connection of HTTP/1.1: uvicorn's protocol, with problem documents for refusals and a time limit for headers."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from tensorbank_server.http import MEDIA_TYPE, Problem

__all__ = ["Connection"]

_REFUSALS = {
    400: Problem(400, "bad-request", "the request cannot be read"),
    408: Problem(408, "too-slow", "the request did not come in time"),
    431: Problem(431, "headers-too-large", "the headers are larger than this service takes"),
    501: Problem(501, "not-implemented", "this service does not know this transfer coding"),
}


class Connection(H11Protocol):
    """A connection of HTTP/1.1, as the module describes it.

    Parameters
    ----------
    header_s
        Seconds from the first byte of a request to the end of its headers; a client that needs longer is
        dropped.
    """

    def __init__(self, *args: Any, header_s: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._header_s = header_s
        self._header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin. A client that sends nothing is dropped as an idle one is."""
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def data_received(self, data: bytes) -> None:
        """Read on. The timer runs while a request line or its headers are incomplete."""
        super().data_received(data)
        is_waiting = self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0])
        if is_waiting and self._header_timer is None:
            self._header_timer = self.loop.call_later(self._header_s, self._refuse, 408)
        elif not is_waiting:
            self._stop_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._stop_timer()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's words
        """Refuse what is not HTTP, with the status that h11 proposes."""
        error = sys.exc_info()[1]
        self._refuse(getattr(error, "error_status_hint", 400))

    def _refuse(self, status: int) -> None:
        self._stop_timer()
        if self.transport.is_closing():
            return
        if self.conn.our_state not in (
            h11.IDLE,
            h11.SEND_RESPONSE,
        ):  # an answer is under way: it can only be cut
            self.transport.abort()
            return
        problem = _REFUSALS.get(status, _REFUSALS[400])
        number = secrets.token_hex(8)
        body = json.dumps(problem.document(number)).encode()
        headers = {
            "content-type": MEDIA_TYPE,
            "content-length": str(len(body)),
            "cache-control": "no-store",
            "x-error-code": problem.code,
            "x-request-id": number,
            "connection": "close",
        }
        answer = h11.Response(status_code=problem.status, headers=list(headers.items()))
        for event in (answer, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None
