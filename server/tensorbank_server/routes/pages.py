"""Pages for a browser: a start page, and the description of the endpoints to read and to try.

Everything that they load comes from the service itself, since its Content-Security-Policy admits nothing else. They need no key
and show nothing of a bank; what is tried from them asks for one.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from string import Template

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

import tensorbank
from tensorbank_server.http import Problem

__all__ = ["OPENAPI", "router"]

router = APIRouter(include_in_schema=False)
OPENAPI = "application/vnd.oai.openapi+json;version=3.1"
_HOUR = {"Cache-Control": "max-age=3600"}
_STATIC = {
    "style.css": ("tensorbank_server", "pages/style.css", "text/css"),
    "docs.js": ("tensorbank_server", "pages/docs.js", "text/javascript"),
    "swagger-ui.css": ("fastapi_offline", "static/swagger-ui.css", "text/css"),
    "swagger-ui-bundle.js": ("fastapi_offline", "static/swagger-ui-bundle.js", "text/javascript"),
}
"""The package, path in it and media type of each file below ``/static``; no other file can be asked for."""


@cache
def _content(package: str, path: str) -> bytes:
    return files(package).joinpath(path).read_bytes()


@router.get("/")
async def get_start() -> Response:
    """Show what this is, and where to go from here."""
    page = Template(_content("tensorbank_server", "pages/index.html").decode())
    return Response(page.substitute(version=tensorbank.__version__), media_type="text/html", headers=_HOUR)


@router.get("/docs")
async def get_docs() -> Response:
    """Show the endpoints, drawn from the OpenAPI document."""
    return Response(_content("tensorbank_server", "pages/docs.html"), media_type="text/html", headers=_HOUR)


@router.get("/openapi.json")
async def get_openapi(request: Request) -> Response:
    """Describe the endpoints for programs."""
    return JSONResponse(request.app.openapi(), media_type=OPENAPI, headers={"Cache-Control": "no-cache"})


@router.get("/static/{name}")
async def get_static(name: str) -> Response:
    """Return a file that the pages load."""
    if name not in _STATIC:
        raise Problem(404, "not-found", "there is nothing at this address")
    package, path, kind = _STATIC[name]
    return Response(_content(package, path), media_type=kind, headers=_HOUR)
