"""Footprints against areas, lines and points. Pure; shapely does the geometry, and is imported by who asks about one."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from tensorbank.errors import InvalidInputError

__all__ = ["as_geojson", "intersects"]


def as_geojson(area: Any) -> str:
    """Return the area as text: from GeoJSON text or mapping (geometry, feature or collection of them),
    or anything with ``__geo_interface__``.

    Raises
    ------
    InvalidInputError
        It is no geometry.
    """
    if not isinstance(area, str | Mapping):
        area = getattr(area, "__geo_interface__", area)
    text = area if isinstance(area, str) else json.dumps(area)
    _shape(text)
    return text


def intersects(footprints: pa.Array, text: str) -> pa.Array:
    """Tell for each footprint, WKB in degrees, whether it shares a point with an area;
    null where there is no footprint.
    """
    import shapely

    shapes = shapely.from_wkb(footprints.to_pylist())
    found = shapely.intersects(_shape(text), shapes)
    return pa.array(found, mask=np.array([s is None for s in shapes]))


def _shape(text: str) -> Any:
    return _of_thread(text, threading.get_ident())


@lru_cache(maxsize=64)
def _of_thread(text: str, _thread: int) -> Any:
    """Return an area, prepared for one thread.

    GEOS builds the index of a prepared geometry when it is first used, without a lock.
    """
    import shapely

    try:
        raw = json.loads(text)
        parts = raw["features"] if raw.get("type") == "FeatureCollection" else [raw]
        shapes = [shapely.from_geojson(json.dumps(p.get("geometry", p))) for p in parts]
    except (json.JSONDecodeError, AttributeError, KeyError, TypeError, shapely.errors.GEOSException) as error:
        raise InvalidInputError(
            f"{text[:60]!r} is not GeoJSON: {str(error).splitlines()[0][:120]}"
        ) from error
    area = shapely.union_all(shapes)
    if area.is_empty:
        raise InvalidInputError(f"{text[:60]!r} is an empty geometry, which intersects nothing")
    shapely.prepare(area)
    return area
