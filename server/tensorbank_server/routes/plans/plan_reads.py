"""Reads of a plan through the service: ranges of its shards, and a view of it as Zarr.

For closed networks, for banks of files, and for clients that know Zarr and nothing of TensorBank.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from tensorbank.errors import ErrorKind, NotFoundError
from tensorbank.layout import group_document, place_of_key
from tensorbank.plans import Handle, Plan
from tensorbank.ranges import ByteRange
from tensorbank_server.digests import digest
from tensorbank_server.documents import CHUNK, BlockAddress, byte_ranges, of_plan, read_block, virtual_zarr
from tensorbank_server.http import Problem, content_range, may_resume, parse_range
from tensorbank_server.routes.dependencies import Asker, Served, granted
from tensorbank_server.routes.etags import YEAR_S
from tensorbank_server.routes.plans.plan_access import (
    Access,
    PlanId,
    ReadablePlan,
    check_access,
    grant_shards,
    open_plan,
    urls_of,
)
from tensorbank_server.service import Service

__all__ = ["router"]

router = APIRouter(prefix="/v1/plans/{plan}", tags=["plans"])
PIECE_BYTES = 4 << 20
FOREVER = {"Cache-Control": f"private, max-age={YEAR_S}, immutable", "Vary": "Authorization"}


@router.get("/shards/{key:path}", operation_id="getShard", response_class=Response)
async def get_shard(
    request: Request,
    service: Served,
    asker: Asker,
    plan: PlanId,
    key: Annotated[str, Path(max_length=1_024, description="Id of a shard, as tasks have it.")],
) -> Response:
    """Return a range of a shard of a plan; whoever decodes its blocks verifies them."""
    found = await open_plan(service, plan, asker)
    stored, bank = found.stored, found.bank
    check_access(bank, "proxy", asker)
    if key not in found.keys:
        raise Problem(404, "unknown-shard", "this plan has no such shard")
    n_bytes = await bank.run(bank.size, key)
    etag = f'"{digest(stored.request.table_id, key, n_bytes)}"'
    resumes = may_resume(request.headers.get("if-range"), etag)
    asked = parse_range(request.headers.get("range"), n_bytes) if resumes else None
    start, end = asked or (0, n_bytes)
    if end - start > service.limits.proxy_range_bytes:
        raise Problem(
            413, "too-large", f"at most {service.limits.proxy_range_bytes:,} bytes at once; ask for a range"
        )
    headers = {
        **FOREVER,
        "Accept-Ranges": "bytes",
        "Content-Length": str(end - start),
        "ETag": etag,
    }
    if asked:
        headers["Content-Range"] = content_range(start, end, n_bytes)
    first_end = min(start + PIECE_BYTES, end)
    first = await bank.run(bank.fetcher.fetch, ByteRange(key, start, first_end))  # errors before the status
    service.metrics.read_bytes.labels(bank.name).inc(end - start)
    granted(request, "proxy", bank=bank.name, plan=stored.id, key=key, start=start, n_bytes=end - start)

    async def pieces() -> AsyncIterator[memoryview]:
        yield first
        for at in range(first_end, end, PIECE_BYTES):
            yield await bank.run(bank.fetcher.fetch, ByteRange(key, at, min(at + PIECE_BYTES, end)))

    return StreamingResponse(pieces(), 206 if asked else 200, headers, media_type="application/octet-stream")


@router.get("/zarr/{path:path}", operation_id="getPlanZarr", response_class=Response)
async def get_plan_zarr(
    service: Served,
    asker: Asker,
    plan: PlanId,
    path: Annotated[str, Path(max_length=256)],
) -> Response:
    """Return a selection as a Zarr v3 group, an array ``[sample, time, band, y, x]`` a modality; chunks are the stored blocks."""
    found = await open_plan(service, plan, asker)
    bank = found.bank
    if not asker.may("proxy"):
        raise Problem(403, "scope", "the caller has no scope `proxy`; see scopes in /v1/config")
    _check_whole(found.plan)
    if path == "zarr.json":
        return JSONResponse(await bank.run(_group, found), headers=FOREVER)
    array, _, key = path.partition("/")
    handle = next((h for h in found.plan.handles if h.name == array), None)
    if handle is None:
        coordinate = (await service.offload(of_plan, found.plan)).get(array)
        if coordinate is not None and key == "zarr.json":
            return JSONResponse(coordinate.document(), headers=FOREVER)
        if coordinate is not None and key == CHUNK:
            chunk = await service.offload(coordinate.chunk)
            return Response(chunk, media_type="application/octet-stream", headers=FOREVER)
        raise Problem(404, "not-found", "there is nothing at this address")
    if key == "zarr.json":
        return JSONResponse(await bank.run(_array, found, handle), headers=FOREVER)
    if key == "c":
        raise Problem(404, "no-chunk", "no such chunk")
    body = await bank.run(_chunk, service, found, handle, key)
    return Response(body, media_type="application/octet-stream", headers=FOREVER)


@router.get("/references.json", operation_id="getReferences")
async def get_references(
    request: Request,
    service: Served,
    asker: Asker,
    plan: PlanId,
    access: Annotated[Access | None, Query(description="The best that the bank has if not given.")] = None,
) -> Response:
    """Return the same group in Kerchunk's form: the address of each chunk, so that its bytes do not pass the service."""
    found = await open_plan(service, plan, asker)
    bank = found.bank
    way = access or bank.accesses()[0]
    check_access(bank, way, asker)
    _check_whole(found.plan)
    n_chunks = len(found.plan) * sum(h.n_times * len(h.bands) for h in found.plan.handles)
    if n_chunks > service.limits.reference_chunks:
        raise Problem(
            413,
            "too-large",
            f"{n_chunks:,} chunks; a reference file has at most {service.limits.reference_chunks:,}",
        )
    keys = list(found.keys)
    urls = await bank.run(urls_of, request, service, found, way, keys)
    grant_shards(request, found.stored, way, len(keys), service.settings.url_lifetime_s)
    document = await bank.work(_references, found, dict(zip(keys, urls, strict=True)))
    return JSONResponse(document, headers={"Cache-Control": "no-store"})


def _check_whole(plan: Plan) -> None:
    if not plan.handles:
        raise Problem(409, "no-tensors", "the plan selects no modality")
    if any(h.window is not None for h in plan.handles):
        raise Problem(
            409, "tiles", "a plan of tiles has no Zarr view, since a tile is not made of whole blocks"
        )


def _group(found: ReadablePlan) -> dict[str, object]:
    arrays = {h.name: _array(found, h) for h in found.plan.handles}
    coordinates = of_plan(found.plan)
    attributes = {
        "plan": found.stored.id,
        "table": found.stored.request.table,
        "snapshot": found.stored.request.version,
        "coordinates": " ".join(coordinates),  # as CF tells coordinates from other variables
    }
    return group_document(attributes, arrays | {n: c.document() for n, c in coordinates.items()})


def _array(found: ReadablePlan, handle: Handle) -> dict[str, object]:
    keys = found.plan.addresses[handle.name].shard_keys
    if not keys:
        raise Problem(409, "no-tensors", f"no sample of the plan has {handle.name}")
    stored = found.bank.array_document(place_of_key(keys[0])[0])
    modalities = [h.modality for h in found.plan.handles]
    codecs = virtual_zarr.inner_codecs(stored)
    return virtual_zarr.array_document(handle, modalities, codecs, len(found.plan))


def _chunk(service: Service, found: ReadablePlan, handle: Handle, key: str) -> bytes:
    chunk = virtual_zarr.parse_chunk_key(key, handle, len(found.plan))
    ref = _ref(found, handle, chunk.sample)
    if ref is None:
        raise NotFoundError("no such chunk", kind=ErrorKind.NO_CHUNK)
    block = chunk.time * len(handle.modality.bands) + handle.bands[chunk.band]
    service.metrics.read_bytes.labels(found.bank.name).inc(ref["block_bytes"][block])
    return read_block(found.bank.fetcher, ref, handle.modality, block)


def _ref(found: ReadablePlan, handle: Handle, position: int) -> BlockAddress | None:
    """Return the address of a sample of a plan with the lengths of its blocks, None if it lacks the modality.

    The plan has the lengths of runs of blocks, so the lengths of single blocks come from the index of its snapshot.
    """
    plan, request = found.plan, found.stored.request
    a = plan.addresses[handle.name]
    if a.shard_of[position] < 0:
        return None
    pinned = found.bank.pin(request.table, request.version)
    sample_id = plan.table["sample_id"][position].as_py()
    for row in found.bank.samples(pinned).find(sample_id):
        ref: BlockAddress | None = row[handle.modality.name]
        if ref is None or ref["key"] != a.shard_keys[a.shard_of[position]]:
            continue
        if byte_ranges(ref, [handle.runs[0]])[0].start == a.starts[position, 0]:
            return ref
    raise Problem(410, "gone", "the plan's snapshot no longer exists; ask for the plan again")


def _references(found: ReadablePlan, urls: dict[str, str]) -> dict[str, object]:
    refs: dict[str, object] = {"zarr.json": json.dumps(_group(found))}
    for name, coordinate in of_plan(found.plan).items():
        refs[f"{name}/zarr.json"] = json.dumps(coordinate.document())
        refs[f"{name}/{CHUNK}"] = "base64:" + base64.b64encode(coordinate.chunk()).decode()
    for handle in found.plan.handles:
        refs[f"{handle.name}/zarr.json"] = json.dumps(_array(found, handle))
        refs |= _chunk_references(found, handle, urls)
    return {"version": 1, "refs": refs}


def _chunk_references(found: ReadablePlan, handle: Handle, urls: dict[str, str]) -> dict[str, object]:
    """Return ``[url, offset, length]`` of every chunk of a handle, by its key; blocks that are not there have none."""
    n_bands = len(handle.modality.bands)
    blocks = [(t, i, t * n_bands + b) for t in range(handle.n_times) for i, b in enumerate(handle.bands)]
    refs: dict[str, object] = {}
    for position in range(len(found.plan)):
        ref = _ref(found, handle, position)
        if ref is None:
            continue
        ranges = byte_ranges(ref, [(block, block + 1) for *_, block in blocks])
        for (time, band, _), r in zip(blocks, ranges, strict=True):
            if r.n_bytes:
                chunk = f"{handle.name}/c/{position}/{time}/{band}/0/0"
                refs[chunk] = [urls[r.key], r.start, r.n_bytes]
    return refs
