"""Samples by id, as JSON and as files of their tensors."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tensorbank_server.documents import Cut, formats, read_tensor, sample_json, stac_documents
from tensorbank_server.documents.row_json import Row
from tensorbank_server.http import Problem, chosen, whole_or_range
from tensorbank_server.routes.dependencies import SampleId, Served, Source, base_url, freshness, table_url
from tensorbank_server.served_bank import Pinned
from tensorbank_server.service import Service

__all__ = ["Split", "find", "router"]

router = APIRouter(prefix="/v1/banks/{bank}/tables/{table}/samples", tags=["samples"])

JSON, GEOJSON = "application/json", "application/geo+json"
Split = Annotated[
    str | None, Query(max_length=64, description="Split of the sample, where several splits have this id.")
]
Bands = Annotated[
    str | None, Query(max_length=1_024, description="Names, separated by commas, in the wanted order.")
]
Window = Annotated[str | None, Query(max_length=64, description="y0,x0,height,width in pixels.")]
Modalities = Annotated[
    str | None, Query(max_length=1_024, description="Names, separated by commas; all if not given.")
]


@router.get("/{sample_id}", operation_id="getSample")
async def get_sample(
    request: Request, service: Served, source: Source, sample_id: SampleId, split: Split = None
) -> Response:
    """Return the place and time of a sample and its modalities.

    A STAC Item for ``Accept: application/geo+json``.
    """
    as_item = chosen(request.headers.get("accept", ""), (JSON, GEOJSON)) == GEOJSON
    fresh = freshness(request, service, source, "item" if as_item else "json")
    if fresh.is_known:
        return fresh.not_modified()
    row = await find(source, sample_id, split)
    if as_item:
        content = stac_documents.item(
            row,
            source.schema,
            base=f"{base_url(request, service)}/stac",
            collection=stac_documents.collection_id(source.bank.name, source.table),
            table_url=table_url(request, service, source),
        )
        return JSONResponse(content, headers=fresh.headers, media_type=GEOJSON)
    return JSONResponse(
        {"snapshot": source.version, **sample_json(row, source.schema)}, headers=fresh.headers
    )


@router.get("/{sample_id}/tensors.{form}", operation_id="getTensors", response_class=Response)
async def get_tensors(
    request: Request,
    service: Served,
    source: Source,
    sample_id: SampleId,
    form: Annotated[Literal["npz", "safetensors"], Path()],
    modalities: Modalities = None,
    split: Split = None,
) -> Response:
    """Return several modalities of a sample in one file; those that it lacks are left out."""
    fresh = freshness(request, service, source, form)
    if fresh.is_known:
        return fresh.not_modified()
    row = await find(source, sample_id, split)
    names = [n.strip() for n in modalities.split(",")] if modalities else list(source.schema.names)
    cuts = [Cut.of(source.schema[name]) for name in dict.fromkeys(names)]
    body = await source.bank.run(
        _encode, service, source, row, [c for c in cuts if row[c.modality.name]], form
    )
    headers = {**fresh.headers, **_disposition(f"{sample_id}.{form}")}
    return Response(body, media_type=formats.MEDIA_TYPES[form], headers=headers)


@router.get("/{sample_id}/{modality}.{form}", operation_id="getTensor", response_class=Response)
async def get_tensor(
    request: Request,
    service: Served,
    source: Source,
    sample_id: SampleId,
    modality: Annotated[str, Path(max_length=128)],
    form: Annotated[Literal["npy", "npz", "safetensors", "tif"], Path()],
    bands: Bands = None,
    window: Window = None,
    split: Split = None,
) -> Response:
    """Return one modality of a sample, (time, band, y, x)."""
    fresh = freshness(request, service, source, form)
    if fresh.is_known:
        return fresh.not_modified()
    cut = Cut.of(source.schema[modality], bands, window)
    row = await find(source, sample_id, split)
    if row[modality] is None:
        raise Problem(404, "no-modality", f"the sample has no {modality}")
    headers = {**fresh.headers, **_disposition(f"{sample_id}.{modality}.{form}")}
    if form != "tif":
        body = await source.bank.run(_encode, service, source, row, [cut], form)
        return Response(body, media_type=formats.MEDIA_TYPES[form], headers=headers)
    key = f"{request.url.path} {fresh.etag}"

    def encoded() -> bytes:
        return service.encoded.get(key, lambda: _encode(service, source, row, [cut], form))

    return whole_or_range(request, await source.bank.run(encoded), headers, formats.MEDIA_TYPES[form])


async def find(source: Pinned, sample_id: str, split: str | None) -> Row:
    """Return the one sample of an id.

    Raises
    ------
    Problem
        409 where several splits have one.
    """
    found = await source.bank.run(lambda: source.bank.samples(source).find(sample_id, split))
    if len(found) > 1:
        splits = ", ".join(sorted(str(row["split"]) for row in found))
        raise Problem(409, "ambiguous-sample", f"there are samples of this id in {splits}; add ?split=")
    return found[0]


def _encode(service: Service, source: Pinned, row: Row, cuts: list[Cut], form: str) -> bytes:
    n_bytes = sum(cut.n_bytes for cut in cuts)
    if n_bytes > service.limits.tensor_bytes:
        raise Problem(413, "too-large", f"{n_bytes:,} bytes of tensors; ask for fewer bands or modalities")
    tensors = {c.modality.name: read_tensor(source.bank.fetcher, row[c.modality.name], c) for c in cuts}
    service.metrics.read_bytes.labels(source.bank.name).inc(sum(row[n]["length"] for n in tensors))
    if form == "npz":
        return formats.as_npz(tensors)
    if form == "safetensors":
        words = {"sample_id": row["sample_id"], "table": source.table, "snapshot": str(source.version)}
        bands = {c.modality.name: list(c.band_names) for c in cuts}
        return formats.as_safetensors(tensors, words | {"bands": json.dumps(bands)})
    (cut,) = cuts
    (tensor,) = tensors.values()
    if form == "npy":
        return formats.as_npy(tensor)
    m = cut.modality
    place = formats.georeference(row, m.height, m.width, cut.window)
    names = [b if m.n_times == 1 else f"{b} {t}" for t in range(m.n_times) for b in cut.band_names]
    no_data = m.attributes.get("nodata")
    numeric = float(no_data) if isinstance(no_data, int | float | str) and _is_number(no_data) else None
    layers = tensor.reshape(-1, *tensor.shape[2:])
    return formats.as_geotiff(layers, place, names, no_data=numeric, categorical=m.categorical)


def _is_number(value: object) -> bool:
    try:
        float(str(value))
    except ValueError:
        return False
    return True


def _disposition(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}"'}
