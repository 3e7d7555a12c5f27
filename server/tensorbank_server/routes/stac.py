"""The STAC API (1.0, documents of 1.1): tables as collections, for clients that know nothing of TensorBank.

The items of a collection and the search are in :mod:`tensorbank_server.routes.item_search`.
"""

from __future__ import annotations

from typing import Annotated, Any

import pyarrow as pa
from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tensorbank_server import rows as row_json
from tensorbank_server import stac
from tensorbank_server.filters import queryables_document
from tensorbank_server.jobs import Rows
from tensorbank_server.keys import Principal
from tensorbank_server.requests import Asker, Served, base_url, filter_names
from tensorbank_server.service import Pinned, Service

__all__ = ["NO_CACHE", "CollectionId", "pin_collection", "router", "stac_url", "visible_collections"]

router = APIRouter(prefix="/stac", tags=["stac"])
NO_CACHE = {"Cache-Control": "no-cache"}
SCHEMA = "application/schema+json"
MAX_EXTENTS = 1_000
CollectionId = Annotated[str, Path(max_length=128, description="Bank and table, with a dot between them.")]


def stac_url(request: Request, service: Service) -> str:
    """Return the address of the root catalog."""
    return f"{base_url(request, service)}/stac"


@router.get("", operation_id="getLanding")
async def get_landing(request: Request, service: Served, asker: Asker) -> Response:
    """The root catalog."""
    children = [(i, p.bank.title(p.table)) for i, p in (await visible_collections(service, asker)).items()]
    document = stac.landing(stac_url(request, service), base_url(request, service), children)
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
        for i, p in (await visible_collections(service, asker)).items()
    ]
    base = stac_url(request, service)
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
    pinned = await pin_collection(service, asker, collection)
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
    pinned = await pin_collection(service, asker, collection)
    identity = f"{stac_url(request, service)}/collections/{collection}/queryables"
    document = queryables_document(filter_names(pinned), identity, collection)
    return JSONResponse(document, headers=NO_CACHE, media_type=SCHEMA)


@router.get("/queryables", operation_id="getStacQueryables")
async def get_stac_queryables(request: Request, service: Served, asker: Asker) -> Response:
    """What filters of a search over all tables may name: what every table has."""
    each = [filter_names(p) for p in (await visible_collections(service, asker)).values()]
    common = {n: q for n, q in each[0].items() if all(n in other for other in each)} if each else {}
    document = queryables_document(common, f"{stac_url(request, service)}/queryables", "All tables")
    return JSONResponse(document, headers=NO_CACHE, media_type=SCHEMA)


async def visible_collections(service: Service, asker: Principal) -> dict[str, Pinned]:
    """Return tables that the caller may see, by the id of their collection; banks that cannot be read are left out."""
    found = {}
    for name, bank in service.banks.items():
        if not asker.may("read", name) or await service.offload(bank.problem) is not None:
            continue
        for table in await service.offload(bank.tables):
            found[stac.collection_id(name, table)] = await service.offload(bank.pin, table, None)
    return found


async def pin_collection(
    service: Service, asker: Principal, collection: str, version: int | None = None
) -> Pinned:
    """Pin the table behind the id of a collection; what is no such id is unknown, whatever it looks like."""
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
        base=stac_url(request, service),
        title=pinned.bank.title(pinned.table),
        description=pinned.bank.settings.description,
        licence=pinned.bank.settings.licence,
        schema=pinned.schema,
        extent=[extent[n] for n in ("west", "south", "east", "north")],
        times=[row_json.plain(extent[n]) for n in ("start", "end")],
    )
