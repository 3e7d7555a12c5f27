"""Index rows of one shard: from measures to the columns of samples, tiles and shards.

Columns are built modality by modality from stacked numpy arrays; a sample that lacks a modality has a null there. No NaN and
no infinity leaves this module: in an index they make answers depend on its layout.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tensorbank.index_schema import (
    REF_TYPE,
    SOURCE_TYPE,
    TILE_REF_TYPE,
    samples_schema,
    shards_schema,
    tiles_schema,
)
from tensorbank.schema import Modality, TableSchema
from tensorbank.statistics import QUANTILES, BandStats, merge_all
from tensorbank_indexer.measures import CategoryMeasure, PixelMeasure, tile_edges

__all__ = ["MeasuredModality", "MeasuredSample", "finite_only", "sample_rows", "shard_row", "tile_rows"]

Measure = PixelMeasure | CategoryMeasure


@dataclass(slots=True)
class MeasuredModality:
    """One modality of one written sample: its address, its origin and its statistics."""

    ref: dict[str, object]
    source: dict[str, object]
    product_ids: tuple[str, ...]
    radiometric_offset: dict[str, object] | None
    measure: Measure


@dataclass(slots=True)
class MeasuredSample:
    """One written sample. ``columns`` holds the plain columns of the samples table by name."""

    row: int
    columns: dict[str, object]
    modalities: dict[str, MeasuredModality]


def sample_rows(samples: Sequence[MeasuredSample], schema: TableSchema) -> pa.Table:
    """Return the rows of the samples table."""
    target = samples_schema(schema)
    arrays = [_plain(samples, field) for field in target if field.name not in schema]
    for modality in schema:
        measured = [s.modalities.get(modality.name) for s in samples]
        present = [m for m in measured if m is not None]
        offset = target.field(modality.name).type.field("radiometric_offset").type
        head = {
            "ref": pa.array([m.ref for m in present], REF_TYPE),
            "source": pa.array([m.source for m in present], SOURCE_TYPE),
            "product_ids": pa.array([list(m.product_ids) for m in present], pa.list_(pa.string())),
            "radiometric_offset": pa.array([m.radiometric_offset for m in present], offset),
        }
        statistics = _sample_statistics([m.measure for m in present], modality)
        arrays.append(_scatter({**head, **statistics}, measured, target.field(modality.name).type))
    return finite_only(pa.Table.from_arrays(arrays, schema=target))


def tile_rows(samples: Sequence[MeasuredSample], schema: TableSchema, n_tiles: int) -> pa.Table:
    """Return the rows of the tiles table: for every sample, date and cell, in this order."""
    target = tiles_schema(schema)
    n_times = max(m.n_times for m in schema)
    first = next(iter(schema))
    ys, xs = tile_edges(first.height, n_tiles), tile_edges(first.width, n_tiles)
    cells = n_tiles * n_tiles
    n = len(samples) * n_times * cells
    time, cell = np.divmod(np.arange(n) % (n_times * cells), cells)
    y, x = np.divmod(cell, n_tiles)
    owner = np.arange(n) // (n_times * cells)
    take = pa.array(owner)
    computed: dict[str, npt.NDArray[np.generic]] = {
        "row": np.array([s.row for s in samples])[owner] if samples else np.zeros(0),
        "time_index": time,
        "tile": cell,
        "y0": ys[y],
        "y1": ys[y + 1],
        "x0": xs[x],
        "x1": xs[x + 1],
    }
    arrays = []
    for field in target:
        if field.name in schema:
            modality = schema[field.name]
            arrays.append(_tile_column(samples, modality, n_times, n_tiles, field.type))
        elif field.name in computed:
            arrays.append(pa.array(computed[field.name].astype(np.int64)).cast(field.type))
        else:
            arrays.append(_plain(samples, field).take(take))
    return finite_only(pa.Table.from_arrays(arrays, schema=target))


def shard_row(samples: Sequence[MeasuredSample], schema: TableSchema, part: str, shard: int) -> pa.Table:
    """The roll-up of one shard: one row of the shards table."""
    target = shards_schema(schema)
    boxes = [b for s in samples if isinstance(b := s.columns.get("bbox"), Mapping)]
    times = [t for s in samples if (t := s.columns.get("S2_time") or s.columns.get("S1_time")) is not None]
    row: dict[str, object] = {
        "part": part,
        "shard": shard,
        "n_samples": len(samples),
        "bbox": _union(boxes),
        **_extremes(samples, "lon"),
        **_extremes(samples, "lat"),
        "first_time": min(times, default=None),  # type: ignore[type-var]
        "last_time": max(times, default=None),  # type: ignore[type-var]
        "seasons": sorted({str(s.columns["season"]) for s in samples if s.columns.get("season")}),
        **_extremes(samples, "cloud_cover"),
    }
    for modality in schema:
        present = [m for s in samples if (m := s.modalities.get(modality.name)) is not None]
        if present:
            row[modality.name] = {
                "key": present[0].ref["key"],
                "n_samples": len(present),
                "length": sum(int(str(m.ref["length"])) for m in present),
                **_rolled_up([m.measure for m in present], modality),
            }
    return finite_only(pa.Table.from_pylist([row], schema=target))


def finite_only(rows: pa.Table) -> pa.Table:
    """Return the rows with null for every NaN and infinity,
    in whatever column and however deep in structs and lists. Pure."""
    columns = [_finite(column.combine_chunks()) for column in rows.columns]
    return pa.Table.from_arrays(columns, schema=rows.schema)


def _finite(array: pa.Array) -> pa.Array:
    """Return one array without NaN and infinity; the array itself if it has none."""
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    kind = array.type
    if pa.types.is_floating(kind):
        sound = pc.fill_null(pc.is_finite(array), True)
        return (
            array if pc.all(sound, min_count=0).as_py() else pc.if_else(sound, array, pa.scalar(None, kind))
        )
    if pa.types.is_struct(kind):
        fields = [array.field(i) for i in range(kind.num_fields)]
        found = [_finite(field) for field in fields]
        if all(new is old for new, old in zip(found, fields, strict=True)):
            return array
        return pa.StructArray.from_arrays(found, fields=list(kind), mask=array.is_null())
    if pa.types.is_list(kind):
        found = _finite(array.values)
        if found is array.values or found.equals(array.values):
            return array
        return pa.ListArray.from_arrays(array.offsets, found, type=kind, mask=array.is_null())
    return array


def _extremes(samples: Sequence[MeasuredSample], column: str) -> dict[str, float | None]:
    """Return the smallest and largest finite value of a plain column:
    bounds of a column are extremes of that very column."""
    given = (s.columns.get(column) for s in samples)
    values = [float(v) for v in given if isinstance(v, int | float) and math.isfinite(v)]
    return {f"min_{column}": min(values, default=None), f"max_{column}": max(values, default=None)}


def _plain(samples: Sequence[MeasuredSample], field: pa.Field) -> pa.Array:
    return pa.array([s.columns.get(field.name) for s in samples], field.type)


def _scatter(fields: Mapping[str, pa.Array], measured: Sequence[object], kind: pa.StructType) -> pa.Array:
    """Scatter the fields of the samples that have the modality over all samples, as a struct array."""
    ordered = [fields[f.name].cast(f.type) for f in kind]
    dense = pa.StructArray.from_arrays(ordered, fields=list(kind))
    place = np.cumsum([m is not None for m in measured]) - 1
    index = pa.array(
        [int(p) if m is not None else None for p, m in zip(place, measured, strict=True)], pa.int64()
    )
    return dense.take(index)


def _number(values: npt.NDArray[np.generic]) -> pa.Array:
    """Make an Arrow array with NaN as null."""
    return pa.array(values, from_pandas=True)


def _sample_statistics(measures: Sequence[Measure], modality: Modality) -> dict[str, pa.Array]:
    if modality.categorical:
        counts = [m for m in measures if isinstance(m, CategoryMeasure)]
        classes = _stack([m.classes for m in counts], (len(modality.classes),))
        total = np.array([m.count for m in counts], np.int64)
        return {
            "count": pa.array(total),
            "valid": pa.array(classes.sum(axis=1).astype(np.int64)),
            "share": _shares(classes, total, modality),
        }
    pixels = [m for m in measures if isinstance(m, PixelMeasure)]
    n = len(modality.bands)
    total = np.array([m.count for m in pixels], np.int64)
    valid = _stack([m.valid for m in pixels], (n,)).astype(np.int64)
    low, high = _stack([m.low for m in pixels], (n,)), _stack([m.high for m in pixels], (n,))
    mean, m2 = _stack([m.mean for m in pixels], (n,)), _stack([m.m2 for m in pixels], (n,))
    std = np.sqrt(m2 / np.maximum(valid, 1))
    quantiles = _stack([m.quantiles for m in pixels], (n, len(QUANTILES)))
    bands = [
        {
            "count": pa.array(total),
            "valid": pa.array(valid[:, b]),
            "min": _number(low[:, b]),
            "max": _number(high[:, b]),
            "mean": _number(mean[:, b]),
            "std": _number(std[:, b]),
            **{q: _number(_narrowed(quantiles[:, b, i])) for i, (q, _) in enumerate(QUANTILES)},
        }
        for b in range(n)
    ]
    return _per_band(bands, modality)


def _per_band(bands: Sequence[dict[str, pa.Array]], modality: Modality) -> dict[str, pa.Array]:
    """Return the fields of a modality: those of its band if there is one, else one struct per band."""
    if len(bands) == 1:
        return bands[0]
    names = modality.band_names
    return {
        n: pa.StructArray.from_arrays(list(b.values()), list(b)) for n, b in zip(names, bands, strict=True)
    }


def _tile_column(
    samples: Sequence[MeasuredSample], modality: Modality, n_times: int, n_tiles: int, kind: pa.StructType
) -> pa.Array:
    """Return one modality over all tiles;
    dates that the modality or a sample of it does not have are null."""
    measured = [s.modalities.get(modality.name) for s in samples]
    present = [m.measure for m in measured if m is not None]
    n_dates = np.array([m.count // (modality.height * modality.width) for m in present], np.int64)
    has_date = np.arange(modality.n_times) < n_dates[:, None]
    cells = n_tiles * n_tiles
    if modality.categorical:
        shape: tuple[int, ...] = (modality.n_times, n_tiles, n_tiles)
        counts = [m for m in present if isinstance(m, CategoryMeasure)]
        total = _all_dates([m.tile_count for m in counts], shape).reshape(-1)
        classes = _all_dates([m.tile_classes for m in counts], (*shape, len(modality.classes)))
        classes = classes.reshape(-1, len(modality.classes))
        fields = {
            "count": pa.array(total.astype(np.int64)),
            "valid": pa.array(classes.sum(axis=1).astype(np.int64)),
            "share": _shares(classes, total, modality),
        }
    else:
        pixels = [m for m in present if isinstance(m, PixelMeasure)]
        shape = (modality.n_times, len(modality.bands), n_tiles, n_tiles)
        stacked = {
            "valid": _all_dates([m.tile_valid for m in pixels], shape).astype(np.int32),
            "min": _outward(_all_dates([m.tile_low for m in pixels], shape), np.float32(-np.inf)),
            "max": _outward(_all_dates([m.tile_high for m in pixels], shape), np.float32(np.inf)),
            "mean": _narrowed(_all_dates([m.tile_mean for m in pixels], shape)),
            "std": _narrowed(_all_dates([m.tile_std for m in pixels], shape)),
        }
        fields = _per_band(
            [
                {name: _number(v[:, :, b].reshape(-1)) for name, v in stacked.items()}
                for b in range(len(modality.bands))
            ],
            modality,
        )
    fields["ref"] = _tile_refs([m.ref for m in measured if m is not None], modality, n_tiles)
    dense = pa.StructArray.from_arrays([fields[f.name].cast(f.type) for f in kind], fields=list(kind))
    block = np.full((len(samples), n_times, cells), -1, np.int64)
    at = [i for i, m in enumerate(measured) if m is not None]
    numbers = np.arange(len(dense)).reshape(-1, modality.n_times, cells)
    block[at, : modality.n_times] = np.where(has_date[:, :, None], numbers, -1)
    index = block.reshape(-1)
    return dense.take(pa.array(index, mask=index < 0))


def _tile_refs(refs: Sequence[Mapping[str, object]], modality: Modality, n_tiles: int) -> pa.StructArray:
    """Return the windows of samples in the order of :func:`tile_rows`,
    with the addresses of their samples."""
    ys, xs = tile_edges(modality.height, n_tiles), tile_edges(modality.width, n_tiles)
    cells = n_tiles * n_tiles
    owner, inside = np.divmod(np.arange(len(refs) * modality.n_times * cells), modality.n_times * cells)
    time, cell = np.divmod(inside, cells)
    y, x = np.divmod(cell, n_tiles)
    take = pa.array(owner)
    address = pa.array(refs, REF_TYPE).take(take)
    window = {"time_index": time, "y0": ys[y], "y1": ys[y + 1], "x0": xs[x], "x1": xs[x + 1]}
    columns = [*address.flatten(), *(pa.array(v.astype(np.int16)) for v in window.values())]
    return pa.StructArray.from_arrays(columns, fields=list(TILE_REF_TYPE))


def _outward(values: npt.NDArray[np.float64], towards: np.float32) -> npt.NDArray[np.float32]:
    """Return the float32 bounds that never lie inside the float64 ones;
    infinite beyond the range of float32, where there is no bound."""
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float32)
    inside = rounded > values if towards < 0 else rounded < values
    return np.where(inside & np.isfinite(rounded), np.nextafter(rounded, towards), rounded)


def _narrowed(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """The nearest float32; infinite beyond its range."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _shares(
    classes: npt.NDArray[np.generic], total: npt.NDArray[np.generic], modality: Modality
) -> pa.StructArray:
    names = [name for _, name in modality.classes]
    share = classes / np.maximum(total, 1)[:, None]
    return pa.StructArray.from_arrays([pa.array(share[:, i]) for i in range(len(names))], names)


def _stack(arrays: Sequence[npt.NDArray[np.generic]], shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    return np.stack(arrays) if arrays else np.zeros((0, *shape))


def _all_dates(arrays: Sequence[npt.NDArray[np.generic]], shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Stack arrays (time, ...), those of fewer dates with zeros behind."""
    stacked = np.zeros((len(arrays), *shape))
    for i, values in enumerate(arrays):
        stacked[i, : len(values)] = values
    return stacked


def _rolled_up(measures: Sequence[Measure], modality: Modality) -> dict[str, object]:
    """Return the statistics fields of one shard row."""
    if modality.categorical:
        counts = [m for m in measures if isinstance(m, CategoryMeasure)]
        classes = np.sum([m.classes for m in counts], axis=0)
        total = sum(m.count for m in counts)
        each = np.stack([m.classes / max(m.count, 1) for m in counts])
        names = [name for _, name in modality.classes]
        return {
            "count": total,
            "valid": int(classes.sum()),
            "share": dict(zip(names, (classes / total).tolist(), strict=True)),
            "min_share": dict(zip(names, each.min(axis=0).tolist(), strict=True)),
            "max_share": dict(zip(names, each.max(axis=0).tolist(), strict=True)),
        }
    pixels = [m for m in measures if isinstance(m, PixelMeasure)]
    bands = [[_band_stats(m, b) for m in pixels] for b in range(len(modality.bands))]
    rows = [_shard_band(merge_all(stats), [s.mean for s in stats if s.valid]) for stats in bands]
    return rows[0] if len(rows) == 1 else dict(zip(modality.band_names, rows, strict=True))


def _band_stats(measure: PixelMeasure, band: int) -> BandStats:
    if not measure.valid[band]:
        return BandStats(count=measure.count)
    return BandStats(
        count=measure.count,
        valid=int(measure.valid[band]),
        min=float(measure.low[band]),
        max=float(measure.high[band]),
        mean=float(measure.mean[band]),
        m2=float(measure.m2[band]),
        histogram=measure.histogram[band].astype(np.int64),
    )


def _shard_band(stats: BandStats, means: Sequence[float]) -> dict[str, object]:
    bins = np.flatnonzero(stats.histogram)
    some = stats.valid > 0
    return {
        "count": stats.count,
        "valid": stats.valid,
        "min": stats.min if some else None,
        "max": stats.max if some else None,
        "mean": stats.mean if some else None,
        "min_mean": min(means, default=None),
        "max_mean": max(means, default=None),
        "m2": stats.m2 if some else None,
        "bins": bins.tolist(),
        "bin_counts": stats.histogram[bins].tolist(),
    }


def _union(boxes: Sequence[Mapping[str, float]]) -> dict[str, float] | None:
    """Return the box of boxes; all longitudes where one of them crosses the antimeridian."""
    if not boxes:
        return None
    crossing = any(b["west"] > b["east"] for b in boxes)
    return {
        "west": -180.0 if crossing else min(b["west"] for b in boxes),
        "south": min(b["south"] for b in boxes),
        "east": 180.0 if crossing else max(b["east"] for b in boxes),
        "north": max(b["north"] for b in boxes),
    }
