"""Rows of the tiles table of one shard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tensorbank.index_schema import REF_TYPE, TILE_REF_TYPE, tiles_schema
from tensorbank.schema import Modality, TableSchema
from tensorbank_indexer.measures import CategoryMeasure, PixelMeasure, tile_edges
from tensorbank_indexer.rows.arrow_columns import (
    class_shares,
    fact_column,
    finite_only,
    nearest_float32,
    nullable,
    per_band,
    struct_of,
)
from tensorbank_indexer.rows.stored_sample import StoredSample

__all__ = ["tile_rows"]


def tile_rows(samples: Sequence[StoredSample], schema: TableSchema, n_tiles: int) -> pa.Table:
    """Return the rows of the tiles table: one for every sample, date and cell, in this order.

    There are as many dates as the modality with most of them has, and ``n_tiles ** 2`` cells, row by row from the north-west.
    """
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
            arrays.append(fact_column(samples, field).take(take))
    return finite_only(pa.Table.from_arrays(arrays, schema=target))


def _tile_column(
    samples: Sequence[StoredSample], modality: Modality, n_times: int, n_tiles: int, kind: pa.StructType
) -> pa.Array:
    """Return one modality over all tiles; dates that the modality or a sample of it does not have are null.

    The structs are made for the samples that have the modality, with all its dates, and then taken to their tiles by number:
    block ``[sample, date, cell]`` holds the number of the struct, or -1 for null.
    """
    stored = [s.modalities.get(modality.name) for s in samples]
    present = [m.measure for m in stored if m is not None]
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
            "share": class_shares(classes, total, modality),
        }
    else:
        pixels = [m for m in present if isinstance(m, PixelMeasure)]
        shape = (modality.n_times, len(modality.bands), n_tiles, n_tiles)
        stacked = {
            "valid": _all_dates([m.tile_valid for m in pixels], shape).astype(np.int32),
            "min": _outward(_all_dates([m.tile_low for m in pixels], shape), np.float32(-np.inf)),
            "max": _outward(_all_dates([m.tile_high for m in pixels], shape), np.float32(np.inf)),
            "mean": nearest_float32(_all_dates([m.tile_mean for m in pixels], shape)),
            "std": nearest_float32(_all_dates([m.tile_std for m in pixels], shape)),
        }
        fields = per_band(
            [
                {name: nullable(v[:, :, b].reshape(-1)) for name, v in stacked.items()}
                for b in range(len(modality.bands))
            ],
            modality,
        )
    fields["ref"] = _tile_refs([m.ref for m in stored if m is not None], modality, n_tiles)
    dense = struct_of(fields, kind)
    block = np.full((len(samples), n_times, cells), -1, np.int64)
    at = [i for i, m in enumerate(stored) if m is not None]
    numbers = np.arange(len(dense)).reshape(-1, modality.n_times, cells)
    block[at, : modality.n_times] = np.where(has_date[:, :, None], numbers, -1)
    index = block.reshape(-1)
    return dense.take(pa.array(index, mask=index < 0))


def _tile_refs(refs: Sequence[Mapping[str, object]], modality: Modality, n_tiles: int) -> pa.StructArray:
    """Return the addresses of tiles, in the order of :func:`tile_rows`: the sample's address, and the tile's window."""
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


def _all_dates(arrays: Sequence[npt.NDArray[np.generic]], shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Stack arrays (time, ...), those of fewer dates with zeros behind."""
    stacked = np.zeros((len(arrays), *shape))
    for i, values in enumerate(arrays):
        stacked[i, : len(values)] = values
    return stacked


def _outward(values: npt.NDArray[np.float64], towards: np.float32) -> npt.NDArray[np.float32]:
    """Return float32 bounds that never lie inside the float64 ones; infinite beyond float32's range, where there is no bound."""
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float32)
    inside = rounded > values if towards < 0 else rounded < values
    return np.where(inside & np.isfinite(rounded), np.nextafter(rounded, towards), rounded)
