"""Banks, tables, snapshots, and what a table holds."""

from __future__ import annotations

import json
from typing import Annotated, Any

import pyarrow as pa
from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tensorbank.catalog import SnapshotInfo
from tensorbank_server import rows as row_json
from tensorbank_server.jobs import Describe, Rows
from tensorbank_server.problems import Problem
from tensorbank_server.requests import Asker, BankName, Served, Source, TableName, freshness
from tensorbank_server.service import Pinned, ServedBank, Service

__all__ = ["router"]

router = APIRouter(prefix="/v1/banks", tags=["banks"])
TABLE = "/{bank}/tables/{table}"


@router.get("", operation_id="listBanks", name="listBanks")
async def list_banks(service: Served, asker: Asker) -> dict[str, Any]:
    """Banks that this caller may see."""
    seen = [b for name, b in service.banks.items() if asker.banks is None or name in asker.banks]
    return {"banks": [_bank_json(b) for b in seen]}


@router.get("/{bank}", operation_id="getBank", name="getBank")
async def get_bank(service: Served, asker: Asker, bank: BankName) -> dict[str, Any]:
    """One bank with its tables."""
    found = service.bank(bank, asker)
    tables = await service.offload(found.tables)
    return {**_bank_json(found), "tables": [{"name": t} for t in tables]}


def _bank_json(bank: ServedBank) -> dict[str, Any]:
    s = bank.settings
    return {
        "name": bank.name,
        "title": s.title or bank.name,
        "description": s.description,
        "licence": s.licence,
        "access": bank.accesses(),
    }


@router.get("/{bank}/tables", operation_id="listTables", name="listTables")
async def list_tables(service: Served, asker: Asker, bank: BankName) -> dict[str, Any]:
    """Tables of a bank."""
    return {"tables": [{"name": t} for t in await service.offload(service.bank(bank, asker).tables)]}


@router.get(TABLE, operation_id="getTable", name="getTable")
async def get_table(request: Request, service: Served, source: Source) -> Response:
    """A table at a snapshot: modalities and counts."""
    fresh = freshness(request, service, source, "table")
    if fresh.is_known:
        return fresh.not_modified()
    return JSONResponse(
        {"name": source.table, "snapshot": source.version, **_modalities(source)}, headers=fresh.headers
    )


@router.get(TABLE + "/snapshots", operation_id="listSnapshots", name="listSnapshots")
async def list_snapshots(service: Served, asker: Asker, bank: BankName, table: TableName) -> dict[str, Any]:
    """Versions of a table, newest first."""
    pinned = await service.pin(bank, table, None, asker)
    history = await service.offload(pinned.bank.bank.table(table).history)
    return {"snapshots": [_snapshot_json(e) for e in history]}


@router.get(TABLE + "/snapshots/{version}", operation_id="getSnapshot", name="getSnapshot")
async def get_snapshot(
    service: Served, asker: Asker, bank: BankName, table: TableName, version: int
) -> dict[str, Any]:
    """One version of a table."""
    pinned = await service.pin(bank, table, None, asker)
    for entry in await service.offload(pinned.bank.bank.table(table).history):
        if entry.version == version:
            return _snapshot_json(entry)
    raise Problem(404, "unknown-snapshot", "the table has no such version; see its snapshots")


def _snapshot_json(entry: SnapshotInfo) -> dict[str, Any]:
    return {
        "snapshot": entry.version,
        "time": entry.when.isoformat().replace("+00:00", "Z"),
        "operation": entry.operation,
        "n_samples_added": entry.n_rows,
    }


@router.get(TABLE + "/schema", operation_id="getSchema", name="getSchema")
async def get_schema(request: Request, service: Served, source: Source) -> Response:
    """Modalities: bands, shapes, dtypes, classes, attributes."""
    fresh = freshness(request, service, source, "schema")
    if fresh.is_known:
        return fresh.not_modified()
    return JSONResponse({"snapshot": source.version, **_modalities(source)}, headers=fresh.headers)


def _modalities(source: Pinned) -> dict[str, Any]:
    return {"modalities": [json.loads(m.to_json()) for m in source.schema]}


@router.get(TABLE + "/size", operation_id="getSize", name="getSize")
async def get_size(request: Request, service: Served, asker: Asker, source: Source) -> Response:
    """Samples, shards and bytes."""
    return await _described(request, service, asker, source, "size")


@router.get(TABLE + "/statistics", operation_id="getStatistics", name="getStatistics")
async def get_statistics(request: Request, service: Served, asker: Asker, source: Source) -> Response:
    """Statistics of every modality over all samples, from the roll-ups of shards: no pixel is read."""
    return await _described(request, service, asker, source, "statistics")


async def _described(request: Request, service: Service, asker: Any, source: Pinned, what: str) -> Response:
    fresh = freshness(request, service, source, what)
    if fresh.is_known:
        return fresh.not_modified()
    found = json.loads(await service.query(Describe(source.bank.name, source.table, source.version), asker))
    content = {"snapshot": source.version, what: row_json.plain(found[what])}
    return JSONResponse(content, headers=fresh.headers)


@router.get(TABLE + "/first-rows", operation_id="getFirstRows", name="getFirstRows")
async def get_first_rows(request: Request, service: Served, asker: Asker, source: Source) -> Response:
    """The first rows, to look at."""
    return await _rows(request, service, asker, source, 0, service.limits.page_rows)


@router.get(TABLE + "/rows", operation_id="getRows", name="getRows")
async def get_rows(
    request: Request,
    service: Served,
    asker: Asker,
    source: Source,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    length: Annotated[int, Query(ge=1, le=1_000)] = 100,
) -> Response:
    """Some rows by number, in the order of ids; to walk through a whole table, make a plan."""
    return await _rows(request, service, asker, source, offset, min(length, service.limits.page_rows))


async def _rows(
    request: Request, service: Service, asker: Any, source: Pinned, offset: int, length: int
) -> Response:
    fresh = freshness(request, service, source, "rows")
    if fresh.is_known:
        return fresh.not_modified()
    columns = ", ".join(_quoted(c) for c in PLAIN_COLUMNS)
    sql = f"SELECT {columns} FROM {_quoted(source.table)} ORDER BY sample_id, split LIMIT {int(length)} OFFSET {int(offset)}"
    job = Rows(source.bank.name, source.versions, sql, service.limits.answer_bytes)
    table = pa.ipc.open_stream(await service.query(job, asker)).read_all()
    samples = await service.offload(source.bank.samples, source)
    content = {
        "snapshot": source.version,
        "features": row_json.features(table.schema),
        "rows": [_row_json(offset + i, row) for i, row in enumerate(table.to_pylist())],
        "num_rows_total": len(samples),
        "num_rows_per_page": service.limits.page_rows,
        "partial": False,
    }
    return JSONResponse(content, headers={**fresh.headers, "X-Revision": str(source.version)})


PLAIN_COLUMNS = (
    "sample_id",
    "split",
    "subset",
    "cell_id",
    "location_id",
    "season",
    "lon",
    "lat",
    "epsg",
    "bbox",
    "S2_time",
    "S1_time",
    "cloud_cover",
    "modalities",
)


def _row_json(number: int, row: dict[str, Any]) -> dict[str, Any]:
    cells = {name: row_json.cell(value) for name, value in row.items()}
    return {
        "row_idx": number,
        "row": {name: shown for name, (shown, _) in cells.items()},
        "truncated_cells": [name for name, (_, cut) in cells.items() if cut],
    }


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
