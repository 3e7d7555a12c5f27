"""Routes for operators: health, readiness, metrics, and the configuration that a caller may see."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

import tensorbank
from tensorbank_server.http import Problem
from tensorbank_server.routes.dependencies import Asker, Served
from tensorbank_server.workers.landlock import abi_version

__all__ = ["router"]

router = APIRouter(tags=["service"])
NO_STORE = {"Cache-Control": "no-store"}


@router.get("/healthz", operation_id="getHealth")
async def healthz() -> JSONResponse:
    """Tell that the process answers."""
    return JSONResponse({"status": "ok"}, headers=NO_STORE)


@router.get("/readyz", operation_id="getReadiness")
async def readyz(service: Served) -> JSONResponse:
    """Tell whether requests should be sent here. A sick bank is named and does not affect the others; no store is asked."""
    sick = {
        name: bank.watch.problem for name, bank in service.banks.items() if bank.watch.problem is not None
    }
    workers = service.workers.n_alive if service.is_ready else 0
    readable = not service.banks or len(sick) < len(service.banks)
    limits = service.rate_store.problem if service.rate_store is not None else None
    ready = service.is_ready and workers > 0 and readable
    disk = service.disk_problem
    content: dict[str, object] = {
        "status": "unavailable" if not ready else "degraded" if sick or disk or limits else "ok",
        "workers": workers,
        "banks": len(service.banks),
        "broken_banks": len(sick),
        "data_folder": disk or "ok",
        "limits": limits or "ok",
        "landlock": abi_version(),
    }
    if (
        service.settings.access == "open"
    ):  # names of banks are for those who may see them: /v1/banks, /metrics
        content["sick"] = sick
    return JSONResponse(content, 200 if ready else 503, headers=NO_STORE)


@router.get("/metrics", operation_id="getMetrics", response_class=Response)
async def metrics(service: Served, asker: Asker) -> Response:
    """Return the counters in the text format of Prometheus; needs the scope ``admin``."""
    if service.settings.metrics_port is not None or not asker.may("admin"):
        raise Problem(404, "not-found", "there is nothing at this address")
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4", headers=NO_STORE)


@router.get("/v1/config", operation_id="getConfig")
async def config(request: Request, service: Served, asker: Asker) -> dict[str, object]:
    """Return the limits, the endpoints, and the scopes of this caller."""
    endpoints = sorted(
        f"{method.upper()} {path}"
        for path, item in request.app.openapi()["paths"].items()
        for method in item
        if path.startswith(("/v1", "/stac"))
    )
    return {
        "version": tensorbank.__version__,
        "endpoints": endpoints,
        "limits": service.limits.model_dump(),
        "defaults": {
            "url_lifetime_s": service.settings.url_lifetime_s,
            "plan_lifetime_s": service.settings.plan_lifetime_s,
        },
        "scopes": sorted(asker.scopes),
    }
