"""Ranges of HTTP (RFC 9110, 14), one at a time. Pure. HTTP's inclusive end occurs here and nowhere else."""

from __future__ import annotations

import re
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from tensorbank_server.http.negotiation import may_resume
from tensorbank_server.http.problems import Problem

__all__ = ["content_range", "parse_range", "whole_or_range"]

_RANGE = re.compile(r"bytes=(\d{0,64})-(\d{0,64})", re.IGNORECASE)
_IGNORED = re.compile(r"(?!bytes=)[^=]*=.*|bytes=[\d\s-]+(,[\d\s-]*)+", re.IGNORECASE)
"""The headers that are answered by the whole: another unit (RFC 9110, 14.2), and more than one range (15.3.7)."""


def parse_range(header: str | None, n_bytes: int) -> tuple[int, int] | None:
    """Parse the range ``[start, end)`` of an object of ``n_bytes``; None if the whole of it is to be sent.

    Raises
    ------
    Problem
        416: it is no range, or none of the object.
    """
    if header is None or _IGNORED.fullmatch(header.strip()):
        return None
    wrong = Problem(
        416, "range", "one range of the object is needed", headers={"Content-Range": f"bytes */{n_bytes}"}
    )
    found = _RANGE.fullmatch(header.strip())
    if found is None or not (found[1] or found[2]):
        raise wrong
    if not found[1]:
        start, end = max(0, n_bytes - int(found[2])), n_bytes
    else:
        start, end = int(found[1]), min(int(found[2]) + 1, n_bytes) if found[2] else n_bytes
    if not start < end:
        raise wrong
    return start, end


def whole_or_range(request: Request, body: bytes, headers: Mapping[str, str], media_type: str) -> Response:
    """Answer with a file, or with the range of it that the request asks for.

    Raises
    ------
    Problem
        As :func:`parse_range`.
    """
    told = {**headers, "Accept-Ranges": "bytes"}
    resumes = may_resume(request.headers.get("if-range"), headers.get("ETag", ""))
    asked = parse_range(request.headers.get("range"), len(body)) if resumes else None
    if asked is None:
        return Response(body, media_type=media_type, headers=told)
    start, end = asked
    told["Content-Range"] = content_range(start, end, len(body))
    return Response(body[start:end], 206, media_type=media_type, headers=told)


def content_range(start: int, end: int, n_bytes: int) -> str:
    """Return the ``Content-Range`` header of an answer."""
    return f"bytes {start}-{end - 1}/{n_bytes}"
