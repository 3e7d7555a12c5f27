"""Errors on the wire: RFC 9457 problem documents, and the one table from errors to statuses.

A problem says what the caller can do about it and nothing of the inside: no SQL, path, bucket or text of a library. What is
unknown and what is forbidden look the same.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from tensorbank.errors import (
    ConflictError,
    ErrorKind,
    FormatError,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    StorageError,
    TensorBankError,
)
from tensorbank_server.filters.literals import FilterError

__all__ = [
    "MEDIA_TYPE",
    "Problem",
    "add_handlers",
    "as_problem",
    "ending",
    "internal",
    "of_status",
    "respond",
]

MEDIA_TYPE = "application/problem+json"
TYPE_BASE = "https://tensorbank.dev/problems/"
"""The beginning of the URIs that name kinds of problems; they need not resolve."""

MAX_ERRORS = 10
MAX_DETAIL = 500
_LOG = logging.getLogger(__name__)


@dataclass
class Problem(Exception):  # noqa: N818 - the word of RFC 9457
    """An answer other than success.

    Parameters
    ----------
    status
        Status of HTTP.
    code
        Stable and kebab-case, for programs.
    detail
        One sentence for people; may be shown to the caller as it is.
    errors
        Errors by their places, as JSON Pointers into the request.
    """

    status: int
    code: str
    detail: str
    errors: Sequence[Mapping[str, str]] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.status} {self.code}: {self.detail}"

    def document(self, instance: str) -> dict[str, object]:
        """Return the problem as JSON; ``instance`` names the request."""
        found: dict[str, object] = {
            "type": TYPE_BASE + self.code,
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail[:MAX_DETAIL],
            "instance": f"urn:tensorbank:request:{instance}",
            "code": self.code,
        }
        if self.errors:
            found["errors"] = [
                {name: text[:MAX_DETAIL] for name, text in e.items()} for e in list(self.errors)[:MAX_ERRORS]
            ]
        return found | dict(self.extra)


def respond(problem: Problem, instance: str) -> JSONResponse:
    """Return the response that tells a problem."""
    headers = {"Cache-Control": "no-store", "X-Error-Code": problem.code, **problem.headers}
    return JSONResponse(problem.document(instance), problem.status, headers=headers, media_type=MEDIA_TYPE)


_OF_STORAGE = frozenset({ErrorKind.NO_OBJECT, ErrorKind.NO_BUCKET, ErrorKind.NO_FOLDER, ErrorKind.NOT_FOUND})
"""The kinds of errors about a missing thing that the caller did not name: the operator's to mend."""


_OF_DISK = frozenset({ErrorKind.DISK_FULL, ErrorKind.READ_ONLY, ErrorKind.DISK})


def as_problem(error: TensorBankError) -> Problem:
    """Translate an error of the core into what the caller is told."""
    if isinstance(error, NotFoundError):
        if error.kind == ErrorKind.UNKNOWN_TABLE:  # its words have the address of the bank
            return Problem(404, error.kind, "there is no such table; see /v1/banks")
        if error.kind in _OF_STORAGE:
            return Problem(503, "storage", "the bank cannot be read now", headers={"Retry-After": "5"})
        return Problem(404, error.kind, str(error))
    if isinstance(error, FilterError):
        what = error.what
        return Problem(
            400, "filter", f"the filter cannot be used: {what}", [{"pointer": error.pointer, "detail": what}]
        )
    if isinstance(error, InvalidInputError):
        detail = (
            str(error) if error.kind == ErrorKind.INVALID_INPUT else "the request cannot be answered as it is"
        )
        return Problem(400, error.kind, detail)
    if isinstance(error, ConflictError):
        return Problem(409, error.kind, "another writer was first; repeat the request")
    if isinstance(error, StorageError) and error.kind in _OF_DISK:
        return Problem(
            507,
            "storage-full" if error.kind == ErrorKind.DISK_FULL else "disk",
            "the disk of the service, or of the bank, cannot be written; its operator has been told",
            headers={"Retry-After": "30"},
        )
    if isinstance(error, StorageError):
        wait_s = max(1, round(error.retry_after_s or 2))
        return Problem(
            503,
            "storage",
            "the object store does not answer as it should",
            headers={"Retry-After": str(wait_s)},
        )
    if isinstance(error, IntegrityError | FormatError):
        return Problem(500, error.kind, "stored data is damaged; the operator finds the object in the log")
    return internal()


def ending() -> Problem:
    """Return the problem for requests that come, or still run, when the service ends."""
    return Problem(
        503,
        "ending",
        "the service is being stopped; ask another, or come again",
        headers={"Retry-After": "5", "Connection": "close"},
    )


def internal() -> Problem:
    """Return the problem for an error that is our fault."""
    return Problem(500, "internal", "the request failed; the operator finds it in the log by its number")


def add_handlers(app: FastAPI) -> None:
    """Make every error of an app a problem, those of the frameworks too."""
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(TensorBankError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)


def request_id(request: Request) -> str:
    """Return the number of a request, as its log and its answer have it."""
    return str(request.scope.get("tensorbank.request_id", "-"))


async def _on_problem(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Problem)
    return respond(error, request_id(request))


async def _on_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, TensorBankError)
    problem = as_problem(error)
    if problem.status >= 500:
        _LOG.error("%s", error, exc_info=error, extra={"request_id": request_id(request)})
    return respond(problem, request_id(request))


async def _on_validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    errors = [
        {"pointer": _pointer(e["loc"]), "detail": str(e["msg"])[:200], "code": str(e["type"])}
        for e in error.errors()
    ]
    # OGC API Features and STAC want 400 where the rest of the service says 422
    status = 400 if request.url.path.startswith("/stac") else 422
    problem = Problem(status, "invalid-request", "the request is not of the documented form", errors)
    return respond(problem, request_id(request))


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return respond(of_status(error), request_id(request))


def of_status(error: HTTPException) -> Problem:
    """Translate a refusal of the framework into what the caller is told."""
    known = {
        404: ("not-found", "there is nothing at this address"),
        405: ("method-not-allowed", "this address does not take this method"),
        413: ("too-large", "the body is larger than this service takes; see limits in /v1/config"),
        400: ("bad-request", "the request cannot be read"),
    }
    code, detail = known.get(error.status_code, ("http", HTTPStatus(error.status_code).phrase))
    return Problem(error.status_code, code, detail, headers=dict(error.headers or {}))


def _pointer(place: Sequence[int | str]) -> str:
    return "/" + "/".join(str(p).replace("~", "~0").replace("/", "~1") for p in place)
