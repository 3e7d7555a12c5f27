"""Selections: queries built step by step, each step a new value with the SQL that it stands for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tensorbank.arguments import instance, number, whole_number
from tensorbank.errors import InvalidInputError
from tensorbank.plans import Plan
from tensorbank.polygons import as_geojson
from tensorbank.queries.answers import Answers
from tensorbank.queries.query import Query, QueryEngine
from tensorbank.statistics import Statistics

if TYPE_CHECKING:
    import xarray

__all__ = ["Selection", "sides_of"]

_HANDLE = re.compile(r"\s*([A-Za-z_]\w*)\s*\[([^\]]*)\]\s*")


@dataclass(frozen=True, slots=True)
class Selection(Answers):
    """A selection of samples of one table, step by step. Nothing is read before it is asked for.

    ``bank.query("t").where("cloud_cover < 0.1").select("S2L2A[B04,B08]", "DEM")`` is the same query, with the same
    fingerprint, as ``SELECT bands(S2L2A, ['B04', 'B08']), DEM FROM t WHERE (cloud_cover < 0.1)``.
    """

    table: str
    engine: QueryEngine = field(repr=False)
    columns: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    order: tuple[str, ...] = ()
    n_max: int | None = None

    def select(self, *columns: str) -> Selection:
        """Select columns, SQL expressions or handles with bands such as ``S2L2A[B04,B08]``;
        everything if never called.
        """
        return replace(self, columns=(*self.columns, *map(_column, columns)))

    def where(self, condition: str) -> Selection:
        """Add a SQL condition; several must all hold."""
        instance("condition", condition, str, "give an SQL expression such as 'cloud_cover < 0.1'")
        return replace(self, conditions=(*self.conditions, condition))

    def bbox(self, west: float, south: float, east: float, north: float) -> Selection:
        """Keep the samples whose centre lies in a box, degrees; ``west > east`` crosses the antimeridian.

        Raises
        ------
        InvalidInputError
            A side is no longitude in [-180, 180] or latitude in [-90, 90], or south is above north.
        """
        box = ", ".join(f"{v!r}" for v in sides_of(west, south, east, north))
        return self.where(f"within_bbox(lon, lat, {box})")

    def intersecting(self, area: Any) -> Selection:
        """Keep the samples whose exact footprint shares a point with a geometry:
        GeoJSON text or mapping, or ``__geo_interface__``.

        Raises
        ------
        InvalidInputError
            The area is no geometry, or an empty one.
        """
        text = as_geojson(area).replace("'", "''")
        return self.where(f"intersects_polygon(footprint, '{text}')")

    def between(self, start: str | date | datetime, end: str | date | datetime) -> Selection:
        """Keep the samples whose first optical date lies in ``[start, end)``; without a zone, UTC."""
        return self.where(f"S2_time >= {_timestamp(start)} AND S2_time < {_timestamp(end)}")

    def order_by(self, *expressions: str) -> Selection:
        """Order the plan by SQL expressions; samples come in the order of their bytes if this is never called."""
        return replace(self, order=(*self.order, *expressions))

    def limit(self, n: int) -> Selection:
        """Limit the selection to at most so many samples."""
        return replace(self, n_max=whole_number("the limit", n, at_least=0))

    @property
    def sql(self) -> str:
        """The statement that this stands for."""
        parts = [f"SELECT {', '.join(self.columns) or '*'} FROM {self.table}"]
        if self.conditions:
            parts.append("WHERE " + " AND ".join(f"({c}{_end(c)})" for c in self.conditions))
        if self.order:
            parts.append("ORDER BY " + ", ".join(self.order))
        if self.n_max is not None:
            parts.append(f"LIMIT {self.n_max}")
        return " ".join(parts)

    @property
    def query(self) -> Query:
        """Return the selection as a :class:`Query`."""
        return Query(self.sql, self.engine)

    def plan(self, *, by_date: bool = False) -> Plan:
        """See :meth:`Query.plan`."""
        return self.query.plan(by_date=by_date)

    def arrow(self) -> pa.Table:
        """See :meth:`Query.arrow`."""
        return self.query.arrow()

    def _first(self, n: int) -> pa.Table:
        return self.limit(n if self.n_max is None else min(n, self.n_max)).arrow()

    def _count(self) -> int:
        return len(self.query)

    def _dataset(self, plan: Plan, max_bytes: int) -> xarray.Dataset:
        return self.engine.dataset(plan, max_bytes)

    def statistics(self, name: str) -> Statistics:
        """See :meth:`Query.statistics`."""
        return self.query.statistics(name)

    def split_by(self, group: str, fractions: Mapping[str, float], *, seed: int = 0) -> dict[str, Query]:
        """See :meth:`Query.split_by`."""
        return self.query.split_by(group, fractions, seed=seed)

    @property
    def question(self) -> str:
        """See :attr:`Answers.question`."""
        return self.query.question

    def adopted(self, plan: Plan) -> Plan:
        """See :meth:`Answers.adopted`."""
        return self.query.adopted(plan)


def _end(condition: str) -> str:
    """Return what ends a comment at the end of a condition."""
    return "\n" if "--" in condition else ""


def sides_of(west: float, south: float, east: float, north: float) -> tuple[float, float, float, float]:
    """Return the sides of a box in degrees.

    Raises
    ------
    InvalidInputError
        No centre can lie beyond one of them, or between south and north.
    """
    w, e = (number(name, v, at_least=-180, at_most=180) for name, v in (("west", west), ("east", east)))
    s, n = (number(name, v, at_least=-90, at_most=90) for name, v in (("south", south), ("north", north)))
    if s > n:
        raise InvalidInputError(f"south is {south!r}, which is above north, {north!r}")
    return w, s, e, n


def _column(text: str) -> str:
    """Return ``S2L2A[B04,B08]`` as SQL; anything else as it is."""
    found = _HANDLE.fullmatch(instance("a column", text, str, "give its name, or an SQL expression"))
    if found is None:
        return text
    names = [name.strip() for name in found[2].split(",")]
    if not all(names):
        raise InvalidInputError(f"{text!r} has no band name between two commas")
    listed = ", ".join("'" + name.replace("'", "''") + "'" for name in names)
    return f"bands({found[1]}, [{listed}])"


def _timestamp(value: str | date | datetime) -> str:
    text = value if isinstance(value, str) else value.isoformat()
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidInputError(f"{text!r} is not a date; give one such as '2021-07-01'") from error
    zoned = parsed.isoformat() if parsed.tzinfo is not None else f"{parsed.isoformat()}+00:00"
    return f"TIMESTAMPTZ '{zoned}'"
