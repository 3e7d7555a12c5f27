"""Rows of a metadata table, checked: each value is usable or left out, with a problem that says why."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa

from tensorbank_indexer.cf import EARLIEST_NS, LATEST_NS, NS_PER_UNIT
from tensorbank_indexer.containers import Boundary, is_identifier, readable

__all__ = ["DATED_COLUMNS", "MEMBER_SUFFIX", "MemberRow", "RowProblems", "problem_sink", "rows_by_stem"]

MEMBER_SUFFIX = ".zarr.zip"
DATED_COLUMNS = ("S2_time", "cloud_cover")
MAX_DEGREES = {"center_lon": 360.0, "center_lat": 90.0}
"""The most degrees that a longitude or latitude may have."""

RowProblems = list[tuple[str, str]]
"""A list of members (empty for the table), each with what is wrong with its rows."""


@dataclass(frozen=True, slots=True)
class MemberRow:
    """The row of a member. ``lon``, ``lat`` are NaN and ``time_ns`` is 0 where the table does not say."""

    sample_id: str
    lon: float
    lat: float
    time_ns: int
    metadata: Mapping[str, object]


def rows_by_stem(table: pa.Table, problems: RowProblems) -> dict[str, MemberRow]:
    """Return the usable rows by stem, the first of those that repeat one; what is wrong goes to ``problems``."""
    factors: dict[str, int] = {}
    for i, column in enumerate(table.schema):
        if pa.types.is_timestamp(column.type):
            # As whole numbers, since Python's dates end before those that a damaged table may hold.
            factors[column.name] = NS_PER_UNIT[column.type.unit]
            table = table.set_column(i, column.name, table[column.name].cast(pa.int64()))
    rows: dict[str, MemberRow] = {}
    for record in table.to_pylist():
        name = record["zarr"]
        if not isinstance(name, str):
            continue
        stem = name.removesuffix(MEMBER_SUFFIX)
        row: MemberRow | None = None
        with Boundary(problem_sink(problems, stem)):
            record |= {name: record[name] * n for name, n in factors.items() if record[name] is not None}
            row = _row(record, stem, problems)
        if row is None:
            continue
        if stem in rows:
            if repr(rows[stem]) != repr(row):
                problems.append(
                    (stem, f"The table has another row of {readable(stem, 100)}; the first is taken.")
                )
        else:
            rows[stem] = row
    return rows


def problem_sink(problems: RowProblems, member: str, before: str = "") -> Callable[[str, str], None]:
    """Return a callback for :class:`tensorbank_indexer.containers.Boundary` that adds what was raised to ``problems``."""
    return lambda _kind, reason: problems.append((member, before + reason))


def _row(record: Mapping[str, Any], stem: str, problems: RowProblems) -> MemberRow | None:
    """Return the row of a member, None if it has no usable id; a value that cannot be used is left out."""

    def wrong(name: str, value: object) -> None:
        problems.append((stem, f"{name} is {readable(repr(value), 60)} in the table."))

    sample_id = _id(record["sample_id"])
    if sample_id is None:
        wrong("sample_id", record["sample_id"])
        return None
    numbers: dict[str, float] = {}
    for name in ("center_lon", "center_lat", *_of_each_date("cloud_cover")):
        value = record.get(name)
        if value is None:
            continue
        sound = isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)
        # Cloud covers are judged later, where the cloud mask can stand in for them.
        if not sound or (name in MAX_DEGREES and not abs(value) <= MAX_DEGREES[name]):
            wrong(name, value)
        else:
            numbers[name] = float(value)
    dates: list[int] = []
    for name in _of_each_date("S2_time"):
        if record.get(name) in (None, ""):
            continue
        time_ns = _time_ns(record[name])
        if time_ns is None or not EARLIEST_NS <= time_ns < LATEST_NS:
            wrong(name, record[name])
        else:
            dates.append(time_ns)
    covers = tuple(numbers[name] for name in _of_each_date("cloud_cover") if name in numbers)
    return MemberRow(
        sample_id=sample_id,
        lon=numbers.get("center_lon", math.nan),
        lat=numbers.get("center_lat", math.nan),
        time_ns=min(dates, default=0),
        metadata={"cloud_cover": covers} if covers else {},
    )


def _of_each_date(name: str) -> tuple[str, ...]:
    return (name, *(f"{name}_{t}" for t in range(4)))


def _id(value: object) -> str | None:
    """Return a sample's id, None if it is none; numbers get back the leading zeros of SSL4EO-S12's seven digits."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:07d}"
    return value if isinstance(value, str) and is_identifier(value) else None


def _time_ns(value: object) -> int | None:
    """Return nanoseconds since 1970 UTC from such a number, a date or a text in ISO 8601; None from anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lstrip("-").isdigit() and len(value) > 8:
        return int(value) if len(value) < 30 else None
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, datetime):
        moment = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000
    if isinstance(value, date):
        return (value - date(1970, 1, 1)).days * 86_400 * 10**9
    return None
