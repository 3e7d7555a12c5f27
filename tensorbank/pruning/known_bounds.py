"""Bounds of the values in index files, shards and row groups, as :data:`tensorbank.pruning.conditions.Bounds`.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tensorbank.arrow_numpy import as_arrow, as_numpy, from_python
from tensorbank.layout import Level
from tensorbank.pruning.conditions import Bounds
from tensorbank.schema import TableSchema
from tensorbank.sql import quoted
from tensorbank.statistics import QUANTILES

__all__ = ["of_files", "of_row_groups", "of_shards", "shard_columns"]

Leaf = tuple[str, ...]

_WITHIN = ("min", "max", *(name for name, _ in QUANTILES))
"""The statistics of a sample that lie between the extremes of its shard."""
_SLACK = 1e-6
"""The relative slack of bounds; quantiles in float32 may be rounded beyond
the extremes that they come from."""
_TINY = 1e-37
"""The absolute slack of bounds; numbers below it lose more than the share of them that :data:`_SLACK` is."""
_MAX_FLOAT32 = 3e38
"""The value beyond which a quantile in float32 is infinite, so that no extreme bounds it."""


def of_files(statistics: pa.Table) -> Bounds:
    """Return the bounds from the structs ``min`` and ``max`` of a Delta table's add-actions, a row a file."""

    def bounds(leaf: Leaf) -> tuple[pa.Array, pa.Array] | None:
        low, high = (_field(statistics, side, leaf) for side in ("min", "max"))
        return None if low is None or high is None else _widened(low, high)

    return bounds


def of_row_groups(minima: Mapping[Leaf, Sequence[Any]], maxima: Mapping[Leaf, Sequence[Any]]) -> Bounds:
    """Return the bounds from the statistics in Parquet footers, one entry a row group,
    None where a footer does not say.
    """

    def bounds(leaf: Leaf) -> tuple[pa.Array, pa.Array] | None:
        if leaf not in minima:
            return None
        return from_python(minima[leaf]), from_python(maxima[leaf])

    return bounds


def shard_columns(leaf: Leaf, schema: TableSchema, level: Level) -> tuple[str, str] | None:
    """Return SQL of a lower and an upper bound of a level's column, from a row of the shards table;
    None where there is none.

    Extremes and quantiles of samples and tiles lie between the extremes of their shard. Its bounds of means and of shares are
    those of samples; a tile's mean may lie beyond them, a tile's share anywhere.
    """
    if leaf in _OF_COLUMNS:
        return _OF_COLUMNS[leaf]
    name = _only(schema.names, leaf[0]) if leaf else None
    if name is None:
        return None
    modality, column = schema[name], quoted(name)
    if modality.categorical:
        name = _only([n for _, n in modality.classes], leaf[2]) if len(leaf) == 3 else None
        if name is None or leaf[1] != "share" or level == "tiles":
            return None
        return f"{column}.min_share.{quoted(name)}", f"{column}.max_share.{quoted(name)}"
    if len(modality.bands) == 1:
        path, field = column, leaf[1:]
    else:
        band = _only(modality.band_names, leaf[1]) if len(leaf) > 1 else None
        if band is None:
            return None
        path, field = f"{column}.{quoted(band)}", leaf[2:]
    if field == ("mean",) and level != "tiles":
        return f"{path}.min_mean", f"{path}.max_mean"
    if len(field) != 1 or field[0] not in (*_WITHIN, "mean"):
        return None
    size = f"greatest(abs({path}.min), abs({path}.max))"
    margin = f"CASE WHEN {size} <= {_MAX_FLOAT32} THEN {size} * {_SLACK} + {_TINY} END"
    return f"{path}.min - {margin}", f"{path}.max + {margin}"


def of_shards(rows: pa.Table, leaves: Sequence[Leaf | None]) -> Bounds:
    """Return the bounds from rows with the columns ``l<i>`` and ``h<i>`` of
    :func:`shard_columns` for leaf ``i``, if it is one.
    """

    def bounds(leaf: Leaf) -> tuple[pa.Array, pa.Array] | None:
        if leaf not in leaves:
            return None
        i = leaves.index(leaf)
        return _array(rows[f"l{i}"]), _array(rows[f"h{i}"])

    return bounds


_OF_COLUMNS: dict[Leaf, tuple[str, str]] = {
    ("part",): ("part", "part"),
    ("cloud_cover",): ("min_cloud_cover", "max_cloud_cover"),
    ("season",): ("list_min(seasons)", "list_max(seasons)"),
    ("s2_time",): ("first_time", "last_time"),
    ("lon",): ("min_lon", "max_lon"),  # not those of the box: a centre may lie beyond all footprints
    ("lat",): ("min_lat", "max_lat"),
    ("bbox", "west"): ("bbox.west", "bbox.east"),
    ("bbox", "east"): ("bbox.west", "bbox.east"),
    ("bbox", "south"): ("bbox.south", "bbox.north"),
    ("bbox", "north"): ("bbox.south", "bbox.north"),
}


def _field(statistics: pa.Table, side: str, leaf: Leaf) -> pa.Array | None:
    """Return a leaf of a nested struct by its lower-case path, None where there is no such leaf."""
    if side not in statistics.column_names:
        return None
    kind, path = statistics.schema.field(side).type, []
    for name in leaf:
        found = _only([f.name for f in kind] if pa.types.is_struct(kind) else [], name)
        if found is None:
            return None
        path.append(found)
        kind = kind.field(found).type
    return None if pa.types.is_struct(kind) else _array(pc.struct_field(statistics[side], path))


def _only(names: Iterable[str], lower: str) -> str | None:
    """Return the name that is meant by its lower case, None if there is none, or another: DuckDB tells some capitals apart."""
    found = [n for n in names if n.lower() == lower]
    return found[0] if len(found) == 1 else None


def _widened(low: pa.Array, high: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return bounds one float32 wider: the log writes them as decimals, which may be rounded inward."""
    if not pa.types.is_float32(low.type):
        return low, high
    down = np.nextafter(as_numpy(low), np.float32(-np.inf))
    up = np.nextafter(as_numpy(high), np.float32(np.inf))
    return as_arrow(down, np.isnan(down)), as_arrow(up, np.isnan(up))


def _array(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    array = pa.concat_arrays(combined.chunks) if isinstance(combined, pa.ChunkedArray) else combined
    return pc.cast(array, pa.string()) if pa.types.is_large_string(array.type) else array
