"""The ways in which a caller reaches a plan: whether it may see it, and where its shards may be read. No routes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import Path
from starlette.requests import Request

from tensorbank.plans import Plan
from tensorbank_server.access import Principal
from tensorbank_server.http import Problem
from tensorbank_server.planning import StoredPlan
from tensorbank_server.routes.dependencies import base_url, granted
from tensorbank_server.served_bank import ServedBank
from tensorbank_server.service import Service

__all__ = [
    "NO_STORE",
    "Access",
    "PlanId",
    "ReadablePlan",
    "allowed",
    "as_iso",
    "check_access",
    "grant_shards",
    "open_plan",
    "urls_of",
]

NO_STORE = {"Cache-Control": "no-store"}
Access = Literal["url", "dir", "proxy"]
PlanId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$", description="Id of a plan.")]


@dataclass(frozen=True, slots=True)
class ReadablePlan:
    """A finished plan, mapped into memory, the keys of all its shards, and its bank."""

    stored: StoredPlan
    plan: Plan
    keys: frozenset[str]
    bank: ServedBank


async def allowed(service: Service, plan: str, asker: Principal) -> StoredPlan:
    """Return a plan that the caller may see: one of a bank that it may plan on.

    Raises
    ------
    Problem
        404 where there is none, or none for this caller.
    """
    stored = await service.plans.get(plan)
    try:
        service.bank(stored.request.bank, asker, "plan")
    except Problem as problem:
        if problem.status == 403:
            raise
        raise Problem(
            404, "unknown-plan", "there is no such plan, or it was removed; ask for it again"
        ) from None
    return stored


async def open_plan(service: Service, plan: str, asker: Principal) -> ReadablePlan:
    """Return a finished plan that the caller may see.

    Raises
    ------
    Problem
        404 as :func:`allowed`; 409 while the plan is being made; 410 if it is gone.
    """
    stored = await allowed(service, plan, asker)
    opened = await service.offload(service.plans.open, stored)
    bank, asked = service.banks[stored.request.bank], stored.request
    bank.protect(asked.table, asked.table_id, asked.version)
    return ReadablePlan(stored, opened.plan, opened.keys, bank)


def urls_of(
    request: Request, service: Service, found: ReadablePlan, access: str, keys: Sequence[str]
) -> list[str]:
    """Return the URLs at which shards of a plan may be read, in the order of their keys."""
    if access == "proxy":
        base = base_url(request, service)
        return [f"{base}/v1/plans/{found.stored.id}/shards/{key}" for key in keys]
    if access == "dir":
        return [f"{found.bank.address.url}/{key}" for key in keys]
    if not keys:
        return []
    service.metrics.presigned.labels(found.bank.name).inc(len(keys))
    return found.bank.sign(keys, service.settings.url_lifetime_s)


def check_access(bank: ServedBank, access: str, asker: Principal) -> None:
    """Refuse a way of reading that the bank does not have or the caller may not use.

    Raises
    ------
    Problem
        409 for the bank, 403 for the caller.
    """
    if access not in bank.accesses():
        raise Problem(
            409,
            "no-access",
            f"this bank does not offer access {access!r}; it offers {', '.join(bank.accesses())}",
        )
    if access == "proxy" and not asker.may("proxy", bank.name):
        raise Problem(403, "scope", "the caller has no scope `proxy`; see scopes in /v1/config")


def grant_shards(request: Request, stored: StoredPlan, access: str, n_shards: int, lifetime_s: float) -> None:
    """Say in the audit log that an answer tells where shards may be read."""
    granted(
        request,
        "credentials",
        bank=stored.request.bank,
        plan=stored.id,
        access=access,
        n_shards=n_shards,
        expires=as_iso(time.time() + lifetime_s),
    )


def as_iso(seconds: float) -> str:
    """Return a time of the wall clock, seconds since 1970, as ISO 8601 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
