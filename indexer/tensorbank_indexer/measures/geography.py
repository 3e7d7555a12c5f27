"""The place and season of a sample: footprint, box, position on the Hilbert curve."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyproj
import shapely
from shapely import affinity

from tensorbank.errors import FormatError
from tensorbank.index_schema import HILBERT_ORDER

__all__ = ["Place", "contains", "hilbert_index", "normal_place", "place_of", "season_of"]

ROUND_TRIP = 1e-6
"""The most that a projection and its inverse may differ by where the projection holds:
relative, and metres or degrees."""
N_EDGE_POINTS = 8
"""The number of points along each edge of a footprint: a straight edge on the map is a curve in degrees."""
CURVED_LATITUDE = 80.0
CURVED_DEGREES = 0.1
"""The latitude, and the height, from which four corners alone are too coarse for a footprint."""
NEAR_DEGREES = 0.02
"""A centre may lie so far outside of a footprint, some 2 km: archives round it, or take it from a neighbouring tile."""

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
    """The extent of one sample.

    ``bounds`` is (x_min, y_min, x_max, y_max) in metres of the EPSG code, pixel edges; ``bbox`` (west, south, east, north) in
    degrees, west > east across the antimeridian; ``footprint`` WKB in EPSG:4326, split there.
    """

    bounds: tuple[float, float, float, float]
    bbox: tuple[float, float, float, float]
    footprint: bytes


def season_of(month: int, lat: float) -> str:
    """Return the meteorological season of a month, 1 to 12, in the hemisphere of ``lat``."""
    season = _NORTH[month - 1]
    return season if lat >= 0 else _OPPOSITE[season]


def hilbert_index(lon: npt.NDArray[np.float64], lat: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return the position on the Hilbert curve of order 16 over the plate carree, (n,) int64 in [0, 2**32).

    Algorithm: iterative xy to d of Hamilton and Rau-Chaplin 2007 in the form of Warren, Hacker's Delight, 16-1.
    """
    side = 1 << HILBERT_ORDER
    x = np.clip((np.clip(lon, -180.0, 180.0) + 180.0) / 360.0 * side, 0, side - 1).astype(np.int64)
    y = np.clip((np.clip(lat, -90.0, 90.0) + 90.0) / 180.0 * side, 0, side - 1).astype(np.int64)
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
def _to_wgs84(epsg: int) -> tuple[pyproj.Transformer, pyproj.Transformer]:
    """Return the transformers from a reference system to degrees, and back."""
    try:
        system = pyproj.CRS.from_epsg(epsg)
        if not (system.is_projected or system.is_geographic):
            raise FormatError(f"EPSG:{epsg} is not a coordinate reference system of maps ({system.name})")
        return (
            pyproj.Transformer.from_crs(epsg, 4326, always_xy=True),
            pyproj.Transformer.from_crs(4326, epsg, always_xy=True),
        )
    except pyproj.exceptions.ProjError as error:
        raise FormatError(f"EPSG:{epsg} is not a coordinate reference system") from error


def normal_place(lon: float, lat: float) -> tuple[float, float]:
    """Return the longitude in [-180, 180] and the latitude of a point; longitudes of 0 to 360 are turned.

    Raises
    ------
    FormatError
        It is no point on Earth.
    """
    if not (math.isfinite(lon) and math.isfinite(lat)):
        raise FormatError(f"the centre is at longitude {lon:g}, latitude {lat:g}")
    if abs(lat) > 90.0:
        raise FormatError(f"the latitude of the centre is {lat:g}")
    if abs(lon) > 360.0:
        raise FormatError(f"the longitude of the centre is {lon:g}")
    return (lon if -180.0 <= lon <= 180.0 else float(_turned(lon))), lat


def place_of(epsg: int, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> Place:
    """Return the extent of a grid of pixel centres, (x,) and (y,) metres, at least two pixels each and evenly spaced.

    Raises
    ------
    FormatError
        The EPSG code is unknown, or the grid is none or does not lie where that system holds.
    """
    half_x, half_y = _half_step(x, "x"), _half_step(y, "y")
    bounds = (
        float(x.min() - half_x),
        float(y.min() - half_y),
        float(x.max() + half_x),
        float(y.max() + half_y),
    )
    edge_x, edge_y = _ring(bounds)
    forth, back = _to_wgs84(epsg)
    lon, lat = (np.asarray(c) for c in forth.transform(edge_x, edge_y))
    where = f"x {bounds[0]:g} to {bounds[2]:g}, y {bounds[1]:g} to {bounds[3]:g} of EPSG:{epsg}"
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()) or np.abs(lat).max() > 90.0:
        raise FormatError(f"{where} is not on Earth")
    again = back.transform(lon, lat)
    if not all(
        bool((np.abs(a - e) <= ROUND_TRIP * (1.0 + np.abs(e))).all())
        for a, e in zip(again, (edge_x, edge_y), strict=True)
    ):
        raise FormatError(f"{where} lies outside of where that system holds")
    return Place(bounds, *_outline(_turned(lon), lat))


def contains(place: Place, lon: float, lat: float) -> bool:
    """Tell whether a centre lies in the box of a place, or at most half of its size beside it."""
    west, south, east, north = place.bbox
    width = (east - west) % 360.0 or (360.0 if east > west else 0.0)
    beside = max((north - south) / 2, NEAR_DEGREES)
    across = max(width / 2, NEAR_DEGREES / max(math.cos(math.radians(lat)), 1e-3))
    return south - beside <= lat <= north + beside and (lon - west + across) % 360.0 <= width + 2 * across


def _turned(lon: Any) -> Any:
    """Turn longitudes of 0 to 360, or beyond -180, to those of -180 to 180."""
    return np.where(lon > 180.0, lon - 360.0, np.where(lon < -180.0, lon + 360.0, lon))


def _half_step(centres: npt.NDArray[np.float64], axis: str) -> float:
    if centres.ndim != 1 or centres.size < 2:
        raise FormatError(f"{axis} has {centres.size} values, a grid has at least two")
    if not np.isfinite(centres).all():
        raise FormatError(f"{axis} has values that are not finite")
    step = (centres[-1] - centres[0]) / (centres.size - 1)
    even = np.linspace(centres[0], centres[-1], centres.size)
    if step == 0 or np.abs(centres - even).max() > abs(step) / 2:
        raise FormatError(f"{axis} is not evenly spaced, from {centres[0]:g} to {centres[-1]:g}")
    return float(abs(step) / 2)


def _ring(
    bounds: tuple[float, float, float, float],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the outline of a rectangle, counter-clockwise from its lower left corner, which it does not repeat."""
    x0, y0, x1, y1 = bounds
    step = np.arange(N_EDGE_POINTS) / N_EDGE_POINTS
    x = np.concatenate(
        [x0 + (x1 - x0) * step, np.full(N_EDGE_POINTS, x1), x1 - (x1 - x0) * step, np.full(N_EDGE_POINTS, x0)]
    )
    y = np.concatenate(
        [np.full(N_EDGE_POINTS, y0), y0 + (y1 - y0) * step, np.full(N_EDGE_POINTS, y1), y1 - (y1 - y0) * step]
    )
    return x, y


def _outline(
    lon: npt.NDArray[np.float64], lat: npt.NDArray[np.float64]
) -> tuple[tuple[float, float, float, float], bytes]:
    """Return the box and footprint of a ring of degrees; three cases: as it is, across the antimeridian, around a pole."""
    corners = slice(None, None, N_EDGE_POINTS)
    if np.ptp(lon) <= 180.0:
        bbox = (float(lon.min()), float(lat.min()), float(lon.max()), float(lat.max()))
        small = np.abs(lat).max() < CURVED_LATITUDE and bbox[3] - bbox[1] < CURVED_DEGREES
        points = np.column_stack([lon, lat])
        return bbox, shapely.to_wkb(shapely.Polygon(points[corners] if small else points))
    steps = (np.diff(np.append(lon, lon[0])) + 180.0) % 360.0 - 180.0
    turn = float(steps.sum())
    if abs(turn) > 180.0:
        return _around_pole(lon, lat, steps)
    turned = np.where(lon < 0, lon + 360.0, lon)
    whole = shapely.Polygon(np.column_stack([turned, lat]))
    west = whole.intersection(shapely.box(0, -90, 180, 90))
    east = affinity.translate(whole.intersection(shapely.box(180, -90, 360, 90)), xoff=-360)
    bbox = (float(turned.min()), float(lat.min()), float(turned.max() - 360.0), float(lat.max()))
    return bbox, shapely.to_wkb(shapely.MultiPolygon([west, east]))


def _around_pole(
    lon: npt.NDArray[np.float64], lat: npt.NDArray[np.float64], steps: npt.NDArray[np.float64]
) -> tuple[tuple[float, float, float, float], bytes]:
    """Return the box and footprint of a ring that goes once around a pole: all longitudes, and all latitudes up to the pole."""
    pole = math.copysign(90.0, float(lat.mean()))
    unrolled = lon[0] + np.concatenate([[0.0], np.cumsum(steps)])
    heights = np.append(lat, lat[0])
    if unrolled[-1] < unrolled[0]:
        unrolled, heights = unrolled[::-1], heights[::-1]
    line = np.column_stack([unrolled, heights])
    copies = np.concatenate([line + np.array([360.0 * k, 0.0]) for k in (-2, -1, 0, 1, 2)])
    band = shapely.Polygon([*copies, (copies[-1, 0], pole), (copies[0, 0], pole)])
    footprint = band.intersection(shapely.box(-180, -90, 180, 90))
    south, north = (float(lat.min()), 90.0) if pole > 0 else (-90.0, float(lat.max()))
    return (-180.0, south, 180.0, north), shapely.to_wkb(footprint)
