"""Checks of a request's address: the sizes of path, query and headers, and the name by which the service is called."""

from __future__ import annotations

import re
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import Scope

from tensorbank_server.http import Problem
from tensorbank_server.limits import Limits

__all__ = ["check_address", "check_host"]

MAX_SEGMENT_BYTES = 1_024
"""The most bytes between two slashes of a path, percent-encoded. The longest name is an id of 128 characters."""
MAX_HOST_CHARACTERS = 300


def check_address(scope: Scope, limits: Limits) -> None:
    """Refuse a path, query or headers longer than anything this service has, before a pattern is matched with them.

    Raises
    ------
    Problem
        400, 404, 414 or 431.
    """
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    query: bytes = scope["query_string"]
    if len(path) > limits.path_bytes or len(query) > limits.query_bytes:
        raise Problem(414, "address-too-long", "the path or the query is longer than this service takes")
    if sum(len(name) + len(value) for name, value in scope["headers"]) > limits.header_bytes:
        raise Problem(431, "headers-too-large", "the headers are larger than this service takes")
    if max(map(len, path.split(b"/"))) > MAX_SEGMENT_BYTES:
        raise Problem(404, "not-found", "there is nothing at this address")
    if query.count(b"&") >= limits.query_parameters:
        raise Problem(400, "bad-request", f"a query has at most {limits.query_parameters} parameters")


def check_host(headers: Headers, allowed: Sequence[str]) -> None:
    """Refuse a request that calls the service by a name that is none of its own.

    Raises
    ------
    Problem
        400.
    """
    host = headers.get("host", "")[:MAX_HOST_CHARACTERS]
    name = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
    if len(headers.getlist("host")) != 1 or not any(_fits(name.lower(), a.lower()) for a in allowed):
        raise Problem(
            400,
            "unknown-host",
            "this service does not answer to this host name; its operator can allow it (--allowed-host)",
        )


def _fits(name: str, allowed: str) -> bool:
    return allowed == "*" or name == allowed or (allowed.startswith("*.") and name.endswith(allowed[1:]))
