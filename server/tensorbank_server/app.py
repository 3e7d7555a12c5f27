"""The ASGI application: routes, front and service put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import prometheus_client
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

import tensorbank
from tensorbank.errors import InvalidInputError
from tensorbank_server.access import Authenticator
from tensorbank_server.front import Front
from tensorbank_server.http import add_handlers
from tensorbank_server.monitoring import Metrics
from tensorbank_server.openapi import add_openapi
from tensorbank_server.routes import banks, health, pages, samples, sql, table_contents, views
from tensorbank_server.routes.plans import credentials, plan_reads, submission
from tensorbank_server.routes.stac import item_search, stac_catalog
from tensorbank_server.service import Service
from tensorbank_server.settings import Settings

__all__ = ["create_app"]

ROUTERS = (
    health.router,
    pages.router,
    banks.router,
    table_contents.router,
    submission.router,
    credentials.router,
    plan_reads.router,
    stac_catalog.router,
    item_search.router,
    sql.router,
    views.router,
    samples.router,
)


def create_app(settings: Settings) -> FastAPI:
    """Build the service as an ASGI application; its lifespan opens banks, workers and threads.

    Raises
    ------
    InvalidInputError
        Nobody could be let in: access is by keys, and there is neither a file of keys nor an issuer.
    """
    if settings.access == "keys" and settings.keys_file is None and settings.oidc is None:
        raise InvalidInputError(
            "access is by keys, but there are none: give keys_file (TENSORBANK_KEYS_FILE), an OIDC issuer, or access='open'"
        )
    metrics = Metrics()
    service = Service(settings, metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.open()
        exporter = None
        if settings.metrics_port is not None:
            exporter = prometheus_client.start_http_server(
                settings.metrics_port, addr=settings.metrics_host, registry=metrics.registry
            )[0]
        try:
            yield
        finally:
            if exporter is not None:
                exporter.shutdown()
                exporter.server_close()
            await service.close()

    app = FastAPI(
        title="TensorBank",
        version=tensorbank.__version__,
        summary="Look, query, fetch samples, and plan training over a tensor lakehouse.",
        lifespan=lifespan,
        redirect_slashes=False,
        openapi_url=None,  # and its pages: see routes.pages
        docs_url=None,
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    app.state.service = service
    add_handlers(app)
    add_openapi(app)
    for router in ROUTERS:
        app.include_router(router)
    app.add_middleware(
        Front,
        settings=settings,
        metrics=metrics,
        authenticator=Authenticator(settings, service.rate_store),
        audit=service.audit,
        is_ending=lambda: service.is_ending,
        rate_store=service.rate_store,
        traces=service.traces,
    )
    if settings.cors_origins:  # outside of the front, which would ask preflights for a key
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "HEAD", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "If-None-Match", "Range", "X-Request-Id"],
            expose_headers=["ETag", "Link", "RateLimit", "X-Request-Id", "Retry-After"],
        )
    return app
