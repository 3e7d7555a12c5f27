"""Banks, their tables and snapshots, and what filters of a table may name."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tensorbank_server.filters import queryables_document
from tensorbank_server.http import Problem
from tensorbank_server.routes.dependencies import (
    Asker,
    BankName,
    Served,
    Source,
    TableName,
    base_url,
    filter_names,
    freshness,
)
from tensorbank_server.served_bank import Pinned, ServedBank

__all__ = ["router"]

router = APIRouter(prefix="/v1/banks", tags=["banks"])
TABLE = "/{bank}/tables/{table}"


@router.get("", operation_id="listBanks")
async def list_banks(service: Served, asker: Asker) -> dict[str, object]:
    """List the banks that this caller may see."""
    seen = [b for name, b in service.banks.items() if asker.banks is None or name in asker.banks]
    return {"banks": [_bank_json(b) for b in seen]}


@router.get("/{bank}", operation_id="getBank")
async def get_bank(service: Served, asker: Asker, bank: BankName) -> dict[str, object]:
    """Return one bank with its tables."""
    found = service.bank(bank, asker)
    tables = await found.run(found.tables)
    return {**_bank_json(found), "tables": [{"name": t} for t in tables]}


def _bank_json(bank: ServedBank) -> dict[str, object]:
    s = bank.settings
    return {
        "name": bank.name,
        "title": s.title or bank.name,
        "description": s.description,
        "licence": s.licence,
        "access": bank.accesses(),
        "state": "ok" if bank.watch.problem is None else "unavailable",
    }


@router.get("/{bank}/tables", operation_id="listTables")
async def list_tables(service: Served, asker: Asker, bank: BankName) -> dict[str, object]:
    """List the tables of a bank."""
    found = service.bank(bank, asker)
    return {"tables": [{"name": t} for t in await found.run(found.tables)]}


@router.get(TABLE, operation_id="getTable")
async def get_table(request: Request, service: Served, source: Source) -> Response:
    """Return the modalities of a table at a snapshot."""
    fresh = freshness(request, service, source, "table")
    if fresh.is_known:
        return fresh.not_modified()
    return JSONResponse(
        {"name": source.table, "snapshot": source.version, **_modalities(source)}, headers=fresh.headers
    )


@router.get(TABLE + "/snapshots", operation_id="listSnapshots")
async def list_snapshots(
    service: Served, asker: Asker, bank: BankName, table: TableName
) -> dict[str, object]:
    """List the versions of a table, newest first."""
    pinned = await service.pin(bank, table, None, asker)
    return {"snapshots": await pinned.bank.run(_snapshots, pinned)}


@router.get(TABLE + "/snapshots/{version}", operation_id="getSnapshot")
async def get_snapshot(
    service: Served,
    asker: Asker,
    bank: BankName,
    table: TableName,
    version: Annotated[
        str, Path(min_length=1, max_length=64, description="Its number, a tag, or a time such as 2026-03-01.")
    ],
) -> dict[str, object]:
    """Return one version of a table."""
    pinned = await service.pin(bank, table, version, asker)
    for found in await pinned.bank.run(_snapshots, pinned):
        if found["snapshot"] == pinned.version:
            return found
    raise Problem(404, "unknown-snapshot", "the table has no such version; see its snapshots")


def _snapshots(pinned: Pinned) -> list[dict[str, object]]:
    """Return the versions of a table, newest first, each with its tags. Who made them is not told."""
    tags: dict[int, list[dict[str, str]]] = {}
    for tag in pinned.bank.tags(pinned.table, pinned.table_id):
        told = {"name": tag.name, "message": tag.message, "created": _as_utc(tag.created)}
        tags.setdefault(tag.version, []).append(told)
    return [
        {
            "snapshot": entry.version,
            "time": _as_utc(entry.when),
            "operation": entry.operation,
            "n_samples_added": entry.n_rows,
            "tags": tags.get(entry.version, []),
        }
        for entry in pinned.bank.bank.table(pinned.table).history()
    ]


def _as_utc(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")


@router.get(TABLE + "/schema", operation_id="getSchema")
async def get_schema(request: Request, service: Served, source: Source) -> Response:
    """Return the modalities of a table: bands, shapes, dtypes, classes, attributes."""
    fresh = freshness(request, service, source, "schema")
    if fresh.is_known:
        return fresh.not_modified()
    return JSONResponse({"snapshot": source.version, **_modalities(source)}, headers=fresh.headers)


def _modalities(source: Pinned) -> dict[str, object]:
    return {"modalities": [json.loads(m.to_json()) for m in source.schema]}


@router.get(TABLE + "/queryables", operation_id="getQueryables")
async def get_queryables(request: Request, service: Served, source: Source) -> Response:
    """Return the names that filters may use, as JSON Schema."""
    fresh = freshness(request, service, source, "queryables")
    if fresh.is_known:
        return fresh.not_modified()
    identity = f"{base_url(request, service)}{request.url.path}"
    document = queryables_document(filter_names(source), identity, source.table)
    return JSONResponse(document, headers=fresh.headers, media_type="application/schema+json")
