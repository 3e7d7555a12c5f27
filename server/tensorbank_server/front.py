"""The front of the service, an ASGI middleware: what every request passes, whatever it asks for.

Request number and trace, allowed hosts, who asks, rates, how many at once, a time limit until the answer begins and one for
clients that take no byte, headers of security, one line of the log, and a problem for what nobody else caught.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import MutableMapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tensorbank.errors import TensorBankError
from tensorbank_server.metrics import Metrics
from tensorbank_server.problems import Problem, as_problem, internal, of_status, respond
from tensorbank_server.rates import Concurrency, Rates
from tensorbank_server.settings import Settings
from tensorbank_server.tokens import Authenticator

__all__ = ["Front", "security_headers"]

_LOG = logging.getLogger("tensorbank_server.access")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""Answered to everybody, at any load, whatever name they call the host by: probes know an address only."""
PAGE_PATHS = ("/", "/docs", "/openapi.json", "/static/")
"""Answered to everybody without a key: they are the same for all, and say nothing of a bank."""


@dataclass
class _Told:
    """What the log says of a request."""

    request_id: str
    trace_id: str
    started_s: float = field(default_factory=time.perf_counter)
    status: int = 0
    code: str | None = None
    n_bytes: int = 0


class Front:
    """See the module. One an app; its counters are those of one event loop."""

    def __init__(
        self, app: ASGIApp, settings: Settings, metrics: Metrics, authenticator: Authenticator
    ) -> None:
        self.app = app
        self.settings = settings
        self.metrics = metrics
        self.authenticator = authenticator
        limits = settings.limits
        self.concurrency = Concurrency(limits.max_concurrent, limits.max_concurrent_per_key)
        self.rates = Rates("requests", limits.requests_per_minute)
        self.headers = security_headers(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        told = _Told(_number(headers.get("x-request-id")), _trace(headers.get("traceparent")))
        scope["tensorbank.request_id"] = told.request_id
        is_head = scope["method"] == "HEAD"
        telling = self._telling(scope, _without_body(send) if is_head else send, told)
        if is_head:  # every GET has its HEAD
            scope = {**scope, "method": "GET"}
        self.metrics.running.inc()
        try:
            try:
                await self._serve(scope, headers, receive, telling)
            except HTTPException as error:
                await self._refuse(scope, receive, telling, told, of_status(error))
            except Problem as problem:
                await self._refuse(scope, receive, telling, told, problem)
            except TensorBankError as error:
                _LOG.error("%s", error, extra={"request_id": told.request_id})
                await self._refuse(scope, receive, telling, told, as_problem(error))
            except (ConnectionError, _StalledError):
                told.code = "client-gone"
            except Exception:  # noqa: BLE001 - the edge of the process: nobody else would answer
                _LOG.exception("request failed", extra={"request_id": told.request_id})
                await self._refuse(scope, receive, telling, told, internal())
        finally:
            self.metrics.running.dec()
            self._log(scope, told)

    async def _serve(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        if scope["path"] in OPEN_PATHS or _is_page(scope["path"]):
            await self.app(scope, receive, send)
            return
        self._check_host(headers)
        limits = self.settings.limits
        receive = _bounded(receive, headers, limits.body_bytes)
        async with AsyncExitStack() as stack:
            limit = await stack.enter_async_context(_time_limit(limits.request_s))
            principal = await self.authenticator.principal(headers, scope.get("client"))
            scope["tensorbank.principal"] = principal
            scope["tensorbank.allowance"] = self.rates.spend(principal.id)
            stack.enter_context(self.concurrency.slot(principal.id))

            async def until_it_begins(message: Message) -> None:
                if message["type"] == "http.response.start":
                    limit.reschedule(None)
                await send(message)

            await self.app(scope, receive, until_it_begins)

    def _telling(self, scope: Scope, send: Send, told: _Told) -> Send:
        """``send`` that adds headers, counts, and gives up on a client that takes nothing."""

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                told.status = message["status"]
                self._add_headers(scope, message, told)
            elif message["type"] == "http.response.body":
                told.n_bytes += len(message.get("body", b""))
            try:
                async with asyncio.timeout(self.settings.limits.send_stall_s):
                    await send(message)
            except TimeoutError:
                raise _StalledError from None

        return tell

    def _add_headers(self, scope: Scope, message: MutableMapping[str, Any], told: _Told) -> None:
        headers = MutableHeaders(raw=message.setdefault("headers", []))
        for name, value in self.headers.items():
            headers.setdefault(name, value)
        headers["X-Request-Id"] = told.request_id
        headers["traceparent"] = f"00-{told.trace_id}-{secrets.token_hex(8)}-01"
        if (allowance := scope.get("tensorbank.allowance")) is not None:
            for name, value in allowance.headers().items():
                headers.setdefault(name, value)
        told.code = headers.get("x-error-code")

    def _check_host(self, headers: Headers) -> None:
        host = headers.get("host", "")
        name = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
        allowed = self.settings.allowed_hosts
        if len(headers.getlist("host")) != 1 or not any(_fits(name.lower(), a.lower()) for a in allowed):
            raise Problem(400, "unknown-host", "this service is not called by this name")

    async def _refuse(
        self, scope: Scope, receive: Receive, send: Send, told: _Told, problem: Problem
    ) -> None:
        if told.status:  # the answer has begun: cutting it is all that is left
            raise ConnectionAbortedError(str(problem))
        if problem.status in (401, 429, 503):
            self.metrics.rejected.labels(problem.code).inc()
        await respond(problem, told.request_id)(scope, receive, send)

    def _log(self, scope: Scope, told: _Told) -> None:
        taken_s = time.perf_counter() - told.started_s
        route = getattr(scope.get("route"), "path", "none")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self.metrics.request_s.labels(method, route, str(told.status)).observe(taken_s)
        self.metrics.sent_bytes.labels(route).inc(told.n_bytes)
        principal = scope.get("tensorbank.principal")
        _LOG.info(
            "%s %s",
            method,
            route,
            extra={
                "request_id": told.request_id,
                "trace_id": told.trace_id,
                "principal": principal and principal.id,
                "status": told.status,
                "code": told.code,
                "n_bytes": told.n_bytes,
                "duration_ms": round(taken_s * 1e3, 2),
                **scope.get("tensorbank.log", {}),
            },
        )


def _bounded(receive: Receive, headers: Headers, max_bytes: int) -> Receive:
    """``receive`` that refuses bodies of more bytes, whether they say so beforehand or not."""
    if int(headers.get("content-length", "0")) > max_bytes:  # the server has checked that it is a number
        raise HTTPException(413)
    n_bytes = 0

    async def bounded() -> Message:
        nonlocal n_bytes
        message = await receive()
        n_bytes += len(message.get("body", b""))
        if n_bytes > max_bytes:
            raise HTTPException(413)
        return message

    return bounded


def _without_body(send: Send) -> Send:
    """``send`` that keeps bodies to itself."""

    async def head(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return head


class _StalledError(Exception):
    """The client takes no byte."""


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class _time_limit:  # noqa: N801 - reads as the function that it stands for
    """``asyncio.timeout`` whose end is a problem."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._timeout = asyncio.timeout(limit_s)

    async def __aenter__(self) -> asyncio.Timeout:
        return await self._timeout.__aenter__()

    async def __aexit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            raise Problem(
                504,
                "time-limit",
                f"not answered within {self._limit_s:g} s; ask for less",
                headers={"Retry-After": "5"},
            ) from None


def security_headers(settings: Settings) -> dict[str, str]:
    """Headers of every answer."""
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


def _is_page(path: str) -> bool:
    return path in PAGE_PATHS or path.startswith(PAGE_PATHS[-1])


def _number(given: str | None) -> str:
    return given if given and _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)


def _trace(given: str | None) -> str:
    found = _TRACEPARENT.fullmatch(given or "")
    return found[1] if found and found[1] != "0" * 32 else secrets.token_hex(16)


def _fits(name: str, allowed: str) -> bool:
    return allowed == "*" or name == allowed or (allowed.startswith("*.") and name.endswith(allowed[1:]))
