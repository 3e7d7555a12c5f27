"""Values that routes take from a request: the service, the caller, and names that are checked before they are used."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Path, Query
from pydantic import Field
from starlette.requests import Request

from tensorbank.errors import InvalidInputError
from tensorbank_server.access import Principal
from tensorbank_server.documents import collection_id
from tensorbank_server.filters import (
    FilterBounds,
    Queryable,
    compile_filter,
    measure,
    parse_text,
    queryables,
)
from tensorbank_server.routes.etags import Freshness
from tensorbank_server.served_bank import Pinned
from tensorbank_server.service import Service

__all__ = [
    "Asker",
    "BankName",
    "SampleId",
    "Served",
    "Snapshot",
    "SnapshotVersion",
    "Source",
    "TableName",
    "base_url",
    "condition",
    "filter_names",
    "filter_tree",
    "freshness",
    "granted",
    "parse_bbox",
    "table_url",
]


# coroutines, since FastAPI calls what is none in a thread, which takes as long as finding a sample


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def _principal(request: Request) -> Principal:
    principal: Principal = request.scope["tensorbank.principal"]
    return principal


Served = Annotated[Service, Depends(_service)]
Asker = Annotated[Principal, Depends(_principal)]
BankName = Annotated[str, Path(description="Name of a bank.", max_length=63)]
TableName = Annotated[str, Path(description="Name of a table.", max_length=63)]
SampleId = Annotated[str, Path(description="Id of a sample.", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
Snapshot = Annotated[int, Field(ge=0, le=2**53)] | Annotated[str, Field(min_length=1, max_length=64)]
"""A version in a body: its number, a tag, or a time."""
SnapshotVersion = Annotated[
    str | None,
    Query(
        alias="snapshot",
        min_length=1,
        max_length=64,
        description="Version of the table: its number, a tag, or a time such as 2026-03-01 (UTC); the newest if not given.",
    ),
]


def granted(request: Request, action: str, **what: object) -> None:
    """Say what an answer grants, for the audit log. Without it the log has the operation and its parameters."""
    request.scope["tensorbank.audit"] = {"action": action, **what}


async def _source(
    request: Request,
    service: Served,
    asker: Asker,
    bank: BankName,
    table: TableName,
    snapshot: SnapshotVersion = None,
) -> Pinned:
    pinned = await service.pin(bank, table, snapshot, asker)
    request.scope["tensorbank.log"] = {"bank": bank, "snapshot": f"{table}@{pinned.version}"}
    return pinned


Source = Annotated[Pinned, Depends(_source)]


def base_url(request: Request, service: Service) -> str:
    """Return the address at which links begin: the configured one, else that of the request, whose host was checked."""
    return (service.settings.public_url or str(request.base_url)).rstrip("/")


def table_url(request: Request, service: Service, pinned: Pinned) -> str:
    """Return the URL of a table, with its snapshot, so that the content of a link stays the same."""
    return f"{base_url(request, service)}/v1/banks/{pinned.bank.name}/tables/{pinned.table}?snapshot={pinned.version}"


def filter_names(pinned: Pinned) -> dict[str, Queryable]:
    """Return the names that a filter over a table may use."""
    return queryables(pinned.schema, collection_id(pinned.bank.name, pinned.table))


def condition(service: Service, pinned: Pinned, given: Any) -> str | None:
    """Compile a filter, text or CQL2-JSON, to a condition on a table's samples; None where there is none.

    Raises
    ------
    InvalidInputError
        It cannot be used.
    """
    tree = filter_tree(service, given)
    return None if tree is None else compile_filter(tree, filter_names(pinned), filter_bounds(service))


def filter_tree(service: Service, given: Any) -> Any:
    """Return a filter, text or CQL2-JSON, as a tree of bounded size; None where there is none.

    Raises
    ------
    FilterError
        It is too large, or no CQL2.
    """
    if given is None or given == "":
        return None
    bounds = filter_bounds(service)
    if isinstance(given, str):
        return parse_text(given, bounds)
    measure(given, bounds)
    return given


def filter_bounds(service: Service) -> FilterBounds:
    """Return the limits of a filter's size in this service."""
    limits = service.limits
    return FilterBounds(
        limits.filter_bytes,
        limits.filter_depth,
        limits.filter_nodes,
        limits.filter_list_items,
        limits.filter_vertices,
    )


def parse_bbox(text: str) -> list[float]:
    """Parse west, south, east, north in degrees. West may be greater than east; heights, in a box of six, are left out.

    Raises
    ------
    InvalidInputError
        It is no box on Earth.
    """
    try:
        box = [float(part) for part in text.split(",", 6)]
        if len(box) == 6:
            box = [*box[:2], *box[3:5]]
        west, south, east, north = box
    except ValueError:
        box, west, south, east, north = [], 0.0, 1.0, 0.0, 0.0
    inside = all(abs(v) <= 180 for v in (west, east)) and -90 <= south <= north <= 90
    if not box or not inside:
        raise InvalidInputError("bbox is four numbers in degrees (six with heights): west,south,east,north")
    return box


def freshness(request: Request, service: Service, pinned: Pinned, representation: str) -> Freshness:
    """Return the identity of the answer to a request."""
    return Freshness.of(request, pinned, representation, open_access=service.settings.access == "open")
