"""Values in CQL2-JSON: numbers, texts, times and areas, each checked. Pure.

What is wrong is an error that points to its place in the filter by a JSON Pointer.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import TypeAlias, TypeGuard

import shapely

from tensorbank.errors import ErrorKind, InvalidInputError

__all__ = [
    "FilterError",
    "Json",
    "Literal",
    "geometry",
    "instant",
    "interval",
    "number",
    "search_times",
    "text",
    "wrong",
]

MAX_STRING_CHARACTERS = 1_024
INT64 = (-(2**63), 2**63 - 1)

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
"""A value that JSON can hold."""


class FilterError(InvalidInputError):
    """A filter that cannot be used.

    Parameters
    ----------
    at
        JSON Pointer to what is wrong; empty for the filter as a whole.
    what
        The sentence that says what is wrong there.
    """

    default_kind = ErrorKind.FILTER

    def __init__(self, at: str, what: str) -> None:
        super().__init__(f"filter{at or '/'}: {what}")
        self.pointer = at or "/"
        self.what = what

    def __reduce__(self) -> tuple[object, ...]:
        return (FilterError, (self.pointer, self.what))


@dataclass(frozen=True, slots=True)
class Literal:
    """A value of a caller: a number, a text, or a time in UTC."""

    value: float | int | str | datetime | bool

    @property
    def sql(self) -> str:
        """The literal as DuckDB reads it. Its strings know one escape, the doubled quote."""
        value = self.value
        if isinstance(value, bool):
            return "TRUE" if value else "FALSE"
        if isinstance(value, int | float):  # as a user of the library writes it: the plan is the same
            return f"({value!r})" if value < 0 else repr(value)
        text = value.isoformat() if isinstance(value, datetime) else value
        quoted = "'" + text.replace("'", "''") + "'"
        return f"TIMESTAMPTZ {quoted}" if isinstance(value, datetime) else quoted


def number(value: int | float, at: str) -> Literal:
    """Return a number as a literal. It must be finite, and of 64 bits at most if it is whole."""
    if isinstance(value, int) and not INT64[0] <= value <= INT64[1]:
        raise wrong(at, "a whole number of more than 64 bits")
    if not math.isfinite(value):
        raise wrong(at, "a number must be finite")
    return Literal(value)


def text(value: str, at: str) -> Literal:
    """Return a text as a literal. It must not be too long, nor have a character that cannot be stored."""
    if len(value) > MAX_STRING_CHARACTERS:
        raise wrong(at, f"a text of more than {MAX_STRING_CHARACTERS:,} characters")
    if "\x00" in value or any(0xD800 <= ord(c) < 0xE000 for c in value):
        raise wrong(at, "a text with a character that cannot be stored")
    return Literal(value)


_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?(Z|z|[+-]\d\d:\d\d)")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


def instant(node: Json, at: str) -> tuple[datetime, datetime]:
    """Return the first and last moment of a timestamp, or of a date."""
    if isinstance(node, str):
        node = {"date" if _DATE.fullmatch(node) else "timestamp": node}
    key, told = next(iter(node.items())) if isinstance(node, dict) and len(node) == 1 else ("", None)
    pattern = _DATE if key == "date" else _TIMESTAMP
    try:
        if key not in ("date", "timestamp") or not isinstance(told, str) or pattern.fullmatch(told) is None:
            raise ValueError
        if key == "date":
            day = date.fromisoformat(told)
            return datetime.combine(day, time.min, UTC), datetime.combine(day, time.max, UTC)
        moment = datetime.fromisoformat(told.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise wrong(at, "a time is {'timestamp': '2021-07-01T00:00:00Z'} or {'date': '2021-07-01'}") from None
    return moment, moment


def interval(node: Json, at: str) -> tuple[datetime | None, datetime | None]:
    """Return the first and last moment of an instant or an interval; None where it is open."""
    if not (isinstance(node, dict) and set(node) == {"interval"}):
        return instant(node, at)
    ends = node["interval"]
    if not isinstance(ends, list) or len(ends) != 2:
        raise wrong(at, "an interval is two times; '..' where it is open")
    start = None if ends[0] == ".." else instant(ends[0], f"{at}/interval/0")[0]
    end = None if ends[1] == ".." else instant(ends[1], f"{at}/interval/1")[1]
    if start is not None and end is not None and start > end:
        raise wrong(at, "an interval ends before it begins")
    return start, end


def search_times(text: str) -> dict[str, Json]:
    """Return the ``datetime`` of a search (OGC API Features, 7.15.3) as CQL2-JSON: one moment, or two with a slash between.

    Raises
    ------
    InvalidInputError
        It is neither, a date without a time of day, or open at both ends.
    """
    ends: list[Json] = [part or ".." for part in text.split("/")]
    if len(ends) == 1:
        return {"timestamp": ends[0]}
    if len(ends) != 2 or ends == ["..", ".."]:
        raise InvalidInputError(
            "datetime is a moment such as 2021-07-01T00:00:00Z, or two with a slash between; '..' where one is open"
        )
    for end in ends:
        if end != "..":
            instant({"timestamp": end}, "")
    return {"interval": ends}


_GEOMETRIES = frozenset(
    ["Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon", "GeometryCollection"]
)


def geometry(node: Json, at: str) -> str:
    """Return a GeoJSON geometry or a box as GeoJSON text; a box whose west is greater than its east crosses the antimeridian."""
    if not isinstance(node, dict):
        raise wrong(at, "a geometry in GeoJSON or a bbox is needed here")
    if set(node) == {"bbox"}:
        node = _box(node["bbox"], at)
    if not isinstance(node.get("type"), str) or node["type"] not in _GEOMETRIES:
        raise wrong(at, f"a geometry is one of {', '.join(sorted(_GEOMETRIES))}")
    inside = "geometries" if node["type"] == "GeometryCollection" else "coordinates"
    geojson = json.dumps({"type": node["type"], inside: node.get(inside)})
    if "NaN" in geojson or "Infinity" in geojson:
        raise wrong(at, "a coordinate must be finite")
    try:
        shape = shapely.from_geojson(geojson)
    except shapely.errors.GEOSException:
        shape = shapely.Polygon()
    if shape.is_empty or not shape.is_valid:
        raise wrong(at, "this is not a valid geometry")
    return geojson


def _box(box: Json, at: str) -> dict[str, Json]:
    numbers = [n for n in box if _is_number(n)] if isinstance(box, list) else []
    if not isinstance(box, list) or len(numbers) != len(box) or len(box) not in (4, 6):
        raise wrong(at, "a bbox is four finite numbers: west, south, east, north")
    west, south, east, north = numbers if len(box) == 4 else (*numbers[:2], *numbers[3:5])
    if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south <= north <= 90):
        raise wrong(at, "a bbox lies within -180, -90, 180, 90, and its south below its north")
    halves = [(west, east)] if west <= east else [(west, 180), (-180, east)]
    rings: list[Json] = [[[[w, south], [e, south], [e, north], [w, north], [w, south]]] for w, e in halves]
    return {"type": "MultiPolygon", "coordinates": rings}


def _is_number(value: Json) -> TypeGuard[int | float]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if isinstance(value, int):  # of any length: one beyond a float cannot be asked whether it is finite
        return INT64[0] <= value <= INT64[1]
    return math.isfinite(value)


def wrong(at: str, what: str) -> FilterError:
    """Return an error that points to a place in the filter."""
    return FilterError(at, what)
