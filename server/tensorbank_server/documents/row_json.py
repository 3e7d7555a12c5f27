"""Rows of the index as JSON: addresses are left out, NaN and the infinities are null, long cells are cut."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import shapely

from tensorbank.schema import TableSchema

__all__ = ["FeatureList", "Row", "cell", "features", "finite", "plain", "readable", "sample_json"]

MAX_CELL_CHARACTERS = 1_000
FeatureList = list[dict[str, str]]
Row: TypeAlias = Mapping[str, Any]
"""A row of the index by column, as Arrow gives it: its values have no static types. A modality is its address or None."""

INNER_COLUMNS = frozenset({"part", "stem", "hilbert", "key"})
"""The columns that say where TensorBank keeps things, and are of no use to a caller."""


def plain(value: Any) -> Any:
    """Return a value of Arrow as JSON has it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return plain(float(value))
    if isinstance(value, bytes):
        return value.hex()
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)  # a time of day, a duration, a UUID


def readable(rows: pa.Table | pa.RecordBatch) -> list[dict[str, Any]]:
    """Return rows as dictionaries. A value that Python cannot hold, such as a time in the year 300,000, is None."""
    try:
        found: list[dict[str, Any]] = rows.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException):
        columns = {name: [_value(v) for v in rows.column(name)] for name in rows.schema.names}
        found = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return found


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError, pa.ArrowException):
        return None


def finite(value: Any) -> Any:
    """Return a value in which numbers that are not finite are replaced by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: finite(v) for name, v in value.items()}
    return value


def cell(value: Any) -> tuple[Any, bool]:
    """Return a value for a table on a page, and whether it was cut."""
    shown = plain(value)
    if isinstance(shown, str) and len(shown) > MAX_CELL_CHARACTERS:
        return shown[:MAX_CELL_CHARACTERS], True
    return shown, False


def features(schema: pa.Schema) -> FeatureList:
    """Return the names and types of columns."""
    return [{"name": f.name, "type": str(f.type)} for f in schema]


def sample_json(row: Row, schema: TableSchema) -> dict[str, object]:
    """Return a sample as JSON: its columns, its footprint as GeoJSON, and the modalities that it has."""
    found: dict[str, object] = {
        k: plain(v)
        for k, v in row.items()
        if k not in schema.names and k not in INNER_COLUMNS and k not in ("footprint", "modalities")
    }
    found["geometry"] = geometry(row)
    found["modalities"] = {
        m.name: {"dtype": m.dtype, "shape": list(m.sample_shape), "bands": list(m.band_names)}
        for m in schema
        if row.get(m.name) is not None
    }
    return found


def _shape(wkb: bytes | None) -> shapely.Geometry | None:
    """Return the geometry of a footprint; None where there is none that can be shown."""
    if wkb is None:
        return None
    try:
        shape = shapely.from_wkb(wkb)
    except shapely.errors.GEOSException:
        return None
    is_finite = bool(np.isfinite(shapely.get_coordinates(shape)).all())
    return shape if is_finite and not shape.is_empty else None


def geometry(row: Row) -> dict[str, object] | None:
    """Return the footprint of a sample as GeoJSON, else its centre, else None.

    Outer rings run anticlockwise (RFC 7946, 3.1.6), in each part of a footprint that the antimeridian divides.
    """
    shape = _shape(row.get("footprint"))
    if shape is not None:
        found: dict[str, object] = plain(shapely.geometry.mapping(shapely.orient_polygons(shape)))
        return found
    if row.get("lon") is not None and row.get("lat") is not None:
        return {"type": "Point", "coordinates": [row["lon"], row["lat"]]}
    return None
