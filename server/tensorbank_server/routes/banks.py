"""Banks, tables, snapshots, and what a table holds."""

from __future__ import annotations

import json
from typing import Annotated, Any

import pyarrow as pa
from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tensorbank.catalog import SnapshotInfo
from tensorbank.errors import InvalidInputError
from tensorbank_server.access import Principal
from tensorbank_server.documents import row_json
from tensorbank_server.filters import queryables_document
from tensorbank_server.http import Problem
from tensorbank_server.routes.dependencies import (
    Asker,
    BankName,
    Served,
    Source,
    TableName,
    base_url,
    condition,
    filter_names,
    freshness,
)
from tensorbank_server.served_bank import Pinned, ServedBank
from tensorbank_server.service import Service
from tensorbank_server.workers.jobs import Describe, Rows, Summarize

__all__ = ["parse_bbox", "router"]

router = APIRouter(prefix="/v1/banks", tags=["banks"])
TABLE = "/{bank}/tables/{table}"
MAX_CELLS = 20_000
Filter = Annotated[str | None, Query(max_length=8_192, description="CQL2 text.")]


@router.get("", operation_id="listBanks")
async def list_banks(service: Served, asker: Asker) -> dict[str, Any]:
    """List the banks that this caller may see."""
    seen = [b for name, b in service.banks.items() if asker.banks is None or name in asker.banks]
    return {"banks": [_bank_json(b) for b in seen]}


@router.get("/{bank}", operation_id="getBank")
async def get_bank(service: Served, asker: Asker, bank: BankName) -> dict[str, Any]:
    """Return one bank with its tables."""
    found = service.bank(bank, asker)
    tables = await found.run(found.tables)
    return {**_bank_json(found), "tables": [{"name": t} for t in tables]}


def _bank_json(bank: ServedBank) -> dict[str, Any]:
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
async def list_tables(service: Served, asker: Asker, bank: BankName) -> dict[str, Any]:
    """List the tables of a bank."""
    found = service.bank(bank, asker)
    return {"tables": [{"name": t} for t in await found.run(found.tables)]}


@router.get(TABLE, operation_id="getTable")
async def get_table(request: Request, service: Served, source: Source) -> Response:
    """A table at a snapshot: modalities and counts."""
    fresh = freshness(request, service, source, "table")
    if fresh.is_known:
        return fresh.not_modified()
    return JSONResponse(
        {"name": source.table, "snapshot": source.version, **_modalities(source)}, headers=fresh.headers
    )


@router.get(TABLE + "/snapshots", operation_id="listSnapshots")
async def list_snapshots(service: Served, asker: Asker, bank: BankName, table: TableName) -> dict[str, Any]:
    """List the versions of a table, newest first."""
    pinned = await service.pin(bank, table, None, asker)
    history = await pinned.bank.run(lambda: pinned.bank.bank.table(table).history())
    return {"snapshots": [_snapshot_json(e) for e in history]}


@router.get(TABLE + "/snapshots/{version}", operation_id="getSnapshot")
async def get_snapshot(
    service: Served, asker: Asker, bank: BankName, table: TableName, version: int
) -> dict[str, Any]:
    """Return one version of a table."""
    pinned = await service.pin(bank, table, None, asker)
    for entry in await pinned.bank.run(lambda: pinned.bank.bank.table(table).history()):
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


@router.get(TABLE + "/schema", operation_id="getSchema")
async def get_schema(request: Request, service: Served, source: Source) -> Response:
    """Return the modalities: bands, shapes, dtypes, classes, attributes."""
    fresh = freshness(request, service, source, "schema")
    if fresh.is_known:
        return fresh.not_modified()
    return JSONResponse({"snapshot": source.version, **_modalities(source)}, headers=fresh.headers)


def _modalities(source: Pinned) -> dict[str, Any]:
    return {"modalities": [json.loads(m.to_json()) for m in source.schema]}


@router.get(TABLE + "/queryables", operation_id="getQueryables")
async def get_queryables(request: Request, service: Served, source: Source) -> Response:
    """Return what filters may name, as JSON Schema."""
    fresh = freshness(request, service, source, "queryables")
    if fresh.is_known:
        return fresh.not_modified()
    identity = f"{base_url(request, service)}{request.url.path}"
    document = queryables_document(filter_names(source), identity, source.table)
    return JSONResponse(document, headers=fresh.headers, media_type="application/schema+json")


@router.get(TABLE + "/size", operation_id="getSize")
async def get_size(
    request: Request,
    service: Served,
    asker: Asker,
    source: Source,
    filter: Filter = None,  # noqa: A002
) -> Response:
    """Count samples, shards and bytes; with a filter, the samples that it selects."""
    where = await _where(service, source, filter)
    if where is None:
        return await _described(request, service, asker, source, "size")
    fresh = freshness(request, service, source, "size")
    if fresh.is_known:
        return fresh.not_modified()
    sql = f"SELECT count(*) AS n FROM {_quoted(source.table)}{where}"
    (row,) = await _ask(service, asker, source, sql)
    content = {"snapshot": source.version, "size": {"table": source.table, "n_samples": row["n"]}}
    return JSONResponse(content, headers=fresh.headers)


@router.get(TABLE + "/statistics", operation_id="getStatistics")
async def get_statistics(
    request: Request,
    service: Served,
    asker: Asker,
    source: Source,
    filter: Filter = None,  # noqa: A002
    modalities: Annotated[
        str | None, Query(max_length=1_024, description="Of which; all if not given.")
    ] = None,
) -> Response:
    """Return the statistics of modalities over all samples or those of a filter, from the index:
    no pixel is read."""
    names = tuple(dict.fromkeys(modalities.split(","))) if modalities else source.schema.names
    names = tuple(source.schema[name.strip()].name for name in names)
    where = await _where(service, source, filter)
    if where is None and not modalities:
        return await _described(request, service, asker, source, "statistics")
    fresh = freshness(request, service, source, "statistics")
    if fresh.is_known:
        return fresh.not_modified()
    sql = f"SELECT {', '.join(map(_quoted, names))} FROM {_quoted(source.table)}{where or ''}"
    found = await service.query(Summarize(source.bank.name, source.versions, sql, names), asker)
    content = {"snapshot": source.version, "statistics": row_json.plain(json.loads(found))}
    return JSONResponse(content, headers=fresh.headers)


async def _described(
    request: Request, service: Service, asker: Principal, source: Pinned, what: str
) -> Response:
    fresh = freshness(request, service, source, what)
    if fresh.is_known:
        return fresh.not_modified()
    found = json.loads(await service.query(Describe(source.bank.name, source.table, source.version), asker))
    content = {"snapshot": source.version, what: row_json.plain(found[what])}
    return JSONResponse(content, headers=fresh.headers)


@router.get(TABLE + "/first-rows", operation_id="getFirstRows")
async def get_first_rows(request: Request, service: Served, asker: Asker, source: Source) -> Response:
    """The first rows, to look at."""
    return await _rows(request, service, asker, source, None, 0, service.limits.page_rows)


@router.get(TABLE + "/rows", operation_id="getRows")
async def get_rows(
    request: Request,
    service: Served,
    asker: Asker,
    source: Source,
    filter: Filter = None,  # noqa: A002
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    length: Annotated[int, Query(ge=1, le=1_000)] = 100,
) -> Response:
    """Return some rows by number, in the order of ids; to walk through a whole table, make a plan."""
    where = await _where(service, source, filter)
    return await _rows(request, service, asker, source, where, offset, min(length, service.limits.page_rows))


async def _rows(
    request: Request,
    service: Service,
    asker: Principal,
    source: Pinned,
    where: str | None,
    offset: int,
    length: int,
) -> Response:
    fresh = freshness(request, service, source, "rows")
    if fresh.is_known:
        return fresh.not_modified()
    columns = ", ".join(_quoted(c) for c in PLAIN_COLUMNS)
    sql = (
        f"SELECT {columns} FROM {_quoted(source.table)}{where or ''} "
        f"ORDER BY sample_id, split LIMIT {int(length)} OFFSET {int(offset)}"
    )
    table = await _table(service, asker, source, sql)
    n_total = None if where else len(await source.bank.run(source.bank.samples, source))
    content = {
        "snapshot": source.version,
        "features": row_json.features(table.schema),
        "rows": [_row_json(offset + i, row) for i, row in enumerate(row_json.readable(table))],
        "num_rows_total": n_total,
        "num_rows_per_page": service.limits.page_rows,
        "partial": False,
    }
    return JSONResponse(content, headers={**fresh.headers, "X-Revision": str(source.version)})


@router.get(TABLE + "/density", operation_id="getDensity")
async def get_density(
    request: Request,
    service: Served,
    asker: Asker,
    source: Source,
    bbox: Annotated[
        str | None, Query(max_length=128, description="west,south,east,north in degrees.")
    ] = None,
    z: Annotated[int, Query(ge=0, le=12, description="Each step halves the cells of 22.5 degrees.")] = 2,
    filter: Filter = None,  # noqa: A002
) -> Response:
    """Count the samples that have their centre in each cell of a grid of degrees, the fullest cells first."""
    where = await _where(service, source, filter)
    fresh = freshness(request, service, source, "density")
    if fresh.is_known:
        return fresh.not_modified()
    size = 22.5 / 2**z
    near = f" AND within_bbox(lon, lat, {', '.join(map(repr, parse_bbox(bbox)))})" if bbox else ""
    sql = (
        f"SELECT floor((lon + 180) / {size!r})::INTEGER AS x, floor((lat + 90) / {size!r})::INTEGER AS y, count(*) AS n "
        f"FROM {_quoted(source.table)}{where or ' WHERE TRUE'} AND lon IS NOT NULL AND lat IS NOT NULL{near} "
        f"GROUP BY ALL ORDER BY n DESC, x, y LIMIT {MAX_CELLS + 1}"
    )
    cells = [[row["x"], row["y"], row["n"]] for row in await _ask(service, asker, source, sql)]
    content = {
        "snapshot": source.version,
        "cell_degrees": size,
        "origin": [-180, -90],
        "cells": cells[:MAX_CELLS],
        "partial": len(cells) > MAX_CELLS,
    }
    return JSONResponse(content, headers=fresh.headers)


def parse_bbox(text: str) -> list[float]:
    """Read west, south, east, north; west may lie east of east. Heights, in a box of six numbers, are left out.

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


async def _where(service: Service, source: Pinned, text: str | None) -> str | None:
    found = await service.offload(condition, service, source, text)
    return f" WHERE {found}" if found else None


async def _ask(service: Service, asker: Principal, source: Pinned, sql: str) -> list[dict[str, Any]]:
    return row_json.readable(await _table(service, asker, source, sql))


async def _table(service: Service, asker: Principal, source: Pinned, sql: str) -> pa.Table:
    job = Rows(source.bank.name, source.versions, sql, service.limits.answer_bytes)
    return pa.ipc.open_stream(await service.query(job, asker)).read_all()


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
