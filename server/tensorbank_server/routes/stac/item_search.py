"""The STAC Item Search (1.0) and the items of a collection, with filters in CQL2.

A parameter that is not supported is refused: an answer that ignores it would look filtered and not be.
"""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import Annotated, Any
from urllib.parse import urlencode

import pyarrow as pa
from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tensorbank_server.access import Principal
from tensorbank_server.digests import digest
from tensorbank_server.documents import stac_documents
from tensorbank_server.documents.row_json import Row
from tensorbank_server.filters import Literal as FilterLiteral
from tensorbank_server.filters import quoted
from tensorbank_server.filters.literals import search_times
from tensorbank_server.http import Problem
from tensorbank_server.routes.dependencies import (
    Asker,
    SampleId,
    Served,
    base_url,
    condition,
    filter_tree,
    parse_bbox,
    table_url,
)
from tensorbank_server.routes.samples import find
from tensorbank_server.routes.stac.stac_catalog import (
    NO_CACHE,
    CollectionId,
    pin_collection,
    stac_url,
    visible_collections,
)
from tensorbank_server.served_bank import Pinned
from tensorbank_server.service import Service
from tensorbank_server.workers.jobs import Rows

__all__ = ["router"]

router = APIRouter(prefix="/stac", tags=["stac"])
GEOJSON = "application/geo+json"
DEFAULT_ITEMS = 10
CRS84 = "http://www.opengis.net/def/crs/OGC/1.3/CRS84"
"""The only coordinate system of filters: longitude and latitude in degrees."""
MAX_GEOMETRY_CHARACTERS = 65_536

Limit = Annotated[
    int,
    Query(ge=1, description="Items of a page; a larger number than the service's maximum gives the maximum."),
]
Text = Annotated[str | None, Query(max_length=8_192)]
Language = Annotated[str | None, Query(alias="filter-lang", pattern="^cql2-text$")]
Coordinates = Annotated[str | None, Query(alias="filter-crs", max_length=256, description=f"{CRS84} only.")]


class SearchBody(BaseModel):
    """The body of an Item Search with filters; what is not supported is refused, never ignored."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    collections: list[str] | None = Field(default=None, max_length=100)
    ids: list[str] | None = Field(default=None, max_length=1_000)
    bbox: list[float] | None = None
    intersects: dict[str, object] | None = None
    datetime: str | None = Field(default=None, max_length=128)
    filter: str | bool | dict[str, object] | None = None
    filter_lang: str | None = Field(default=None, alias="filter-lang", pattern="^cql2-(text|json)$")
    filter_crs: str | None = Field(default=None, alias="filter-crs", max_length=256)
    limit: int = Field(default=DEFAULT_ITEMS, ge=1)
    token: str | None = Field(default=None, max_length=2_048)


async def _parameters(
    request: Request,
    collections: Text = None,
    ids: Text = None,
    bbox: Text = None,
    intersects: Annotated[str | None, Query(max_length=MAX_GEOMETRY_CHARACTERS)] = None,
    datetime: Text = None,
    filter: Text = None,  # noqa: A002
    filter_lang: Language = None,
    filter_crs: Coordinates = None,
    limit: Limit = DEFAULT_ITEMS,
    token: Text = None,
) -> SearchBody:
    """Read the parameters of a search by GET as the document that POST takes, whose limits hold for them too."""
    known = {SearchBody.model_fields[n].alias or n for n in SearchBody.model_fields}
    if other := set(request.query_params) - known:
        hint = f"there is no parameter {min(other)[:64]!r} here; choose from {', '.join(sorted(known))}"
        raise Problem(400, "unsupported", hint)
    given = {
        "collections": collections.split(",") if collections else None,
        "ids": ids.split(",") if ids else None,
        "bbox": parse_bbox(bbox) if bbox else None,
        "intersects": _geometry(intersects) if intersects else None,
        "datetime": datetime,
        "filter": filter,
        "filter_lang": filter_lang,
        "filter_crs": filter_crs,
        "limit": limit,
        "token": token,
    }
    try:
        return SearchBody.model_validate(given)
    except ValidationError as error:
        where = [{"pointer": f"/query/{e['loc'][0]}", "detail": str(e["msg"])[:200]} for e in error.errors()]
        raise Problem(400, "invalid-request", "the request is not of the documented form", where) from None


Parameters = Annotated[SearchBody, Depends(_parameters)]


@router.get("/collections/{collection}/items", operation_id="listItems")
async def list_items(
    request: Request, service: Served, asker: Asker, collection: CollectionId, asked: Parameters
) -> Response:
    """Return the samples of one table."""
    await pin_collection(service, asker, collection)
    if asked.collections not in (None, [collection]):
        raise Problem(
            400, "invalid-input", f"these are items of {collection}; search other collections at /stac/search"
        )
    asked.collections = [collection]
    return await _search(request, service, asker, asked)


@router.get("/collections/{collection}/items/{sample_id}", operation_id="getItem")
async def get_item(
    request: Request, service: Served, asker: Asker, collection: CollectionId, sample_id: SampleId
) -> Response:
    """Return one sample."""
    pinned = await pin_collection(service, asker, collection)
    row = await find(pinned, sample_id, None)
    return JSONResponse(_item(request, service, pinned, row), headers=NO_CACHE, media_type=GEOJSON)


@router.get("/search", operation_id="searchItems")
async def search_items(request: Request, service: Served, asker: Asker, asked: Parameters) -> Response:
    """Search the samples of several tables, by parameters."""
    return await _search(request, service, asker, asked)


@router.post("/search", operation_id="searchItemsByBody")
async def search_items_by_body(request: Request, service: Served, asker: Asker, body: SearchBody) -> Response:
    """Search the samples of several tables, by a JSON document."""
    return await _search(request, service, asker, body)


def _geometry(text: str) -> dict[str, object]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Problem(400, "invalid-input", "intersects is a GeoJSON geometry")
    return found


async def _search(request: Request, service: Service, asker: Principal, body: SearchBody) -> Response:
    """Answer one page: collections one after the other, each in the order of its ids."""
    await service.queries.spend(asker.id)
    limit = min(body.limit, service.limits.page_items)
    tree = await service.offload(_tree, service, body)
    visible = await visible_collections(service, asker)
    asked = None if body.collections is None else sorted(set(body.collections))
    names = sorted(n for n in visible.tables if asked is None or n in asked)
    if asked and not names and visible.unavailable:
        raise _unavailable()
    question = ("search", digest(tree), asked, asker.id)
    at: list[Any] = service.page_tokens.place(body.token, *question) if body.token else ["", None, None, None]
    if at[1] is not None and at[0] not in names and visible.unavailable:
        raise _unavailable()  # in the middle of its items
    items: list[dict[str, object]] = []
    following: list[Any] | None = None
    for number, name in enumerate(names):
        if name < at[0]:
            continue
        version, last_id, last_split = at[1:] if name == at[0] else (None, None, None)
        pinned = visible.tables[name]
        async with visible.noting(pinned.bank) if version is None and len(names) > 1 else nullcontext():
            if version is not None:
                pinned = await pin_collection(service, asker, name, version)
            wanted = limit - len(items)
            where = await service.offload(condition, service, pinned, tree)
            condition_sql = where or "TRUE"
            found = await _ids(service, pinned, condition_sql, last_id, last_split, wanted + 1)
            rows = await pinned.bank.run(_rows_of, pinned, found[:wanted])
            items += [_item(request, service, pinned, row) for row in rows]
            if len(found) > wanted:
                following = [name, pinned.version, *found[wanted - 1]]
                break
            if len(items) == limit and number + 1 < len(names):
                following = [names[number + 1], None, None, None]
                break
    links = _links(
        request, service, body, service.page_tokens.token(following, *question) if following else None
    )
    document = {"type": "FeatureCollection", "features": items, "links": links, "numberReturned": len(items)}
    document |= visible.note
    return JSONResponse(document, headers=NO_CACHE, media_type=GEOJSON)


def _unavailable() -> Problem:
    return Problem(
        503,
        "bank-unavailable",
        "a bank of these collections cannot be read now",
        headers={"Retry-After": "5"},
    )


def _tree(service: Service, body: SearchBody) -> Any:
    """Return a search as one CQL2 expression; None where it asks for all samples."""
    if body.filter_crs not in (None, CRS84):
        raise Problem(400, "unsupported", f"filter-crs can only be {CRS84}")
    if body.bbox is not None and body.intersects is not None:
        raise Problem(400, "invalid-input", "a search takes bbox or intersects, not both")
    parts: list[Any] = []
    if body.ids is not None:
        if not body.ids:
            raise Problem(400, "invalid-input", "ids must not be empty")
        parts.append({"op": "in", "args": [{"property": "id"}, list(body.ids)]})
    areas = [{"bbox": list(body.bbox)} if body.bbox is not None else None, body.intersects]
    parts += [{"op": "s_intersects", "args": [{"property": "geometry"}, a]} for a in areas if a is not None]
    if body.datetime is not None:
        times = search_times(body.datetime)
        parts.append({"op": "t_intersects", "args": [{"property": "datetime"}, times]})
    if body.filter is not None and body.filter != "":
        parts.append(filter_tree(service, body.filter))
    tree = None if not parts else parts[0] if len(parts) == 1 else {"op": "and", "args": parts}
    return filter_tree(service, tree)  # measured as a whole before anything recurses over it


async def _ids(
    service: Service, pinned: Pinned, where: str, last_id: str | None, last_split: str | None, n: int
) -> list[tuple[str, str | None]]:
    """Return ids and splits of samples behind a place, in order."""
    after = ""
    if last_id is not None:
        ident, split = FilterLiteral(last_id).sql, FilterLiteral(last_split or "").sql
        after = f" AND (sample_id > {ident} OR (sample_id = {ident} AND coalesce(split, '') > {split}))"
    sql = (
        f"SELECT sample_id, split FROM {quoted(pinned.table)} WHERE ({where}){after} "
        f"ORDER BY sample_id, coalesce(split, '') LIMIT {int(n)}"
    )
    job = Rows(pinned.bank.name, pinned.versions, sql, service.limits.answer_bytes)
    found = pa.ipc.open_stream(await service.answer(job)).read_all()
    return list(zip(found["sample_id"].to_pylist(), found["split"].to_pylist(), strict=True))


def _rows_of(pinned: Pinned, ids: list[tuple[str, str | None]]) -> list[Row]:
    table = pinned.bank.samples(pinned)
    return [next(r for r in table.find(i) if r["split"] == split) for i, split in ids]


def _item(request: Request, service: Service, pinned: Pinned, row: Row) -> dict[str, object]:
    return stac_documents.item(
        row,
        pinned.schema,
        base=stac_url(request, service),
        collection=stac_documents.collection_id(pinned.bank.name, pinned.table),
        table_url=table_url(request, service, pinned),
    )


def _links(
    request: Request, service: Service, body: SearchBody, token: str | None
) -> list[dict[str, object]]:
    base = stac_url(request, service)
    here = f"{base_url(request, service)}{request.url.path}"
    links: list[dict[str, object]] = [
        {"rel": "root", "type": "application/json", "href": base},
        {"rel": "self", "type": GEOJSON, "href": here},
    ]
    if token is None:
        return links
    following: dict[str, object] = {"rel": "next", "type": GEOJSON}
    if request.method == "POST":
        asked = body.model_dump(exclude_none=True, by_alias=True) | {"token": token}
        return [*links, following | {"href": here, "method": "POST", "body": asked, "merge": False}]
    query = [(k, v) for k, v in request.query_params.multi_items() if k != "token"]
    return [*links, following | {"href": f"{here}?{urlencode([*query, ('token', token)])}", "method": "GET"}]
