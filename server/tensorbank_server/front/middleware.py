"""The front of the service: an ASGI middleware that every request passes.

Request number and trace, allowed hosts, who asks, rates, how many at once, a time limit until the answer begins and one for
clients that take no byte, headers of security, one line of the log, and a problem for what nobody else caught.
"""

# One middleware rather than a stack of Starlette's: its steps depend on each other (the caller decides the rate, the body is
# read before a place is taken, the audit line is written before the first byte), and each refusal, also of a host, must be a
# problem document with a number that the log has.

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tensorbank.errors import TensorBankError
from tensorbank_server.access import PLACE, Authenticator, Concurrency, RateStore, SharedRates
from tensorbank_server.front.addresses import check_address, check_host
from tensorbank_server.front.answer_headers import answer_condition, make_private, security_headers
from tensorbank_server.front.bodies import check_json, read_body, replaying
from tensorbank_server.http import (
    Problem,
    as_problem,
    disk_problem,
    ending,
    internal,
    of_status,
    respond,
)
from tensorbank_server.monitoring import AuditLog, Metrics, Traces
from tensorbank_server.settings import Settings

__all__ = ["Front"]

_LOG = logging.getLogger("tensorbank_server.access")
AUDITED = ("/v1/banks/", "/v1/plans/", "/stac/search", "/stac/collections/")
"""The beginnings of the paths at which data are given out."""
PIECE_BYTES = 256 << 10
"""The bytes of an answer that a client has to take within ``send_stall_s``."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-[0-9a-f]{16}-([0-9a-f]{2})")
OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""The paths that are answered to everybody, at any load and by any host name: a probe knows an address only."""
PAGE_PATHS = ("/", "/docs", "/openapi.json", "/static/")
"""The paths that are answered without a key: they are the same for everybody and say nothing of a bank."""


@dataclass
class _Told:
    """The facts of a request that its line in the log holds."""

    request_id: str
    trace_id: str
    trace_flags: str
    span_id: str
    started_s: float = field(default_factory=time.perf_counter)
    status: int = 0
    code: str | None = None
    n_bytes: int = 0


class Front:
    """The middleware that every request passes, as the module describes it. One an app, for one event loop."""

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        metrics: Metrics,
        authenticator: Authenticator,
        audit: AuditLog,
        is_ending: Callable[[], bool],
        rate_store: RateStore | None = None,
        traces: Traces | None = None,
    ) -> None:
        self.app = app
        self.audit = audit
        self.traces = Traces() if traces is None else traces
        self.is_ending = is_ending
        self.settings = settings
        self.metrics = metrics
        self.authenticator = authenticator
        limits = settings.limits
        self.concurrency = Concurrency(limits.max_concurrent, limits.max_concurrent_per_key)
        self.open = Concurrency(limits.max_open, limits.max_open_per_key)
        self.open_of_addresses = Concurrency(limits.max_open, limits.max_open_per_address)
        self.rates = SharedRates("requests", limits.requests_per_minute, rate_store, limits.n_replicas)
        self.headers = security_headers(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        parent = headers.get("traceparent")
        told = _Told(_number(headers.get("x-request-id")), *_trace(parent), secrets.token_hex(8))
        span = self.traces.begin(_method(scope), parent)
        if span is not None:
            told.trace_id = f"{span.get_span_context().trace_id:032x}"
            told.span_id = f"{span.get_span_context().span_id:016x}"
            told.trace_flags = f"{span.get_span_context().trace_flags:02x}"
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
            except ConnectionError:
                told.code = "client-gone"
            except OSError as error:
                _LOG.exception("request failed", extra={"request_id": told.request_id})
                await self._refuse(scope, receive, telling, told, disk_problem(error) or internal())
            except asyncio.CancelledError:  # the grace of a service that ends is over
                if not told.status:
                    await self._refuse(scope, receive, telling, told, ending())
                raise
            except Exception:  # noqa: BLE001 - the edge of the process: nobody else would answer
                _LOG.exception("request failed", extra={"request_id": told.request_id})
                await self._refuse(scope, receive, telling, told, internal())
        finally:
            self.metrics.running.dec()
            self._log(scope, told)
            if span is not None:
                self.traces.end(span, _method(scope), _route(scope), told.status, told.code, told.request_id)

    async def _serve(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        if scope["path"] in OPEN_PATHS or _is_page(scope["path"]):
            await self.app(scope, receive, send)
            return
        if self.is_ending():
            raise ending()
        limits = self.settings.limits
        check_address(scope, limits)
        check_host(headers, self.settings.allowed_hosts)
        async with _time_limit(limits.request_s):
            principal = await self.authenticator.principal(headers, scope.get("client"))
        scope["tensorbank.principal"] = principal
        scope["tensorbank.allowance"] = await self.rates.spend(principal.id)
        with self.open.slot(principal.id), self.open_of_addresses.slot(_address(scope)):
            body = await read_body(receive, headers, max_bytes=limits.body_bytes, limit_s=limits.body_s)
            if body and "json" in headers.get("content-type", "json"):
                check_json(body, max_depth=limits.body_depth)
            # a place is taken when the request is there, and left while its client reads: slow clients hold none
            with self.concurrency.slot(principal.id) as place:
                async with _time_limit(limits.request_s) as limit:

                    async def until_it_begins(message: Message) -> None:
                        if message["type"] == "http.response.start":
                            limit.reschedule(None)
                            self._write_audit(scope, message["status"], principal.id)
                            await send(message)
                            return
                        place.leave()
                        try:
                            await send(message)
                        finally:
                            if message.get("more_body", False):
                                place.come_back()

                    PLACE.set(place)
                    await self.app(scope, replaying(body, receive), until_it_begins)

    def _telling(self, scope: Scope, send: Send, told: _Told) -> Send:
        """Return a ``send`` that adds headers, counts, and gives up on a client that does not read."""

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._add_headers(scope, message, told)
                answer_condition(scope, message)
                told.status = message["status"]
            elif told.status == 304:
                message = {**message, "body": b""}
            elif message["type"] == "http.response.body":
                told.n_bytes += len(message.get("body", b""))
            for piece in _pieces(message):
                try:
                    async with asyncio.timeout(self.settings.limits.send_stall_s):
                        await send(piece)
                except TimeoutError:
                    raise ConnectionAbortedError("the client does not read") from None

        return tell

    def _add_headers(self, scope: Scope, message: MutableMapping[str, Any], told: _Told) -> None:
        headers = MutableHeaders(raw=message.setdefault("headers", []))
        if self.settings.access == "keys" and scope.get("path") not in OPEN_PATHS:
            make_private(headers)
        for name, value in self.headers.items():
            headers.setdefault(name, value)
        headers["X-Request-Id"] = told.request_id
        headers["traceparent"] = f"00-{told.trace_id}-{told.span_id}-{told.trace_flags}"
        if (allowance := scope.get("tensorbank.allowance")) is not None:
            for name, value in allowance.headers().items():
                headers.setdefault(name, value)
        told.code = headers.get("x-error-code")

    async def _refuse(
        self, scope: Scope, receive: Receive, send: Send, told: _Told, problem: Problem
    ) -> None:
        if told.status:  # the answer has begun: cutting it is all that is left
            raise ConnectionAbortedError(str(problem))
        if problem.status in (401, 429, 503):
            self.metrics.rejected.labels(problem.code).inc()
        await respond(problem, told.request_id)(scope, receive, send)

    def _write_audit(self, scope: Scope, status: int, principal: str) -> None:
        """Write to the audit log before a byte of an answer goes: an answer that cannot be written down is not given."""
        what = scope.get("tensorbank.audit")
        if what is None:
            if status >= 300 or not scope["path"].startswith(AUDITED):
                return
            operation = getattr(scope.get("route"), "operation_id", None) or "other"
            what = {"action": "read", "operation": operation, **scope.get("path_params", {})}
        number = scope["tensorbank.request_id"]
        self.audit.write(
            **what, principal=principal, client=_address(scope), status=status, request_id=number
        )

    def _log(self, scope: Scope, told: _Told) -> None:
        taken_s = time.perf_counter() - told.started_s
        route, method = _route(scope), _method(scope)
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
                "client": _address(scope),
                "status": told.status,
                "code": told.code,
                "n_bytes": told.n_bytes,
                "duration_ms": round(taken_s * 1e3, 2),
                **scope.get("tensorbank.log", {}),
            },
        )


def _route(scope: Scope) -> str:
    return str(getattr(scope.get("route"), "path", "none"))


def _method(scope: Scope) -> str:
    return str(scope["method"]) if scope["method"] in _METHODS else "other"


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return client[0] if client else "local"


def _pieces(message: Message) -> Iterator[Message]:
    """Yield a message with its body in pieces. Each has to be taken in time, so a client that reads by drops is dropped, too."""
    body = message.get("body", b"")
    if message["type"] != "http.response.body" or len(body) <= PIECE_BYTES:
        yield message
        return
    view = memoryview(body)
    for at in range(0, len(body), PIECE_BYTES):
        is_last = at + PIECE_BYTES >= len(body)
        more = not is_last or message.get("more_body", False)
        yield {**message, "body": view[at : at + PIECE_BYTES], "more_body": more}


def _without_body(send: Send) -> Send:
    """Return a ``send`` that sends no bodies."""

    async def head(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return head


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class _time_limit:  # noqa: N801 - reads as the function that it stands for
    """An ``asyncio.timeout`` whose end is a problem."""

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


def _is_page(path: str) -> bool:
    return path in PAGE_PATHS or path.startswith(PAGE_PATHS[-1])


def _number(given: str | None) -> str:
    return given if given and _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)


def _trace(given: str | None) -> tuple[str, str]:
    """Return the id of a request's trace and its flags: those of the caller's, or of a new one, of which nothing is recorded."""
    found = _TRACEPARENT.fullmatch(given or "")
    if found is None or found[1] == "0" * 32:
        return secrets.token_hex(16), "00"
    return found[1], found[2]
