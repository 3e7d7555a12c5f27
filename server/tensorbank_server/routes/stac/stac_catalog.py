"""The STAC API (1.0, documents of 1.1): tables as collections, for clients that know nothing of TensorBank.

The items of a collection and the search are in :mod:`tensorbank_server.routes.item_search`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated

import pyarrow as pa
from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tensorbank.errors import FormatError, IntegrityError, StorageError
from tensorbank_server.access import Principal
from tensorbank_server.documents import row_json, stac_documents
from tensorbank_server.filters import queryables_document, quoted
from tensorbank_server.http import Problem
from tensorbank_server.routes.dependencies import Asker, Served, base_url, filter_names
from tensorbank_server.served_bank import Pinned, ServedBank
from tensorbank_server.service import Service
from tensorbank_server.workers.jobs import Rows
from tensorbank_server.workers.pool import JobError

__all__ = ["NO_CACHE", "CollectionId", "pin_collection", "router", "stac_url", "visible_collections"]

router = APIRouter(prefix="/stac", tags=["stac"])
NO_CACHE = {"Cache-Control": "no-cache"}
SCHEMA = "application/schema+json"
_TIME = "coalesce(S2_time, S1_time)"
"""The time of a sample, as roll-ups have the first and the last of."""
_LOG = logging.getLogger(__name__)
CollectionId = Annotated[str, Path(max_length=128, description="Bank and table, with a dot between them.")]


def stac_url(request: Request, service: Service) -> str:
    """Return the address of the root catalog."""
    return f"{base_url(request, service)}/stac"


@router.get("", operation_id="getLanding")
async def get_landing(request: Request, service: Served, asker: Asker) -> Response:
    """Return the root catalog."""
    visible = await visible_collections(service, asker)
    children = [(i, p.bank.title(p.table)) for i, p in visible.tables.items()]
    document = stac_documents.landing(stac_url(request, service), base_url(request, service), children)
    return JSONResponse(document | visible.note, headers=NO_CACHE)


@router.get("/conformance", operation_id="getConformance")
async def get_conformance() -> dict[str, list[str]]:
    """List the conformance classes that this API keeps."""
    return {"conformsTo": list(stac_documents.CONFORMANCE)}


@router.get("/collections", operation_id="listCollections")
async def list_collections(request: Request, service: Served, asker: Asker) -> Response:
    """List all tables that the caller may see."""
    visible = await visible_collections(service, asker)
    found = []
    for identity, pinned in visible.tables.items():
        async with visible.noting(pinned.bank):
            found.append(await _collection(request, service, asker, identity, pinned))
    base = stac_url(request, service)
    links = [
        {"rel": "self", "type": "application/json", "href": f"{base}/collections"},
        {"rel": "root", "type": "application/json", "href": base},
    ]
    return JSONResponse({"collections": found, "links": links} | visible.note, headers=NO_CACHE)


@router.get("/collections/{collection}", operation_id="getCollection")
async def get_collection(
    request: Request, service: Served, asker: Asker, collection: CollectionId
) -> Response:
    """Return one table."""
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
    """Return the names that filters of a table may use."""
    pinned = await pin_collection(service, asker, collection)
    identity = f"{stac_url(request, service)}/collections/{collection}/queryables"
    document = queryables_document(filter_names(pinned), identity, collection)
    return JSONResponse(document, headers=NO_CACHE, media_type=SCHEMA)


@router.get("/queryables", operation_id="getStacQueryables")
async def get_stac_queryables(request: Request, service: Served, asker: Asker) -> Response:
    """Return the names that filters of a search over all tables may use: those that every table has."""
    each = [filter_names(p) for p in (await visible_collections(service, asker)).tables.values()]
    common = {n: q for n, q in each[0].items() if all(n in other for other in each)} if each else {}
    document = queryables_document(common, f"{stac_url(request, service)}/queryables", "All tables")
    return JSONResponse(document, headers=NO_CACHE, media_type=SCHEMA)


@dataclass
class Visible:
    """The tables that a caller may see, by the id of their collection, and the banks that could not be read."""

    tables: dict[str, Pinned] = field(default_factory=dict)
    unavailable: set[str] = field(default_factory=set)

    @property
    def note(self) -> dict[str, list[str]]:
        """The note in an answer about banks that are missing from it; empty where none is."""
        return {"tensorbank:unavailable": sorted(self.unavailable)} if self.unavailable else {}

    @asynccontextmanager
    async def noting(self, bank: ServedBank) -> AsyncIterator[None]:
        """Note that a bank cannot be read, instead of failing with it."""
        try:
            yield
        except (StorageError, IntegrityError, FormatError, JobError) as error:
            _LOG.warning("bank %s is left out: %s", bank.name, error)
        except Problem as problem:
            if problem.status not in (503, 504):
                raise
        else:
            return
        self.unavailable.add(bank.name)


async def visible_collections(service: Service, asker: Principal) -> Visible:
    """Return the tables that a caller may see. Banks are asked at once, and one that cannot be read is noted."""
    visible = Visible()

    async def look(bank: ServedBank) -> dict[str, Pinned]:
        found: dict[str, Pinned] = {}
        async with visible.noting(bank):
            for table in await bank.run(bank.tables):
                known = bank.known(table, None)
                pinned = await bank.run(bank.pin, table, None) if known is None else known
                found[stac_documents.collection_id(bank.name, table)] = pinned
        return found

    banks = [bank for name, bank in service.banks.items() if asker.may("read", name)]
    for found in await asyncio.gather(*map(look, banks)):
        visible.tables |= found
    return visible


async def pin_collection(
    service: Service, asker: Principal, collection: str, version: int | None = None
) -> Pinned:
    """Pin the table behind the id of a collection, at its newest version if none is given."""
    bank, _, table = collection.partition(stac_documents.SEPARATOR)
    return await service.pin(bank, table, version, asker)


async def _collection(
    request: Request, service: Service, asker: Principal, identity: str, pinned: Pinned
) -> dict[str, object]:
    key = (pinned.table, pinned.version)
    extents = pinned.bank.extents
    extent = extents.get(key)
    if extent is None:
        some_deleted = await pinned.bank.run(pinned.bank.has_deleted, pinned)
        first, last, level = (
            (_TIME, _TIME, "samples") if some_deleted else ("first_time", "last_time", "shards")
        )
        sql = (
            "SELECT min(bbox.west) AS west, min(bbox.south) AS south, max(bbox.east) AS east, max(bbox.north) AS north, "
            f'min({first}) AS start, max({last}) AS "end" FROM {quoted(pinned.table)}.{level}'
        )
        job = Rows(pinned.bank.name, pinned.versions, sql, service.limits.answer_bytes)
        (row,) = row_json.readable(pa.ipc.open_stream(await service.query(job, asker)).read_all())
        extent = extents.put(key, row)
    return stac_documents.collection(
        identity,
        base=stac_url(request, service),
        title=pinned.bank.title(pinned.table),
        description=pinned.bank.settings.description,
        licence=pinned.bank.settings.licence,
        schema=pinned.schema,
        extent=[row_json.plain(extent[n]) for n in ("west", "south", "east", "north")],
        times=[row_json.plain(extent[n]) for n in ("start", "end")],
    )
