"""Headers of answers: security, caches that are shared, and conditional requests."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import Scope

from tensorbank_server.http import has_current
from tensorbank_server.settings import Settings

__all__ = ["answer_condition", "make_private", "security_headers"]


def security_headers(settings: Settings) -> dict[str, str]:
    """Return the headers of every answer."""
    policy = {
        "default-src": ["'none'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "img-src": ["'self'", "blob:", "data:"],
        "connect-src": ["'self'", *settings.connect_sources],
        "worker-src": ["'self'"],
        "base-uri": ["'none'"],
        "frame-ancestors": list(settings.frame_ancestors) or ["'none'"],
        "form-action": ["'self'"],
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {' '.join(v)}" for name, v in policy.items()),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    }


def answer_condition(scope: Scope, message: MutableMapping[str, Any]) -> None:
    """Turn a found answer into 304 where the client has it (RFC 9110, 13.1.2), for routes that cannot know before."""
    if message["status"] != 200 or scope["method"] not in ("GET", "HEAD"):
        return
    headers, asked = MutableHeaders(raw=message["headers"]), Headers(scope=scope).get("if-none-match")
    etag = headers.get("etag")
    if asked and etag and has_current(asked, etag):
        message["status"] = 304
        for name in ("content-length", "content-type", "content-disposition", "accept-ranges"):
            del headers[name]


def make_private(headers: MutableHeaders) -> None:
    """Say that an answer is for one caller: no shared cache may give it to another."""
    control = headers.get("cache-control", "")
    if "private" not in control and "no-store" not in control:
        headers["Cache-Control"] = f"private, {control or 'no-cache'}".replace("public, ", "")
    if "authorization" not in headers.get("vary", "").lower():
        headers.add_vary_header("Authorization")
