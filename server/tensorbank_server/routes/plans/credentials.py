"""Credentials of a plan: fresh addresses of its shards, or keys of the folders that they lie in."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tensorbank_server.access import folders_of
from tensorbank_server.http import Problem
from tensorbank_server.routes.dependencies import Asker, Served
from tensorbank_server.routes.plans.plan_access import (
    NO_STORE,
    Access,
    PlanId,
    ReadablePlan,
    as_iso,
    check_access,
    grant_shards,
    open_plan,
    urls_of,
)
from tensorbank_server.service import Service

__all__ = ["router"]

router = APIRouter(prefix="/v1/plans/{plan}", tags=["plans"])


class CredentialsBody(BaseModel):
    """The request for access to shards of a plan, in one of its ways."""

    model_config = ConfigDict(extra="forbid")

    access: Access
    shards: list[Annotated[str, Field(max_length=1_024)]] | None = Field(
        default=None, max_length=1_000, description="Ids of shards, as tasks have them; all if not given."
    )
    next: str | None = Field(default=None, max_length=2_048)


@router.post("/credentials", operation_id="createCredentials")
async def create_credentials(
    request: Request, service: Served, asker: Asker, plan: PlanId, body: CredentialsBody
) -> Response:
    """Return fresh addresses of a plan's shards, or keys of their folders, and of nothing else."""
    found = await open_plan(service, plan, asker)
    check_access(found.bank, body.access, asker)
    if body.access == "dir":
        return await _folder_credentials(request, service, found)
    following = None
    if body.shards is not None:
        keys = list(dict.fromkeys(body.shards))
        if not found.keys.issuperset(keys):
            raise Problem(404, "unknown-shard", "a shard that was asked for is not one of this plan")
    else:
        question = ("credentials", plan, asker.id)
        start = int(service.page_tokens.place(body.next, *question)) if body.next else 0
        end = start + service.limits.page_shards
        keys = (await service.offload(sorted, found.keys))[start:end]
        following = service.page_tokens.token(end, *question) if end < len(found.keys) else None
    lifetime_s = service.settings.url_lifetime_s
    urls = await found.bank.run(urls_of, request, service, found, body.access, keys)
    grant_shards(request, found.stored, body.access, len(keys), lifetime_s)
    content = {
        "access": body.access,
        "server_time": as_iso(time.time()),
        "expires": as_iso(time.time() + lifetime_s),
        "shards": dict(zip(keys, urls, strict=True)),
        "next": following,
    }
    return JSONResponse(content, headers=NO_STORE)


async def _folder_credentials(request: Request, service: Service, found: ReadablePlan) -> Response:
    """Answer with keys of the store that read the folders of a plan."""
    bank, stored = found.bank, found.stored
    folders = folders_of(found.keys)
    lifetime_s = service.settings.url_lifetime_s
    made = await bank.run(bank.folder_keys, folders, f"tensorbank-{stored.id}", lifetime_s)
    grant_shards(request, stored, "dir", len(found.keys), made.expires_s - time.time())
    content = {
        "access": "dir",
        "server_time": as_iso(time.time()),
        "expires": as_iso(made.expires_s),
        **bank.place(),
        "folders": folders,
        "keys": {
            "access_key": made.access_key,
            "secret_key": made.secret_key,
            "session_token": made.session_token,
        },
    }
    return JSONResponse(content, headers=NO_STORE)
