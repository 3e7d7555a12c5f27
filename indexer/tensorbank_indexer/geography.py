"""Where and when a sample is: footprint, box, season, Hilbert position."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyproj
import shapely
from shapely import affinity

from tensorbank.errors import FormatError
from tensorbank.index import HILBERT_ORDER

__all__ = ["Place", "hilbert_index", "place_of", "season_of"]

_NORTH = (
    "winter",
    "winter",
    "spring",
    "spring",
    "spring",
    "summer",
    "summer",
    "summer",
    "autumn",
    "autumn",
    "autumn",
    "winter",
)
_OPPOSITE = {"winter": "summer", "summer": "winter", "spring": "autumn", "autumn": "spring"}


@dataclass(frozen=True, slots=True)
class Place:
    """Extent of one sample.

    ``bounds`` is (x_min, y_min, x_max, y_max) in metres of the EPSG code, pixel edges; ``bbox`` (west, south, east, north) in
    degrees, west > east across the antimeridian; ``footprint`` WKB in EPSG:4326, split there.
    """

    bounds: tuple[float, float, float, float]
    bbox: tuple[float, float, float, float]
    footprint: bytes


def season_of(month: int, lat: float) -> str:
    """Meteorological season of a month, 1 to 12, in the hemisphere of ``lat``."""
    season = _NORTH[month - 1]
    return season if lat >= 0 else _OPPOSITE[season]


def hilbert_index(lon: npt.NDArray[np.float64], lat: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Position on the Hilbert curve of order 16 over the plate carree, (n,) int64 in [0, 2**32).

    Algorithm: iterative xy to d of Hamilton and Rau-Chaplin 2007 in the form of Warren, Hacker's Delight, 16-1.
    """
    side = 1 << HILBERT_ORDER
    x = np.clip((np.asarray(lon) + 180.0) / 360.0 * side, 0, side - 1).astype(np.int64)
    y = np.clip((np.asarray(lat) + 90.0) / 180.0 * side, 0, side - 1).astype(np.int64)
    index = np.zeros_like(x)
    step = side >> 1
    while step:
        right, upper = (x & step) > 0, (y & step) > 0
        index += step * step * ((3 * right) ^ upper)
        turn = ~upper
        flip = turn & right
        x, y = np.where(flip, side - 1 - x, x), np.where(flip, side - 1 - y, y)
        x, y = np.where(turn, y, x), np.where(turn, x, y)
        step >>= 1
    return index


@lru_cache(maxsize=256)
def _to_wgs84(epsg: int) -> pyproj.Transformer:
    try:
        return pyproj.Transformer.from_crs(epsg, 4326, always_xy=True)
    except pyproj.exceptions.CRSError as error:
        raise FormatError(f"EPSG:{epsg} is no coordinate reference system") from error


def place_of(epsg: int, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> Place:
    """Extent of a grid of pixel centres, (x,) and (y,) metres, at least two pixels each.

    Raises
    ------
    FormatError
        The EPSG code is unknown.
    """
    half_x, half_y = abs(x[1] - x[0]) / 2, abs(y[1] - y[0]) / 2
    bounds = (
        float(x.min() - half_x),
        float(y.min() - half_y),
        float(x.max() + half_x),
        float(y.max() + half_y),
    )
    corner_x = [bounds[0], bounds[2], bounds[2], bounds[0]]
    corner_y = [bounds[1], bounds[1], bounds[3], bounds[3]]
    lon, lat = (np.asarray(c) for c in _to_wgs84(epsg).transform(corner_x, corner_y))
    if np.ptp(lon) <= 180.0:
        shape = shapely.Polygon(np.column_stack([lon, lat]))
        bbox = (float(lon.min()), float(lat.min()), float(lon.max()), float(lat.max()))
        return Place(bounds, bbox, shapely.to_wkb(shape))
    turned = np.where(lon < 0, lon + 360.0, lon)
    whole = shapely.Polygon(np.column_stack([turned, lat]))
    west = whole.intersection(shapely.box(0, -90, 180, 90))
    east = affinity.translate(whole.intersection(shapely.box(180, -90, 360, 90)), xoff=-360)
    bbox = (float(turned.min()), float(lat.min()), float(turned.max() - 360.0), float(lat.max()))
    return Place(bounds, bbox, shapely.to_wkb(shapely.MultiPolygon([west, east])))
