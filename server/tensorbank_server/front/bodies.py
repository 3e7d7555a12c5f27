"""Bodies of requests: read whole, within a size and a time, and measured before a parser of the framework sees them."""

from __future__ import annotations

import asyncio
import json

from starlette.datastructures import Headers
from starlette.types import Message, Receive

from tensorbank_server.http import Problem

__all__ = ["check_json", "read_body", "replaying"]

MAX_NUMBER_CHARACTERS = 64
"""The most characters of a number in JSON: no float needs more, and converting digits takes time that grows with their square."""
CLOSE = {"Connection": "close"}
"""The headers of an answer to a body that was not read: where it ends on the connection is not known."""


async def read_body(receive: Receive, headers: Headers, *, max_bytes: int, limit_s: float) -> bytes:
    """Return the body of a request.

    Raises
    ------
    Problem
        413: it has more than ``max_bytes``. 408: it did not come within ``limit_s``.
    ConnectionError
        The client is gone.
    """
    said = headers.get("content-length", "0")
    if len(said) > 18 or not said.isdecimal() or int(said) > max_bytes:
        raise _too_large()
    if said == "0" and "transfer-encoding" not in headers:
        return b""
    parts: list[bytes] = []
    n_bytes = 0
    try:
        async with asyncio.timeout(limit_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ConnectionResetError("the client left before its body had come")
                part = message.get("body", b"")
                n_bytes += len(part)
                if n_bytes > max_bytes:
                    raise _too_large()
                parts.append(part)
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        raise Problem(
            408, "too-slow", f"the body did not come within {limit_s:g} s; send it at once", headers=CLOSE
        ) from None


def _too_large() -> Problem:
    return Problem(
        413,
        "too-large",
        "the body is larger than this service takes; see limits in /v1/config",
        headers=CLOSE,
    )


def replaying(body: bytes, receive: Receive) -> Receive:
    """Return a ``receive`` that gives the body at once, and then what else comes, such as the client's leaving."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return waiting.pop() if waiting else await receive()

    return replayed


def check_json(body: bytes, *, max_depth: int) -> None:
    """Refuse JSON that is nested too deep or has numbers of absurd length; broken JSON is left to the framework.

    Raises
    ------
    Problem
        400: what is wrong.
    """
    try:
        tree = json.loads(body, parse_int=_short, parse_float=_short, parse_constant=_short)
    except RecursionError:
        raise _too_deep(max_depth) from None
    except _LongNumberError:
        raise Problem(
            400, "bad-request", f"a number in the body has more than {MAX_NUMBER_CHARACTERS} characters"
        ) from None
    except ValueError:
        return
    waiting: list[tuple[object, int]] = [(tree, 1)]
    while waiting:
        node, depth = waiting.pop()
        if depth > max_depth:
            raise _too_deep(max_depth)
        if isinstance(node, dict):
            waiting += [(child, depth + 1) for child in node.values() if isinstance(child, dict | list)]
        elif isinstance(node, list):
            waiting += [(child, depth + 1) for child in node if isinstance(child, dict | list)]


def _too_deep(max_depth: int) -> Problem:
    return Problem(400, "too-deep", f"the body is nested deeper than {max_depth}")


class _LongNumberError(Exception):
    """A number of more characters than any value needs."""


def _short(text: str) -> float:
    if len(text) > MAX_NUMBER_CHARACTERS:
        raise _LongNumberError
    return 0.0
