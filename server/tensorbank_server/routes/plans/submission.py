"""Plans from the request to the tasks: asked for, looked at, cancelled, delivered."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from email.utils import formatdate
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import iterate_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from tensorbank_server.digests import digest
from tensorbank_server.documents import Cut
from tensorbank_server.http import Problem, chosen
from tensorbank_server.planning import PlanRequest, StoredPlan, plan_sql, task_pages
from tensorbank_server.routes.dependencies import (
    Asker,
    BankName,
    Served,
    Snapshot,
    base_url,
    condition,
    filter_names,
    granted,
)
from tensorbank_server.routes.plans.plan_access import (
    NO_STORE,
    Access,
    PlanId,
    allowed,
    as_iso,
    check_access,
    grant_shards,
    open_plan,
    urls_of,
)
from tensorbank_server.served_bank import Pinned
from tensorbank_server.service import Service

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["plans"])
Name = Annotated[str, Field(max_length=256)]


class PlanBody(BaseModel):
    """The request for a plan: samples of one table by a filter, and the tensors of them that are wanted."""

    model_config = ConfigDict(extra="forbid")

    table: str = Field(max_length=63)
    snapshot: Snapshot | None = Field(
        default=None, description="Version: its number, a tag, or a time; the newest if not given."
    )
    filter: str | bool | dict[str, object] | None = Field(default=None, description="CQL2, as text or JSON.")
    modalities: list[Name] | None = Field(default=None, max_length=64, description="All if not given.")
    bands: dict[Name, list[Name]] | None = Field(
        default=None, max_length=64, description="Bands of each modality; all if not given."
    )
    columns: list[Name] = Field(
        default=["sample_id"], max_length=64, description="Queryables to deliver with each sample."
    )
    limit: int | None = Field(default=None, ge=1, le=2**40, description="The first so many samples by id.")
    by_date: bool = Field(
        default=False, description="Address each date of a sample alone, for readers that choose among them."
    )


@router.post("/banks/{bank}/plans", operation_id="createPlan", status_code=201)
async def create_plan(
    request: Request, service: Served, asker: Asker, bank: BankName, body: PlanBody
) -> Response:
    """Make a plan, or find it: the same question of the same snapshot has the same id."""
    service.bank(bank, asker, "plan")
    await service.queries.spend(asker.id)
    pinned = await service.pin(bank, body.table, body.snapshot, asker)
    sql = await service.offload(_sql, service, pinned, body)
    pinned.bank.check()
    asked = body.model_dump(exclude_none=True) | {"snapshot": pinned.version}
    wanted = PlanRequest(
        bank, pinned.table, pinned.version, pinned.table_id, sql, asked, by_date=body.by_date
    )
    request.scope["tensorbank.log"] = {"bank": bank, "plan": wanted.id}
    stored, is_new = await service.plans.submit(wanted, asker.id, service.limits.sync_s)
    if stored.state == "failed" and stored.problem is not None:
        raise stored.problem
    pinned.bank.protect(pinned.table, pinned.table_id, pinned.version)
    granted(
        request,
        "plan",
        bank=bank,
        snapshot=f"{pinned.table}@{pinned.version}",
        plan=stored.id,
        filter=digest(asked.get("filter")),
        n_samples=stored.made and stored.made.n_samples,
        n_bytes=stored.made and stored.made.read_bytes,
        state=stored.state,
    )
    headers = {**NO_STORE, "Location": f"/v1/plans/{stored.id}"}
    if stored.state == "submitted":
        return JSONResponse(_status(request, service, stored), 202, {**headers, "Retry-After": "1"})
    return JSONResponse(_status(request, service, stored), 201 if is_new else 200, headers)


def _sql(service: Service, pinned: Pinned, body: PlanBody) -> str:
    schema = pinned.schema
    names = list(dict.fromkeys(body.modalities if body.modalities is not None else schema.names))
    chosen = body.bands or {}
    for name in chosen:
        if name not in names:
            raise Problem(422, "invalid-request", "bands are given for a modality that is not selected")
    handles = []
    for name in names:
        m = schema[name]
        cut = Cut.of(m, chosen[name]) if name in chosen else None
        handles.append((m.name, cut.band_names if cut else None))
    known = filter_names(pinned)
    columns = {"sample_id": known["sample_id"].sql}
    for name in body.columns:
        found = known.get(name)
        if found is None or found.kind not in ("number", "string", "timestamp"):
            raise Problem(
                422, "invalid-request", f"{name[:80]!r} is not a column of the samples; see queryables"
            )
        columns[name] = found.sql
    where = condition(service, pinned, body.filter)
    return plan_sql(pinned.table, handles, list(columns.items()), where, body.limit)


@router.get("/plans/{plan}", operation_id="getPlan")
async def get_plan(request: Request, service: Served, asker: Asker, plan: PlanId) -> Response:
    """Return the state of a plan and what it holds."""
    stored = await allowed(service, plan, asker)
    headers = {**NO_STORE, **({"Retry-After": "1"} if stored.state == "submitted" else {})}
    return JSONResponse(_status(request, service, stored), headers=headers)


@router.delete("/plans/{plan}", operation_id="cancelPlan", status_code=204)
async def cancel_plan(service: Served, asker: Asker, plan: PlanId) -> Response:
    """Say that the plan is needed no more; it ends when nobody is left who asked for it, or where the scope is `admin`."""
    stored = await allowed(service, plan, asker)
    await service.plans.cancel(stored, asker.id, for_all=asker.may("admin"))
    return Response(status_code=204, headers=NO_STORE)


@router.get("/plans/{plan}/tasks", operation_id="getTasks", response_class=Response)
async def get_tasks(
    request: Request,
    service: Served,
    asker: Asker,
    plan: PlanId,
    access: Annotated[
        Access | None, Query(description="Deliver with addresses of shards; NDJSON only.")
    ] = None,
    next_page: Annotated[str | None, Query(alias="next", max_length=2_048)] = None,
    limit: Annotated[int | None, Query(ge=1, description="Tasks a page.")] = None,
) -> Response:
    """Return samples and byte ranges, one page at a time.

    NDJSON, or Arrow for ``Accept: application/vnd.apache.arrow.stream``.
    """
    found = await open_plan(service, plan, asker)
    stored, bank = found.stored, found.bank
    as_arrow = (
        chosen(request.headers.get("accept", ""), (task_pages.NDJSON, task_pages.ARROW)) == task_pages.ARROW
    )
    question = ("tasks", plan, asker.id)
    start = int(service.page_tokens.place(next_page, *question)) if next_page else 0
    most = service.limits.page_arrow_tasks if as_arrow else service.limits.page_tasks
    end = min(len(found.plan), start + min(limit or most, most))
    lifetime_s = service.settings.url_lifetime_s
    last = {
        "n_tasks": end - start,
        "n_total": len(found.plan),
        "next": service.page_tokens.token(end, *question) if end < len(found.plan) else None,
        "expires": as_iso(time.time() + lifetime_s) if access else None,
        "sample_sha256": stored.made and stored.made.sample_sha256,
    }
    headers = {**NO_STORE, "Date": formatdate(usegmt=True), "Vary": "Accept"}
    if as_arrow:
        words = {
            "id": stored.id,
            "fingerprint": stored.made and stored.made.fingerprint,
            "snapshots": {stored.request.table: [stored.request.table_id, stored.request.version]},
            "sql": found.plan.source.sql,
            "handles": task_pages.described(found.plan),
        }
        content = task_pages.as_arrow(found.plan, start, end, words, last)
        return StreamingResponse(iterate_in_threadpool(content), media_type=task_pages.ARROW, headers=headers)
    shards: Iterator[Mapping[str, object]] = iter(())
    if access is not None:
        check_access(bank, access, asker)
        keys = await service.offload(task_pages.shard_keys, found.plan, start, end)
        urls = await bank.run(urls_of, request, service, found, access, keys)
        grant_shards(request, stored, access, len(keys), lifetime_s)
        shards = ({"id": key, "url": url} for key, url in zip(keys, urls, strict=True))
    content = task_pages.as_ndjson(found.plan, start, end, shards, last)
    return StreamingResponse(iterate_in_threadpool(content), media_type=task_pages.NDJSON, headers=headers)


def _status(request: Request, service: Service, stored: StoredPlan) -> dict[str, object]:
    here = f"{base_url(request, service)}/v1/plans/{stored.id}"
    found: dict[str, object] = {
        "id": stored.id,
        "state": stored.state,
        "bank": stored.request.bank,
        "table": stored.request.table,
        "snapshot": stored.request.version,
        "created": as_iso(stored.created_s),
        "access": service.banks[stored.request.bank].accesses()
        if stored.request.bank in service.banks
        else [],
        "links": {name: f"{here}/{name}" for name in ("tasks", "credentials")}
        | {"zarr": f"{here}/zarr", "references": f"{here}/references.json"},
    }
    if stored.made is not None:
        made = stored.made
        found |= {
            "fingerprint": made.fingerprint,
            "n_samples": made.n_samples,
            "n_shards": made.n_shards,
            "n_requests": made.n_requests,
            "read_bytes": made.read_bytes,
            "tensor_bytes": made.tensor_bytes,
            "sample_sha256": made.sample_sha256,
            "levels": {name: {"considered": c, "kept": k} for name, (c, k) in made.levels.items()},
        }
    if stored.problem is not None:
        found["error"] = {"code": stored.problem.code, "detail": stored.problem.detail}
    return found
