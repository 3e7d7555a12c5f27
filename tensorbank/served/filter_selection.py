"""Selections at a service: built step by step as those of a bank are, from conditions in CQL2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tensorbank.errors import ErrorKind, InvalidInputError
from tensorbank.plans import Plan
from tensorbank.polygons import as_geojson
from tensorbank.queries import Query, Selection, sides_of
from tensorbank.reading import as_dataset
from tensorbank.served.service_planner import ServicePlanner, Wish
from tensorbank.statistics import Statistics

if TYPE_CHECKING:
    import xarray

__all__ = ["FilterSelection"]


@dataclass(frozen=True, slots=True)
class FilterSelection(Selection):
    """A selection of samples of one table of a service.
    Conditions are CQL2 text, which reads as the simple part of SQL does.

    ``bank.query("t").where("cloud_cover < 0.1").select("S2L2A[B04,B08]", "DEM")`` selects what it selects of a bank that is
    opened directly. ``sample_id`` is always the first column.
    """

    planner: ServicePlanner = field(kw_only=True, repr=False, compare=False)
    version: int | None = field(default=None, kw_only=True)

    def bbox(self, west: float, south: float, east: float, north: float) -> Selection:
        """See :meth:`Selection.bbox`."""
        w, s, e, n = map(repr, sides_of(west, south, east, north))
        inside = f"lon BETWEEN {w} AND {e}" if west <= east else f"(lon >= {w} OR lon <= {e})"
        return self.where(f"lat BETWEEN {s} AND {n} AND {inside}")

    def intersecting(self, area: Any) -> Selection:
        """See :meth:`Selection.intersecting`."""
        import shapely

        text = as_geojson(area)
        collected = shapely.from_geojson(text)
        polygons = [g for g in shapely.get_parts(collected) if g.geom_type in ("Polygon", "MultiPolygon")]
        shape = shapely.union_all(polygons)
        return self.where(f"S_INTERSECTS(geometry, {shapely.to_wkt(shape, rounding_precision=-1)})")

    def between(self, start: str | date | datetime, end: str | date | datetime) -> Selection:
        """See :meth:`Selection.between`."""
        return self.where(f"S2_time >= {_timestamp(start)} AND S2_time < {_timestamp(end)}")

    def order_by(self, *expressions: str) -> Selection:
        """Refuse: a service orders no selection.

        Raises
        ------
        InvalidInputError
            Always.
        """
        raise InvalidInputError(
            f"a service gives samples in the order of their bytes, not by {', '.join(expressions)}; order the rows of .arrow()",
            kind=ErrorKind.UNSUPPORTED,
        )

    @property
    def query(self) -> Query:
        """Return the selection as SQL, for keys that may send it."""
        return Query(self.sql, self.engine)

    def plan(self, *, by_date: bool = False) -> Plan:
        """See :meth:`Query.plan`."""
        return self.planner.plan(self._wish(by_date=by_date))

    @property
    def question(self) -> str:
        """See :attr:`tensorbank.queries.answers.Answers.question`."""
        return f"{self.planner.url}\n{self.sql}\n{self.version}"

    def adopted(self, plan: Plan) -> Plan:
        """See :meth:`tensorbank.queries.answers.Answers.adopted`."""
        return self.planner.adopted(plan)

    def arrow(self) -> pa.Table:
        """Return the selected columns; of a modality, the addresses that :attr:`Plan.table` has."""
        return self.plan().table

    def _count(self) -> int:
        return len(self.plan())

    def _dataset(self, plan: Plan, max_bytes: int) -> xarray.Dataset:
        return as_dataset(plan, max_bytes)

    def statistics(self, name: str) -> Statistics:
        """See :meth:`Query.statistics`."""
        return self.planner.statistics(self._wish(), name)

    def split_by(self, group: str, fractions: Mapping[str, float], *, seed: int = 0) -> dict[str, Query]:  # noqa: ARG002
        """Refuse: a service splits no selection.

        Raises
        ------
        InvalidInputError
            Always.
        """
        raise InvalidInputError(
            f"a service cannot split by {group}, which needs SQL; narrow the selection with where() for each part",
            kind=ErrorKind.UNSUPPORTED,
        )

    def _wish(self, *, by_date: bool = False) -> Wish:
        filters = " AND ".join(f"({c})" for c in self.conditions)
        return Wish(self.table, self.columns, filters or None, self.n_max, self.version, by_date)


def _timestamp(value: str | date | datetime) -> str:
    text = value if isinstance(value, str) else value.isoformat()
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidInputError(f"{text!r} is not a date; give one such as '2021-07-01'") from error
    zoned = parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)
    return f"TIMESTAMP('{zoned.isoformat()}')"
