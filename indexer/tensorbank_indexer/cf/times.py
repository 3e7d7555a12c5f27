"""Acquisition times: decoding of CF units, and what product ids tell about them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from tensorbank_indexer.cf.packing import missing_values

__all__ = [
    "EARLIEST_NS",
    "LATEST_NS",
    "NO_TIME",
    "decode_times",
    "id_times",
    "is_plausible",
    "match_slots",
    "times_problem",
]

NO_TIME = np.iinfo(np.int64).min
"""The number that stands for a time that is absent or cannot be represented, as in numpy's NaT."""
NS_PER_UNIT = {
    name: factor
    for names, factor in (
        ("nanosecond nanoseconds nanosec nanosecs nsec ns", 1),
        ("microsecond microseconds microsec microsecs usec us", 1_000),
        ("millisecond milliseconds millisec millisecs msec ms", 1_000_000),
        ("second seconds sec secs s", 1_000_000_000),
        ("minute minutes min mins", 60_000_000_000),
        ("hour hours hr hrs h", 3_600_000_000_000),
        ("day days d", 86_400_000_000_000),
    )
    for name in names.split()
}
"""The units of CF with one length; months and years have none."""
NUMPY_UNITS = {"ns": "ns", "us": "us", "ms": "ms", "s": "s", "m": "min", "h": "h", "D": "d"}
UNITS = re.compile(
    r"\s*([A-Za-z]+)\s+since\s+(\d{1,4})-(\d{1,2})-(\d{1,2})"
    r"(?:[T\s]\s*(\d{1,2})(?::(\d{1,2})(?::(\d{1,2})(?:\.(\d{1,9}))?)?)?)?"
    r"\s*(?:Z|UTC|GMT|([+-])(\d{1,2})(?::?(\d{2}))?)?\s*"
)
MAX_UNITS_CHARS = 100
CALENDARS = frozenset({"standard", "gregorian", "proleptic_gregorian"})
REFORM = date(1582, 10, 15)
"""The day before which calendar ``standard`` is the Julian one."""
EPOCH_DAY = date(1970, 1, 1).toordinal()
EARLIEST_NS = int(np.datetime64("2000-01-01", "ns").astype(np.int64))
LATEST_NS = int(np.datetime64("2100-01-01", "ns").astype(np.int64))
TOLERANCE_NS = 300 * NS_PER_UNIT["second"]
"""A time may be the start, middle or end of an acquisition; a Sentinel-1 slice takes 25 s."""
STAMP = re.compile(r"(?:^|_)(\d{8}T\d{6})(?=_|$)")

Times = npt.NDArray[np.int64]


def decode_times(values: npt.NDArray[Any], attrs: Mapping[str, Any]) -> Times:
    """Return the times in ns since 1970 UTC, same shape; ``NO_TIME`` where there is none or it does not fit.

    Parameters
    ----------
    values
        datetime64, or numbers whose CF ``units`` (CF conventions 1.11, 4.4) are in ``attrs``; without units
        they are ns. All of them are ``NO_TIME`` if :func:`times_problem` says why they mean nothing.
    """
    out = np.full(values.shape, NO_TIME, np.int64)
    if times_problem(values, attrs):
        return out
    if values.dtype.kind == "M":
        unit, count = np.datetime_data(values.dtype)
        factor, origin = NS_PER_UNIT[NUMPY_UNITS[unit]] * count, 0
        values = values.view(np.int64)
        known = values != NO_TIME
    else:
        factor, origin = _units(_given_units(attrs)) or (1, 0)
        known = np.isfinite(values)
        missing = missing_values(values.dtype, attrs, None, [], "time")
        if missing:
            known &= ~np.isin(values, np.array(missing, values.dtype))
    if (factor, origin) == (1, 0) and values.dtype == np.int64 and known.all():
        return values
    if values.dtype.kind == "u":
        known &= values <= 2**63 - 1
    values = values.astype(np.float64 if values.dtype.kind == "f" else np.int64)
    # Steps may be more than 64 bits hold where their sum with the origin is not: both are taken modulo 2**64.
    shift = np.int64((origin + 2**63) % 2**64 - 2**63)
    low, high = -((2**63 - 1 + origin) // factor), (2**63 - 1 - origin) // factor
    fits = known & (values >= low) & (values <= high)
    if values.dtype.kind == "f":
        whole = np.floor(values[fits])
        part = np.rint((values[fits] - whole) * factor).astype(np.int64)
    else:
        whole, part = values[fits], np.int64(0)
    with np.errstate(over="ignore"):
        out[fits] = whole.astype(np.int64) * np.int64(factor) + shift + part
    return out


def times_problem(values: npt.NDArray[Any], attrs: Mapping[str, Any]) -> str:
    """Say why numbers or their attributes do not tell times; empty if they do."""
    if values.dtype.kind == "M":
        unit = np.datetime_data(values.dtype)[0]
        return "" if unit in NUMPY_UNITS else f"The times are in units of {unit}."
    if values.dtype.kind not in "ifu":
        return f"The times are {values.dtype} instead of numbers."
    calendar = attrs.get("calendar", "standard")
    if not isinstance(calendar, str) or calendar.lower() not in CALENDARS:
        return (
            f"The calendar of the times is {str(calendar)[:60]!r}; {', '.join(sorted(CALENDARS))} are known."
        )
    units = _given_units(attrs)
    found = UNITS.fullmatch(units) if len(units) <= MAX_UNITS_CHARS else None
    if found is None or _units(units) is None:
        return f"The units of the times are {units[:60]!r}, of which no date follows."
    if calendar.lower() != "proleptic_gregorian" and date(*(int(found[i]) for i in (2, 3, 4))) < REFORM:
        return f"The times count from {units[:60]!r}, before the calendar {calendar!r} was reformed."
    return ""


def _given_units(attrs: Mapping[str, Any]) -> str:
    return str(attrs.get("units", "nanoseconds since 1970-01-01"))


@lru_cache(maxsize=4096)
def _units(units: str) -> tuple[int, int] | None:
    """Return the nanoseconds of a unit, and its origin in ns since 1970 UTC."""
    found = UNITS.fullmatch(units)
    factor = NS_PER_UNIT.get(found[1].lower()) if found else None
    if found is None or factor is None:
        return None
    hour, minute, second, zone_hour, zone_minute = (int(found[i] or 0) for i in (5, 6, 7, 10, 11))
    if hour > 24 or minute > 59 or second > 60 or zone_hour > 15 or zone_minute > 59:
        return None
    try:
        day = date(int(found[2]), int(found[3]), int(found[4])).toordinal() - EPOCH_DAY
    except ValueError:
        return None
    zone = (zone_hour * 60 + zone_minute) * (-1 if found[9] == "-" else 1)
    seconds = ((day * 24 + hour) * 60 + minute - zone) * 60 + second
    return factor, seconds * 10**9 + int((found[8] or "").ljust(9, "0"))


def is_plausible(times_ns: Times) -> npt.NDArray[np.bool_]:
    """Return which times lie between 2000 and 2100; the others are damaged."""
    plausible: npt.NDArray[np.bool_] = (times_ns >= EARLIEST_NS) & (times_ns < LATEST_NS)
    return plausible


def id_times(product_ids: Sequence[str]) -> Times:
    """Return the first time stamp in each Sentinel product id, in ns since 1970 UTC, ``NO_TIME`` where there is none."""
    out = np.full(len(product_ids), NO_TIME, np.int64)
    for i, product_id in enumerate(product_ids):
        found = STAMP.search(product_id)
        if found:
            s = found[1]
            try:
                stamp = np.datetime64(f"{s[:4]}-{s[4:6]}-{s[6:8]}T{s[9:11]}:{s[11:13]}:{s[13:15]}", "ns")
            except ValueError:
                continue
            out[i] = stamp.astype(np.int64)
    return out


def match_slots(times_ns: Times, stamps_ns: Times) -> npt.NDArray[np.int64] | None:
    """Return for each time the position of the stamp that belongs to it, or None if the two are not the same set of times.

    ``arange(n)`` says that all is in order.
    """
    if _agree(times_ns, stamps_ns):
        return np.arange(len(times_ns))
    ranks = np.argsort(np.argsort(times_ns, kind="stable"), kind="stable")
    order = np.argsort(stamps_ns, kind="stable")[ranks]
    return order if _agree(times_ns, stamps_ns[order]) else None


def _agree(times_ns: Times, stamps_ns: Times) -> bool:
    return bool((np.abs(times_ns - stamps_ns) <= TOLERANCE_NS).all())
