"""The STAC API (1.0, documents of 1.1): tables as collections, samples as items, for clients that know nothing of TensorBank."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlencode

import pyarrow as pa
from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tensorbank.errors import InvalidInputError
from tensorbank_server import rows as row_json
from tensorbank_server import stac
from tensorbank_server.digests import digest
from tensorbank_server.filters import parse_text, queryables, queryables_document
from tensorbank_server.filters.literals import Literal as FilterLiteral
from tensorbank_server.jobs import Rows
from tensorbank_server.keys import Principal
from tensorbank_server.problems import Problem
from tensorbank_server.requests import Asker, SampleId, Served, base_url, condition, table_url
from tensorbank_server.routes.banks import parse_bbox
from tensorbank_server.routes.samples import find
from tensorbank_server.service import Pinned, Service

__all__ = ["router"]

router = APIRouter(prefix="/stac", tags=["stac"])
GEOJSON = "application/geo+json"
NO_CACHE = {"Cache-Control": "no-cache"}
DEFAULT_ITEMS = 10
MAX_EXTENTS = 1_000
CollectionId = Annotated[
    str, Path(max_length=128, pattern=r"^[A-Za-z][A-Za-z0-9_-]*\.[A-Za-z][A-Za-z0-9_]*$")
]
Limit = Annotated[int, Query(ge=1, le=10_000)]
Text = Annotated[str | None, Query(max_length=8_192)]


class SearchBody(BaseModel):
    """Item Search with filters; what is not supported is refused, never ignored."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    collections: list[str] | None = Field(default=None, max_length=100)
    ids: list[str] | None = Field(default=None, max_length=1_000)
    bbox: list[float] | None = Field(default=None, min_length=4, max_length=6)
    intersects: dict[str, Any] | None = None
    datetime: str | None = Field(default=None, max_length=128)
    filter: str | bool | dict[str, Any] | None = None
    filter_lang: str | None = Field(default=None, alias="filter-lang", pattern="^cql2-(text|json)$")
    limit: int = Field(default=DEFAULT_ITEMS, ge=1, le=10_000)
    token: str | None = Field(default=None, max_length=2_048)


def _base(request: Request, service: Service) -> str:
    return f"{base_url(request, service)}/stac"


@router.get("", operation_id="getLanding")
async def get_landing(request: Request, service: Served, asker: Asker) -> Response:
    """The root catalog."""
    children = [(i, p.bank.title(p.table)) for i, p in (await _collections(service, asker)).items()]
    document = stac.landing(_base(request, service), f"{base_url(request, service)}/openapi.json", children)
    return JSONResponse(document, headers=NO_CACHE)


@router.get("/conformance", operation_id="getConformance")
async def get_conformance() -> dict[str, list[str]]:
    """Which parts of which specifications are kept."""
    return {"conformsTo": list(stac.CONFORMANCE)}


@router.get("/collections", operation_id="listCollections")
async def list_collections(request: Request, service: Served, asker: Asker) -> Response:
    """All tables that the caller may see."""
    found = [
        await _collection(request, service, asker, i, p)
        for i, p in (await _collections(service, asker)).items()
    ]
    base = _base(request, service)
    links = [
        {"rel": "self", "type": "application/json", "href": f"{base}/collections"},
        {"rel": "root", "type": "application/json", "href": base},
    ]
    return JSONResponse({"collections": found, "links": links}, headers=NO_CACHE)


@router.get("/collections/{collection}", operation_id="getCollection")
async def get_collection(
    request: Request, service: Served, asker: Asker, collection: CollectionId
) -> Response:
    """One table."""
    pinned = await _pin(service, asker, collection)
    return JSONResponse(await _collection(request, service, asker, collection, pinned), headers=NO_CACHE)


@router.get(
    "/collections/{collection}/queryables",
    operation_id="getCollectionQueryables",
    name="getCollectionQueryables",
)
async def get_collection_queryables(
    request: Request, service: Served, asker: Asker, collection: CollectionId
) -> Response:
    """What filters may name."""
    pinned = await _pin(service, asker, collection)
    identity = f"{_base(request, service)}/collections/{collection}/queryables"
    document = queryables_document(queryables(pinned.schema), identity, collection)
    return JSONResponse(document, headers=NO_CACHE, media_type="application/schema+json")


@router.get("/collections/{collection}/items", operation_id="listItems")
async def list_items(
    request: Request,
    service: Served,
    asker: Asker,
    collection: CollectionId,
    limit: Limit = DEFAULT_ITEMS,
    bbox: Text = None,
    datetime: Text = None,
    filter: Text = None,  # noqa: A002
    token: Text = None,
) -> Response:
    """Samples of one table."""
    body = SearchBody(
        collections=[collection],
        limit=limit,
        bbox=parse_bbox(bbox) if bbox else None,
        datetime=datetime,
        filter=filter,
        token=token,
    )
    await _pin(service, asker, collection)
    return await _search(request, service, asker, body)


@router.get("/collections/{collection}/items/{sample_id}", operation_id="getItem")
async def get_item(
    request: Request, service: Served, asker: Asker, collection: CollectionId, sample_id: SampleId
) -> Response:
    """One sample."""
    pinned = await _pin(service, asker, collection)
    row = await find(service, pinned, sample_id, None)
    return JSONResponse(_item(request, service, pinned, row), headers=NO_CACHE, media_type=GEOJSON)


@router.get("/search", operation_id="searchItems")
async def search_items(
    request: Request,
    service: Served,
    asker: Asker,
    collections: Text = None,
    ids: Text = None,
    bbox: Text = None,
    datetime: Text = None,
    filter: Text = None,  # noqa: A002
    filter_lang: Annotated[str | None, Query(alias="filter-lang", pattern="^cql2-text$")] = None,  # noqa: ARG001 - checked
    limit: Limit = DEFAULT_ITEMS,
    token: Text = None,
) -> Response:
    """Samples of several tables, by parameters."""
    known = {"collections", "ids", "bbox", "datetime", "filter", "filter-lang", "limit", "token"}
    if other := set(request.query_params) - known:
        raise Problem(400, "unsupported", f"there is no parameter {min(other)[:64]!r} here")
    body = SearchBody(
        collections=collections.split(",") if collections else None,
        ids=ids.split(",") if ids else None,
        bbox=parse_bbox(bbox) if bbox else None,
        datetime=datetime,
        filter=filter,
        limit=limit,
        token=token,
    )
    return await _search(request, service, asker, body)


@router.post("/search", operation_id="searchItemsByBody")
async def search_items_by_body(request: Request, service: Served, asker: Asker, body: SearchBody) -> Response:
    """Samples of several tables, by a JSON document."""
    return await _search(request, service, asker, body)


async def _search(request: Request, service: Service, asker: Principal, body: SearchBody) -> Response:
    """A page: collections one after the other, each in the order of its ids."""
    service.queries.spend(asker.id)
    limit = min(body.limit, service.limits.page_items)
    tree = _tree(body)
    known = await _collections(service, asker)
    names = sorted(known if body.collections is None else {c for c in body.collections if c in known})
    question = ("search", digest(tree), names, asker.id)
    at: list[Any] = service.pages.place(body.token, *question) if body.token else [0, None, None, None]
    items: list[dict[str, Any]] = []
    following: list[Any] | None = None
    for number in range(int(at[0]), len(names)):
        version, last_id, last_split = at[1:] if number == at[0] else (None, None, None)
        pinned = (
            known[names[number]] if version is None else await _pin(service, asker, names[number], version)
        )
        wanted = limit - len(items)
        where = await service.offload(condition, service, pinned, tree)
        found = await _ids(service, pinned, where.bound if where else "TRUE", last_id, last_split, wanted + 1)
        rows = await service.offload(_rows_of, pinned, found[:wanted])
        items += [_item(request, service, pinned, row) for row in rows]
        if len(found) > wanted:
            following = [number, pinned.version, *found[wanted - 1]]
            break
        if len(items) == limit and number + 1 < len(names):
            following = [number + 1, None, None, None]
            break
    links = _links(request, service, body, service.pages.token(following, *question) if following else None)
    document = {"type": "FeatureCollection", "features": items, "links": links, "numberReturned": len(items)}
    return JSONResponse(document, headers=NO_CACHE, media_type=GEOJSON)


def _tree(body: SearchBody) -> Any:
    """What a search asks, as one CQL2 expression; None where it asks for all."""
    parts: list[Any] = []
    if body.ids is not None:
        if not body.ids:
            raise Problem(400, "invalid-input", "ids must not be empty")
        parts.append({"op": "in", "args": [{"property": "sample_id"}, list(body.ids)]})
    areas = [{"bbox": list(body.bbox)} if body.bbox else None, body.intersects]
    parts += [{"op": "s_intersects", "args": [{"property": "geometry"}, a]} for a in areas if a is not None]
    if body.datetime is not None:
        parts.append({"op": "t_intersects", "args": [{"property": "datetime"}, _times(body.datetime)]})
    if body.filter is not None and body.filter != "":
        parts.append(parse_text(body.filter) if isinstance(body.filter, str) else body.filter)
    return None if not parts else parts[0] if len(parts) == 1 else {"op": "and", "args": parts}


def _times(text: str) -> dict[str, Any]:
    ends = [re.sub(r"^$", "..", part) for part in text.split("/")]
    if len(ends) == 1:
        return {"date" if len(ends[0]) == 10 else "timestamp": ends[0]}
    if len(ends) != 2:
        raise InvalidInputError("datetime is a time, or two with a slash between them; '..' where it is open")
    return {"interval": ends}


async def _ids(
    service: Service, pinned: Pinned, where: str, last_id: str | None, last_split: str | None, n: int
) -> list[tuple[str, str | None]]:
    """Ids and splits behind a place, in order."""
    after = ""
    if last_id is not None:
        ident, split = FilterLiteral(last_id).sql, FilterLiteral(last_split or "").sql
        after = f" AND (sample_id > {ident} OR (sample_id = {ident} AND coalesce(split, '') > {split}))"
    sql = (
        f'SELECT sample_id, split FROM "{pinned.table}" WHERE ({where}){after} '
        f"ORDER BY sample_id, coalesce(split, '') LIMIT {int(n)}"
    )
    job = Rows(pinned.bank.name, pinned.versions, sql, service.limits.answer_bytes)
    found = pa.ipc.open_stream(await service.workers.run(job, service.limits.query_s)).read_all()
    return list(zip(found["sample_id"].to_pylist(), found["split"].to_pylist(), strict=True))


def _rows_of(pinned: Pinned, ids: list[tuple[str, str | None]]) -> list[Mapping[str, Any]]:
    table = pinned.bank.samples(pinned)
    return [next(r for r in table.find(i) if r["split"] == split) for i, split in ids]


def _item(request: Request, service: Service, pinned: Pinned, row: Mapping[str, Any]) -> dict[str, Any]:
    return stac.item(
        row,
        pinned.schema,
        base=_base(request, service),
        collection=stac.collection_id(pinned.bank.name, pinned.table),
        table_url=table_url(request, service, pinned),
    )


def _links(request: Request, service: Service, body: SearchBody, token: str | None) -> list[dict[str, Any]]:
    base = _base(request, service)
    here = f"{base_url(request, service)}{request.url.path}"
    links: list[dict[str, Any]] = [
        {"rel": "root", "type": "application/json", "href": base},
        {"rel": "self", "type": GEOJSON, "href": here},
    ]
    if token is None:
        return links
    following: dict[str, Any] = {"rel": "next", "type": GEOJSON}
    if request.method == "POST":
        asked = body.model_dump(exclude_none=True, by_alias=True) | {"token": token}
        return [*links, following | {"href": here, "method": "POST", "body": asked, "merge": False}]
    query = [(k, v) for k, v in request.query_params.multi_items() if k != "token"]
    return [*links, following | {"href": f"{here}?{urlencode([*query, ('token', token)])}", "method": "GET"}]


async def _collections(service: Service, asker: Principal) -> dict[str, Pinned]:
    """Tables that the caller may see, by the id of their collection; banks that cannot be read are left out."""
    found = {}
    for name, bank in service.banks.items():
        if not asker.may("read", name) or await service.offload(bank.problem) is not None:
            continue
        for table in await service.offload(bank.tables):
            found[stac.collection_id(name, table)] = await service.offload(bank.pin, table, None)
    return found


async def _pin(service: Service, asker: Principal, collection: str, version: int | None = None) -> Pinned:
    bank, _, table = collection.partition(stac.SEPARATOR)
    return await service.pin(bank, table, version, asker)


async def _collection(
    request: Request, service: Service, asker: Principal, identity: str, pinned: Pinned
) -> dict[str, Any]:
    key = (pinned.table, pinned.version)
    extents = pinned.bank.extents
    if key not in extents:
        if len(extents) > MAX_EXTENTS:
            extents.clear()
        sql = (
            "SELECT min(bbox.west) AS west, min(bbox.south) AS south, max(bbox.east) AS east, max(bbox.north) AS north, "
            f'min(first_time) AS start, max(last_time) AS "end" FROM "{pinned.table}".shards'
        )
        job = Rows(pinned.bank.name, pinned.versions, sql, service.limits.answer_bytes)
        (extents[key],) = pa.ipc.open_stream(await service.query(job, asker)).read_all().to_pylist()
    extent = extents[key]
    return stac.collection(
        identity,
        base=_base(request, service),
        title=pinned.bank.title(pinned.table),
        description=pinned.bank.settings.description,
        licence=pinned.bank.settings.licence,
        schema=pinned.schema,
        extent=[extent[n] for n in ("west", "south", "east", "north")],
        times=[row_json.plain(extent[n]) for n in ("start", "end")],
    )
