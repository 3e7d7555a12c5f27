"""Views of one sample: pictures, numbers at a point, statistics, and its arrays as Zarr."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Annotated, Literal

import pyarrow as pa
import pyproj
from fastapi import APIRouter, Path, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tensorbank.errors import InvalidInputError
from tensorbank.layout import group_document, place_of_key
from tensorbank.plans import Handle
from tensorbank.schema import Modality
from tensorbank_server.documents import (
    CHUNK,
    Cut,
    composites,
    count_times,
    formats,
    of_band_names,
    read_block,
    read_tensor,
    row_json,
    virtual_zarr,
)
from tensorbank_server.documents.row_json import Row
from tensorbank_server.filters import Literal as FilterLiteral
from tensorbank_server.filters import quoted
from tensorbank_server.http import Problem
from tensorbank_server.routes.dependencies import Asker, SampleId, Served, Source, freshness
from tensorbank_server.routes.samples import Modalities, Split, find
from tensorbank_server.served_bank import Pinned, ServedBank
from tensorbank_server.workers.jobs import Rows

__all__ = ["router"]

router = APIRouter(prefix="/v1/banks/{bank}/tables/{table}/samples/{sample_id}", tags=["samples"])

DEFAULT_SIZE = 256


@router.get("/preview.{form}", operation_id="getPreview", response_class=Response)
async def get_preview(
    request: Request,
    service: Served,
    source: Source,
    sample_id: SampleId,
    form: Annotated[Literal["png", "webp"], Path()],
    composite: Annotated[
        str | None, Query(max_length=64, description="Its name; the first that fits if not given.")
    ] = None,
    size: Annotated[int, Query(ge=8, le=1_024, description="Pixels of the longer side.")] = DEFAULT_SIZE,
    rescale: Annotated[
        str | None, Query(max_length=64, description="Values that become black and white: low,high.")
    ] = None,
    time: Annotated[int, Query(ge=0, le=10_000, description="Number of the date.")] = 0,
    split: Split = None,
) -> Response:
    """Return a picture of a sample by a named composite."""
    fresh = freshness(request, service, source, form)
    if fresh.is_known:
        return fresh.not_modified()
    if composite is not None and composite not in composites.COMPOSITES:
        raise Problem(
            404,
            "unknown-composite",
            f"there is no such composite; choose one of {', '.join(composites.COMPOSITES)}",
        )
    row = await find(source, sample_id, split)
    ranged = _range(rescale)
    body = await source.bank.run(_paint, source, row, composite, size, ranged, time, form)
    return Response(body, media_type=f"image/{form}", headers=fresh.headers)


def _range(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low, high = 0.0, 0.0
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InvalidInputError("rescale is two finite numbers, the lower first: low,high")
    return low, high


def _paint(
    source: Pinned,
    row: Row,
    name: str | None,
    size: int,
    rescale: tuple[float, float] | None,
    time: int,
    form: str,
) -> bytes:
    present = [m for m in source.schema.names if row[m] is not None]
    for composite in [composites.COMPOSITES[name]] if name else composites.COMPOSITES.values():
        found = composite.source(source.schema, present)
        if found is None:
            continue
        modality, bands = found
        n_times = count_times(row[modality.name], modality)
        if time >= n_times:
            raise Problem(
                404,
                "unknown-time",
                f"time is {time}; it must be below {n_times}, the number of dates of the sample",
            )
        whole = (0, modality.height, 0, modality.width)
        tensor = read_tensor(source.bank.fetcher, row[modality.name], Cut(modality, bands, whole))
        painting = composites.Painting(modality, rescale, _pixel_m(row, modality))
        return composites.encode(composites.picture(composite, tensor[time], painting, size), form)
    raise Problem(404, "no-modality", "the sample has no modality that this composite is made of")


def _pixel_m(row: Row, modality: Modality) -> float:
    bounds = row.get("bounds")
    if not bounds or None in bounds.values() or bounds["x_max"] - bounds["x_min"] < 1:
        return 10.0  # of Sentinel-2: not georeferenced, or in degrees
    return float(bounds["x_max"] - bounds["x_min"]) / modality.width


@router.get("/statistics", operation_id="getSampleStatistics")
async def get_sample_statistics(
    request: Request, service: Served, asker: Asker, source: Source, sample_id: SampleId, split: Split = None
) -> Response:
    """Return the statistics of every band of a sample, and shares of its classes, from the index."""
    fresh = freshness(request, service, source, "statistics")
    if fresh.is_known:
        return fresh.not_modified()
    row = await find(source, sample_id, split)
    columns = [c for m in source.schema if row[m.name] is not None for c in _statistics_of(m)]
    where = f"sample_id = {FilterLiteral(sample_id).sql} AND split IS NOT DISTINCT FROM " + (
        FilterLiteral(row["split"]).sql if row["split"] is not None else "NULL"
    )
    sql = f'SELECT {", ".join(columns) or "1 AS one"} FROM "{source.table}" WHERE {where}'
    job = Rows(source.bank.name, source.versions, sql, service.limits.answer_bytes)
    (found,) = row_json.readable(pa.ipc.open_stream(await service.query(job, asker)).read_all())
    content: dict[str, dict[str, object]] = {}
    for name, value in found.items():
        modality, _, band = name.partition("\x1f")
        content.setdefault(modality, {})[band] = row_json.plain(value)
    content.pop("one", None)
    return JSONResponse({"snapshot": source.version, "statistics": content}, headers=fresh.headers)


_FIELDS = ("count", "valid", "min", "max", "mean", "std", "p02", "p25", "p50", "p75", "p98")


def _statistics_of(m: Modality) -> list[str]:
    """Return the items of a SELECT for the statistics of a modality: one for each band, or the shares of classes."""
    if m.categorical:
        return [f"{quoted(m.name)}.share AS {quoted(m.name + chr(31) + 'share')}"]
    if len(m.bands) > 1:
        return [f"{quoted(m.name)}.{quoted(b)} AS {quoted(m.name + chr(31) + b)}" for b in m.band_names]
    fields = ", ".join(f'"{f}" := {quoted(m.name)}."{f}"' for f in _FIELDS)
    return [f"struct_pack({fields}) AS {quoted(m.name + chr(31) + m.band_names[0])}"]


@router.get("/point/{lon},{lat}", operation_id="getPoint")
async def get_point(
    request: Request,
    service: Served,
    source: Source,
    sample_id: SampleId,
    lon: Annotated[float, Path(ge=-180, le=180)],
    lat: Annotated[float, Path(ge=-90, le=90)],
    modalities: Modalities = None,
    split: Split = None,
) -> Response:
    """Return the values of a sample's bands in the pixel at a place, (time, band)."""
    fresh = freshness(request, service, source, "point")
    if fresh.is_known:
        return fresh.not_modified()
    row = await find(source, sample_id, split)
    names = [n.strip() for n in modalities.split(",")] if modalities else source.schema.names
    chosen = [source.schema[n] for n in dict.fromkeys(names)]
    values = await source.bank.run(_values_at, source, row, [m for m in chosen if row[m.name]], lon, lat)
    return JSONResponse(
        {"snapshot": source.version, "lon": lon, "lat": lat, "values": values}, headers=fresh.headers
    )


def _values_at(
    source: Pinned, row: Row, modalities: list[Modality], lon: float, lat: float
) -> dict[str, object]:
    found: dict[str, object] = {}
    for m in modalities:
        epsg, (x_min, y_min, x_max, y_max) = formats.georeference(
            row, m.height, m.width, (0, m.height, 0, m.width)
        )
        x, y = _to(epsg).transform(lon, lat)
        column = math.floor((x - x_min) / (x_max - x_min) * m.width) if math.isfinite(x) else -1
        line = math.floor((y_max - y) / (y_max - y_min) * m.height) if math.isfinite(y) else -1
        if not (0 <= column < m.width and 0 <= line < m.height):
            raise Problem(404, "outside", "the place lies outside of the sample")
        cut = Cut.of(m, window=f"{line},{column},1,1")
        tensor = read_tensor(source.bank.fetcher, row[m.name], cut)[:, :, 0, 0]
        found[m.name] = {
            "bands": list(m.band_names),
            "pixel": [line, column],
            "values": row_json.plain(tensor.tolist()),
        }
    return found


@lru_cache(maxsize=256)
def _to(epsg: int) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs(4326, epsg, always_xy=True)


@router.get("/zarr/{path:path}", operation_id="getSampleZarr", response_class=Response)
async def get_sample_zarr(
    request: Request,
    service: Served,
    source: Source,
    sample_id: SampleId,
    path: Annotated[str, Path(max_length=256)],
    split: Split = None,
) -> Response:
    """Return a sample as a Zarr v3 group with an array a modality; its chunks are the stored blocks, checksums included."""
    fresh = freshness(request, service, source, "zarr")
    if fresh.is_known:
        return fresh.not_modified()
    row = await find(source, sample_id, split)
    array, _, key = path.partition("/")
    if path == "zarr.json":
        document = await source.bank.run(_group, source, row)
        return JSONResponse(document, headers=fresh.headers)
    if array not in source.schema or row[array] is None:
        band = of_band_names(_whole(m) for m in source.schema if row[m.name] is not None).get(array)
        if band is not None and key == "zarr.json":
            return JSONResponse(band.document(), headers=fresh.headers)
        if band is not None and key == CHUNK:
            return Response(band.chunk(), media_type="application/octet-stream", headers=fresh.headers)
        raise Problem(404, "not-found", "there is nothing at this address")
    if key == "zarr.json":
        document = await source.bank.run(_array, source.bank, source.schema[array], list(source.schema), row)
        return JSONResponse(document, headers=fresh.headers)
    m = source.schema[array]
    chunk = virtual_zarr.parse_chunk_key(key, _whole(m), None)
    block = chunk.time * len(m.bands) + chunk.band
    body = await source.bank.run(read_block, source.bank.fetcher, row[array], m, block)
    return Response(body, media_type="application/octet-stream", headers=fresh.headers)


@router.get(
    "/{modality}.zarr/{path:path}",
    operation_id="getModalityZarr",
    name="getModalityZarr",
    response_class=Response,
)
async def get_modality_zarr(
    request: Request,
    service: Served,
    source: Source,
    sample_id: SampleId,
    modality: Annotated[str, Path(max_length=128)],
    path: Annotated[str, Path(max_length=256)],
    split: Split = None,
) -> Response:
    """Return one modality of a sample as a Zarr v3 array."""
    return await get_sample_zarr(request, service, source, sample_id, f"{modality}/{path}", split)


def _group(source: Pinned, row: Row) -> dict[str, object]:
    present = [m for m in source.schema if row[m.name] is not None]
    arrays = {m.name: _array(source.bank, m, list(source.schema), row) for m in present}
    attributes = {
        "sample_id": row["sample_id"],
        "table": source.table,
        "snapshot": source.version,
        "epsg": row.get("epsg"),
    }
    bands = of_band_names(_whole(m) for m in present)
    return group_document(attributes, arrays | {n: c.document() for n, c in bands.items()})


def _array(bank: ServedBank, m: Modality, modalities: list[Modality], row: Row) -> dict[str, object]:
    stored = bank.array_document(place_of_key(row[m.name]["key"])[0])
    return virtual_zarr.array_document(_whole(m), modalities, virtual_zarr.inner_codecs(stored), None)


def _whole(m: Modality) -> Handle:
    return Handle(m.name, m, tuple(range(len(m.bands))))
