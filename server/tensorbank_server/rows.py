"""Rows of the index as JSON: addresses stay inside, NaN and the infinities are null, long cells are cut."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import shapely

from tensorbank.schema import TableSchema

__all__ = ["FeatureList", "cell", "features", "plain", "sample_json"]

MAX_CELL_CHARACTERS = 1_000
FeatureList = list[dict[str, str]]

INNER_COLUMNS = frozenset({"part", "stem", "hilbert"})
"""Columns that say where TensorBank put things: of no use to a caller."""


def plain(value: Any) -> Any:
    """A value of Arrow as JSON has it."""
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
        return float(value)
    if isinstance(value, bytes):
        return value.hex()
    return value


def cell(value: Any) -> tuple[Any, bool]:
    """A value for a table on a page, and whether it was cut."""
    shown = plain(value)
    if isinstance(shown, str) and len(shown) > MAX_CELL_CHARACTERS:
        return shown[:MAX_CELL_CHARACTERS], True
    return shown, False


def features(schema: pa.Schema) -> FeatureList:
    """Names and types of columns."""
    return [{"name": f.name, "type": str(f.type)} for f in schema]


def sample_json(row: Mapping[str, Any], schema: TableSchema) -> dict[str, Any]:
    """A sample as its own JSON: its columns, its footprint as GeoJSON, and the modalities it has."""
    found: dict[str, Any] = {
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


def geometry(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the footprint of a sample as GeoJSON, else its centre, else nothing.

    Outer rings run anticlockwise (RFC 7946, 3.1.6), in each part of a footprint that the antimeridian divides.
    """
    if row.get("footprint") is not None:
        shape = shapely.orient_polygons(shapely.from_wkb(row["footprint"]))
        found: dict[str, Any] = shapely.geometry.mapping(shape)
        return plain(found)  # type: ignore[no-any-return]
    if row.get("lon") is not None and row.get("lat") is not None:
        return {"type": "Point", "coordinates": [row["lon"], row["lat"]]}
    return None
