"""The description of the service in OpenAPI 3.1: FastAPI's, completed by problems, keys, and bodies that are not JSON.

``python -m tensorbank_server`` prints what ``server/openapi.json`` holds.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from tensorbank_server.documents import formats
from tensorbank_server.http import MEDIA_TYPE
from tensorbank_server.planning import task_pages

__all__ = ["add_openapi", "document"]

_PROBLEM = {
    "type": "object",
    "title": "Problem",
    "description": "An answer other than success (RFC 9457).",
    "required": ["type", "title", "status", "detail", "instance", "code"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "For people; may be shown to the caller."},
        "instance": {"type": "string", "description": "Number of the request, as the log has it."},
        "code": {"type": "string", "description": "Stable, for programs."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["pointer", "detail"],
                "properties": {
                    "pointer": {"type": "string", "description": "JSON Pointer into the request."},
                    "detail": {"type": "string"},
                    "code": {"type": "string"},
                },
            },
        },
    },
}
_STATUSES = {
    "400": "The request cannot be answered as it is.",
    "401": "No key, or none that is good.",
    "403": "The key lacks a scope.",
    "404": "There is no such thing, or none for this caller.",
    "409": "Not in this state, or not of this thing.",
    "410": "It was there, and is no more.",
    "413": "Too large, asked or answered.",
    "416": "No range of the object.",
    "422": "The request is not of the documented form.",
    "429": "Too often, or too many at once; see Retry-After.",
    "500": "The service is at fault; the operator finds the request by its number.",
    "503": "Busy, or the store is out of reach; see Retry-After.",
    "504": "Not answered in time.",
}
_BODIES = {
    "getTensor": tuple(formats.MEDIA_TYPES.values()),
    "getTensors": (formats.MEDIA_TYPES["npz"], formats.MEDIA_TYPES["safetensors"]),
    "getPreview": ("image/png", "image/webp"),
    "getTasks": (task_pages.NDJSON, task_pages.ARROW),
    "getShard": ("application/octet-stream",),
    "getSampleZarr": ("application/json", "application/octet-stream"),
    "getModalityZarr": ("application/json", "application/octet-stream"),
    "getPlanZarr": ("application/json", "application/octet-stream"),
    "getMetrics": ("text/plain",),
    "getSample": ("application/json", "application/geo+json"),
    "getItem": ("application/geo+json",),
    "listItems": ("application/geo+json",),
    "searchItems": ("application/geo+json",),
    "searchItemsByBody": ("application/geo+json",),
    "getQueryables": ("application/schema+json",),
    "getCollectionQueryables": ("application/schema+json",),
    "getStacQueryables": ("application/schema+json",),
}
_CONDITIONAL = (
    "getSample",
    "getTensor",
    "getTensors",
    "getPreview",
    "getTable",
    "getSchema",
    "getRows",
    "getFirstRows",
)
_OPEN = ("getHealth", "getReadiness")


def add_openapi(app: FastAPI) -> None:
    """Make an app describe itself by :func:`document`."""

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = document(app)
        return app.openapi_schema

    app.openapi = describe  # type: ignore[method-assign]


def document(app: FastAPI) -> dict[str, Any]:
    """Return the description of an app."""
    found = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        routes=app.routes,
        separate_input_output_schemas=False,
    )
    schemas = found.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Problem"] = _PROBLEM
    found["components"]["securitySchemes"] = {
        "key": {"type": "http", "scheme": "bearer", "bearerFormat": "tb_live_..."}
    }
    problem = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    found["components"]["responses"] = {
        status: {"description": words, "content": problem} for status, words in _STATUSES.items()
    }
    for item in found["paths"].values():
        for operation in item.values():
            _complete(operation)
    return found


def _complete(operation: dict[str, Any]) -> None:
    name = operation["operationId"]
    responses = operation["responses"]
    success = next(status for status in responses if status.startswith("2"))
    if name in _BODIES:
        responses[success]["content"] = {kind: {} for kind in _BODIES[name]}
    if name == "createPlan":
        responses["200"] = {**responses["201"], "description": "The plan was there already."}
        responses["202"] = {**responses["201"], "description": "The plan is being made; see Location."}
    if name == "getShard":
        responses["206"] = {**responses["200"], "description": "The range."}
    if name == "getReadiness":
        responses["503"] = {**responses["200"], "description": "Send requests elsewhere."}
    if name in _CONDITIONAL or "ample" in name:
        responses["304"] = {"description": "The caller has it already."}
    if name in _OPEN:
        return
    operation["security"] = [{"key": []}, {}]
    for status in _STATUSES:
        responses[status] = {"$ref": f"#/components/responses/{status}"}
