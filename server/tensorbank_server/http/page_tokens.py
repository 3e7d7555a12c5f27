"""Tokens of the next page: opaque and signed, each good for one caller, one question, and an hour."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

from tensorbank_server.http.problems import Problem

__all__ = ["PageTokens"]

LIFETIME_S = 3_600.0
_MAC_BYTES = 16


class PageTokens:
    """A maker and reader of page tokens.

    Parameters
    ----------
    secret
        The key of the signature, shared by the replicas of a service.
    max_bytes
        The most bytes of a token.
    clock
        Seconds since 1970.
    """

    def __init__(self, secret: bytes, max_bytes: int, clock: Callable[[], float] = time.time) -> None:
        self._secret = secret
        self._max_bytes = max_bytes
        self._clock = clock

    def token(self, place: object, *question: object) -> str:
        """Return the token of the place (JSON) where a page begins, for one caller and question."""
        body = json.dumps([place, int(self._clock() + LIFETIME_S)], separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(self._mac(body, question) + body).decode().rstrip("=")

    def place(self, token: str, *question: object) -> Any:
        """Return the place that a token was made of.

        Raises
        ------
        Problem
            400: it is damaged, has expired, or belongs to another caller or question.
        """
        wrong = Problem(
            400, "page-token", "this is not the token of a next page of this request; begin again without it"
        )
        if len(token) > self._max_bytes:
            raise wrong
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except ValueError:
            raise wrong from None
        mac, body = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(body, question)):
            raise wrong
        place, expires = json.loads(body)
        if self._clock() > expires:
            raise Problem(400, "page-token", "the token of the next page has expired; begin again")
        return place

    def _mac(self, body: bytes, question: tuple[object, ...]) -> bytes:
        asked = json.dumps(question, sort_keys=True, default=str).encode()
        return hmac.new(self._secret, asked + b"\x00" + body, hashlib.sha256).digest()[:_MAC_BYTES]
