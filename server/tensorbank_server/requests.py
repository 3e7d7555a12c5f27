"""What routes take from a request: the service, who asks, and names that are checked before they are used."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Query
from starlette.requests import Request

from tensorbank_server.caching import Freshness
from tensorbank_server.keys import Principal
from tensorbank_server.service import Pinned, Service

__all__ = ["Asker", "BankName", "SampleId", "Served", "SnapshotVersion", "Source", "TableName"]


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _principal(request: Request) -> Principal:
    principal: Principal = request.scope["tensorbank.principal"]
    return principal


Served = Annotated[Service, Depends(_service)]
Asker = Annotated[Principal, Depends(_principal)]
BankName = Annotated[str, Path(description="Name of a bank.", max_length=63)]
TableName = Annotated[str, Path(description="Name of a table.", max_length=63)]
SampleId = Annotated[str, Path(description="Id of a sample.", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
SnapshotVersion = Annotated[
    int | None,
    Query(alias="snapshot", ge=0, le=2**53, description="Version of the table; the newest if not given."),
]


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


def freshness(request: Request, service: Service, pinned: Pinned, representation: str) -> Freshness:
    """Identity of the answer to a request."""
    return Freshness.of(request, pinned, representation, open_access=service.settings.access == "open")
