"""The place, times and id of a sample, from the small arrays of a zarr group."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyproj

from tensorbank.errors import FormatError
from tensorbank_indexer.cf.axes import SYNONYMS, grid_problem, heading
from tensorbank_indexer.cf.packing import unpack
from tensorbank_indexer.cf.times import decode_times, times_problem
from tensorbank_indexer.containers import Boundary, Problem, is_identifier, readable
from tensorbank_indexer.zarr_groups import ArraySpec, ZarrGroup

__all__ = [
    "MAX_ID_CHARS",
    "NO_PLACE",
    "Position",
    "described_position",
    "problem_of",
    "read_position",
    "small_array",
    "text_of",
    "unpacked",
]

Array = npt.NDArray[Any]
EPSG = re.compile(
    r"(?:(?:urn:ogc:def:crs:|https?://www\.opengis\.net/def/crs/)?EPSG[:/]+(?:[\d.]*[:/])?)?(\d{4,6})",
    re.IGNORECASE,
)
WKT = re.compile(r"\s*(?:[A-Z]{3,}CRS|PROJCS|GEOGCS)\s*\[")
MAX_WKT_CHARS = 32 << 10
EPSG_CODES = range(1024, 1_000_000)
"""The codes that EPSG gives out and leaves to users."""
MAX_ID_CHARS = 200
NO_PLACE = "read without a footprint"
GRID_MAPPING = "spatial_ref"
WKT_ATTRIBUTES = ("crs_wkt", "spatial_ref")
"""The attributes of a grid mapping that hold a reference system as text: CF's, and GDAL's."""
DEGREES = frozenset({"lon", "longitude", "lat", "latitude"})
"""The names of coordinates that are degrees of EPSG:4326, whatever system the pixels once had."""
TIMES = ("time", "time_")
SCALING = frozenset({"scale_factor", "add_offset"})


@dataclass(slots=True)
class Position:
    """The place, times and id of a sample; None where the member does not say.

    ``times_ns`` is (time,) int64 ns since 1970; ``product_ids`` has one id a date; ``headings`` tells of x and y how each
    runs, as :func:`heading` does, whether or not the grid is known.
    """

    sample_id: str | None = None
    epsg: int | None = None
    lon: float | None = None
    lat: float | None = None
    x: npt.NDArray[np.float64] | None = None
    y: npt.NDArray[np.float64] | None = None
    times_ns: npt.NDArray[np.int64] | None = None
    product_ids: tuple[str, ...] = ()
    headings: dict[str, int] = field(default_factory=dict)


def read_position(group: ZarrGroup, problems: list[Problem]) -> Position:
    """Read the small arrays of a group; what cannot be read becomes a problem and stays None."""
    names = {name: name for name in ("sample", "crs", "center_lon", "center_lat", "time", "file_id")}
    by_lower = {name.lower(): name for name in sorted(group.arrays, reverse=True)}
    names |= {axis: next((by_lower[n] for n in SYNONYMS[axis] if n in by_lower), axis) for axis in ("x", "y")}
    arrays = {name: small_array(group, stored, problems) for name, stored in names.items()}
    position = described_position(arrays, problems, attrs=lambda name: group.spec(names[name]).attrs)
    if {names["x"].lower(), names["y"].lower()} <= DEGREES:
        position.epsg = 4326 if position.x is not None else None
    elif position.epsg is None and "crs" not in group and position.x is not None:
        position.epsg = _mapped_epsg(group, GRID_MAPPING)
    _check_rotation(group, position, problems)
    return position


def described_position(arrays: Mapping[str, Array | None], problems: list[Problem], attrs: Any) -> Position:
    """Read a position from small arrays by their names in a member; ``attrs`` tells the attributes of one."""
    position = Position()
    get = arrays.get
    if (sample := get("sample")) is not None and sample.size:
        text = text_of(sample.reshape(-1)[0])
        if is_identifier(text):
            position.sample_id = text
        else:
            reason = f"The id {readable(repr(text), 80)} is empty, too long or not printable."
            problems.append(Problem("damaged-id", reason, "read without it"))
    if (crs := get("crs")) is not None and crs.size:
        position.epsg = epsg_of(crs.reshape(-1)[0]) or _declared_epsg(attrs("crs"))
        if position.epsg is None:
            reason = f"crs is {readable(repr(crs.reshape(-1)[0].item()), 60)}, which is no EPSG code."
            problems.append(Problem("bad-georeference", reason, NO_PLACE))
    position.lon = _number_of(get("center_lon"), "center_lon", 360.0, problems)
    position.lat = _number_of(get("center_lat"), "center_lat", 90.0, problems)
    position.headings = {name: heading(get(name)) for name in ("x", "y")}
    position.x = _coordinate_of(get("x"), "x", problems)
    position.y = _coordinate_of(get("y"), "y", problems)
    if None in (position.lon, position.lat):
        position.lon = position.lat = None
    if position.x is None or position.y is None:
        position.x = position.y = None
        if {"x", "y"} <= {name for name, values in arrays.items() if values is not None}:
            position.epsg = None
    if (times := get("time")) is not None:
        reason = times_problem(times, attrs("time"))
        if reason:
            problems.append(
                Problem("damaged-time", reason, "times taken from the product ids, if these have them")
            )
        position.times_ns = decode_times(times.reshape(-1), attrs("time"))
    if (ids := get("file_id")) is not None:
        position.product_ids = tuple(readable(text_of(name), MAX_ID_CHARS) for name in ids.reshape(-1))
    return position


def _check_rotation(group: ZarrGroup, position: Position, problems: list[Problem]) -> None:
    """Drop x and y where the group's grid mapping says that rows do not run from west to east."""
    if position.x is None or GRID_MAPPING not in group:
        return
    found = group.arrays[GRID_MAPPING]
    given = None if isinstance(found, FormatError) else found.attrs.get("GeoTransform")
    if not isinstance(given, str):
        return
    try:
        terms = [float(term) for term in given.split()]
    except ValueError:
        return
    if len(terms) == 6 and (terms[2] or terms[4]):
        reason = f"The grid is rotated: its GeoTransform is {readable(given, 80)}."
        problems.append(Problem("bad-georeference", reason, NO_PLACE))
        position.x = position.y = position.epsg = None
        position.headings = {}


def _mapped_epsg(group: ZarrGroup, name: str) -> int | None:
    """Return the EPSG code that the attributes of a grid mapping declare."""
    found = group.arrays.get(name)
    return _declared_epsg(found.attrs) if isinstance(found, ArraySpec) else None


def _declared_epsg(attrs: Mapping[str, Any]) -> int | None:
    texts = (attrs.get(name) for name in WKT_ATTRIBUTES)
    return next((code for text in texts if isinstance(text, str) and (code := epsg_of(text))), None)


def text_of(value: Any) -> str:
    """Return the text of a name or id; ids that were stored as numbers get back
    the zeros of SSL4EO-S12's seven digits.
    """
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return f"{int(value):07d}"
    return str(value)


def epsg_of(value: Any) -> int | None:
    """Return the EPSG code of a number, or of text: ``EPSG:32633``, a URN or URL of OGC, WKT or PROJJSON."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        value = int(value)
    if isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_)):
        return int(value) if int(value) in EPSG_CODES else None
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    if len(text) > MAX_WKT_CHARS:
        return None
    found = EPSG.fullmatch(text.strip())
    code = int(found[1]) if found else _known_epsg(text)
    return code if code in EPSG_CODES else None


@lru_cache(maxsize=256)
def _known_epsg(text: str) -> int | None:
    """Return the EPSG code of a system written out.
    Nothing else is handed to PROJ: its own strings may name files.
    """
    if not (WKT.match(text) or text.lstrip().startswith("{")):
        return None
    try:
        return pyproj.CRS.from_user_input(text).to_epsg()
    except pyproj.exceptions.ProjError:
        return None


def _number_of(values: Array | None, name: str, most: float, problems: list[Problem]) -> float | None:
    """Return the only, or first, number of an array; None and a problem if it is none up to ``most``."""
    if values is None:
        return None
    if values.size and values.dtype.kind in "fiu" and abs(number := float(values.reshape(-1)[0])) <= most:
        return number
    shown = repr(values.reshape(-1)[0].item()) if values.size and values.dtype.kind != "O" else "nothing"
    problems.append(
        Problem(
            "bad-centre",
            f"{name} is {readable(shown, 60)} instead of a number of degrees.",
            "read without it",
        )
    )
    return None


def _coordinate_of(
    values: Array | None, name: str, problems: list[Problem]
) -> npt.NDArray[np.float64] | None:
    """Return the coordinates of pixel centres along one axis; None and a problem if they are not those of a regular grid."""
    if values is None:
        return None
    reason = grid_problem(name, values)
    if reason:
        problems.append(Problem("bad-georeference", reason, NO_PLACE))
        return None
    return values.astype(np.float64, copy=False)


def small_array(group: ZarrGroup, name: str, problems: list[Problem]) -> Array | None:
    """Return a small array, unpacked if it is one of numbers, or None and a problem."""
    if name not in group:
        return None
    with problem_of(problems, "read without it"):
        values = group.read_small(name)
        return unpacked(values, group.spec(name), name, problems)
    return None


def unpacked(values: Array, spec: ArraySpec, name: str, problems: list[Problem]) -> Array:
    """Return coordinates, or times, as their attributes mean them; what is not understood becomes a problem."""
    if values.dtype.kind not in "fiu" or name in ("sample", "crs", "band", "file_id"):
        return values
    if name in TIMES:
        if not SCALING & spec.attrs.keys():
            return values  # their missing values are dealt with as times, without loss of nanoseconds
        values = values.astype(np.float64)
    found: list[Problem] = []
    values = unpack(values, spec.attrs, spec.missing, found, name)
    problems += [problem for problem in found if problem.kind == "ignored-attribute"]
    return values


def problem_of(problems: list[Problem], action: str) -> Boundary:
    """Return a boundary whose finding goes to ``problems``."""
    return Boundary(lambda kind, reason: problems.append(Problem(kind, reason, action)), "corrupt-chunk")
