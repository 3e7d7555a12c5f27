"""The contents of a table at a snapshot: sizes, statistics, rows, and counts for a map. No pixel is read."""

from __future__ import annotations

import json
from typing import Annotated

import pyarrow as pa
from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tensorbank_server.access import Principal
from tensorbank_server.documents import row_json
from tensorbank_server.filters import quoted
from tensorbank_server.routes.dependencies import Asker, Served, Source, condition, freshness, parse_bbox
from tensorbank_server.served_bank import Pinned
from tensorbank_server.service import Service
from tensorbank_server.workers.jobs import Describe, Rows, Summarize

__all__ = ["router"]

router = APIRouter(prefix="/v1/banks/{bank}/tables/{table}", tags=["banks"])
MAX_CELLS = 20_000
"""The most cells of one density."""
Filter = Annotated[str | None, Query(max_length=8_192, description="CQL2 text.")]


@router.get("/size", operation_id="getSize")
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
    sql = f"SELECT count(*) AS n FROM {quoted(source.table)}{where}"
    (row,) = await _ask(service, asker, source, sql)
    content = {"snapshot": source.version, "size": {"table": source.table, "n_samples": row["n"]}}
    return JSONResponse(content, headers=fresh.headers)


@router.get("/statistics", operation_id="getStatistics")
async def get_statistics(
    request: Request,
    service: Served,
    asker: Asker,
    source: Source,
    filter: Filter = None,  # noqa: A002
    modalities: Annotated[
        str | None, Query(max_length=1_024, description="Names, separated by commas; all if not given.")
    ] = None,
) -> Response:
    """Return the statistics of modalities over all samples or those of a filter, from the index. No pixel is read."""
    names = tuple(dict.fromkeys(modalities.split(","))) if modalities else source.schema.names
    names = tuple(source.schema[name.strip()].name for name in names)
    where = await _where(service, source, filter)
    if where is None and not modalities:
        return await _described(request, service, asker, source, "statistics")
    fresh = freshness(request, service, source, "statistics")
    if fresh.is_known:
        return fresh.not_modified()
    sql = f"SELECT {', '.join(map(quoted, names))} FROM {quoted(source.table)}{where or ''}"
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


@router.get("/first-rows", operation_id="getFirstRows")
async def get_first_rows(request: Request, service: Served, asker: Asker, source: Source) -> Response:
    """Return the first rows of a table, to look at."""
    return await _rows(request, service, asker, source, None, 0, service.limits.page_rows)


@router.get("/rows", operation_id="getRows")
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
    columns = ", ".join(quoted(c) for c in PLAIN_COLUMNS)
    sql = (
        f"SELECT {columns} FROM {quoted(source.table)}{where or ''} "
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


@router.get("/density", operation_id="getDensity")
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
        f"FROM {quoted(source.table)}{where or ' WHERE TRUE'} AND lon IS NOT NULL AND lat IS NOT NULL{near} "
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


async def _where(service: Service, source: Pinned, text: str | None) -> str | None:
    found = await service.offload(condition, service, source, text)
    return f" WHERE {found}" if found else None


async def _ask(service: Service, asker: Principal, source: Pinned, sql: str) -> list[dict[str, object]]:
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


def _row_json(number: int, row: dict[str, object]) -> dict[str, object]:
    cells = {name: row_json.cell(value) for name, value in row.items()}
    return {
        "row_idx": number,
        "row": {name: shown for name, (shown, _) in cells.items()},
        "truncated_cells": [name for name, (_, cut) in cells.items() if cut],
    }
