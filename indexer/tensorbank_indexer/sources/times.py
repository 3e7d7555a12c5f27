"""Acquisition times: decoding of CF units, and what product ids tell about them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["NO_TIME", "decode_times", "id_times", "is_plausible", "match_slots"]

NO_TIME = np.iinfo(np.int64).min
"""Stands for a time that is absent or cannot be represented, as in numpy's NaT."""
NS_PER_UNIT = {
    "nanosecond": 1,
    "microsecond": 1_000,
    "millisecond": 1_000_000,
    "second": 1_000_000_000,
    "minute": 60_000_000_000,
    "hour": 3_600_000_000_000,
    "day": 86_400_000_000_000,
}
UNITS = re.compile(r"\s*([a-z]+?)s?\s+since\s+(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d(?:\.\d+)?)?))?")
EARLIEST_NS = int(np.datetime64("2000-01-01", "ns").astype(np.int64))
LATEST_NS = int(np.datetime64("2100-01-01", "ns").astype(np.int64))
TOLERANCE_NS = 300 * NS_PER_UNIT["second"]
"""A time may be the start, middle or end of an acquisition; a Sentinel-1 slice takes 25 s."""
STAMP = re.compile(r"(?:^|_)(\d{8}T\d{6})(?=_|$)")

Times = npt.NDArray[np.int64]


def decode_times(values: npt.NDArray[Any], attrs: Mapping[str, Any]) -> Times:
    """Times in ns since 1970 UTC, same shape; ``NO_TIME`` where there is none or it does not fit.

    Parameters
    ----------
    values
        datetime64, or numbers whose CF ``units`` (CF conventions 1.11, 4.4) are in ``attrs``; without units
        they are ns.
    """
    if values.dtype.kind == "M":
        return values.astype("M8[ns]").astype(np.int64)
    units = _units(str(attrs.get("units", "nanoseconds since 1970-01-01")))
    if units is None:
        return np.full(values.shape, NO_TIME, np.int64)
    factor, origin = units
    if (factor, origin) == (1, 0) and values.dtype == np.int64:
        return values
    limit = (np.iinfo(np.int64).max - abs(origin)) // factor
    out = np.full(values.shape, NO_TIME, np.int64)
    with np.errstate(invalid="ignore"):
        fits = (values >= -limit) & (values <= limit)
    if values.dtype.kind == "f":
        out[fits] = np.rint(values[fits] * float(factor)).astype(np.int64) + origin
    else:
        out[fits] = values[fits].astype(np.int64) * factor + origin
    return out


@lru_cache(maxsize=4096)
def _units(units: str) -> tuple[int, int] | None:
    """Nanoseconds in a unit, and its origin in ns since 1970."""
    found = UNITS.match(units)
    if found is None or found[1] not in NS_PER_UNIT:
        return None
    try:
        origin = np.datetime64(f"{found[2]}T{found[3] or '00:00:00'}", "ns")
    except ValueError:
        return None
    return NS_PER_UNIT[found[1]], int(origin.astype(np.int64))


def is_plausible(times_ns: Times) -> npt.NDArray[np.bool_]:
    """Which times lie between 2000 and 2100; the others are damaged."""
    plausible: npt.NDArray[np.bool_] = (times_ns >= EARLIEST_NS) & (times_ns < LATEST_NS)
    return plausible


def id_times(product_ids: Sequence[str]) -> Times:
    """First time stamp in each Sentinel product id, in ns since 1970 UTC, ``NO_TIME`` where there is none."""
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
    """For each time the position of the stamp that belongs to it, or None if they are not the same set of
    times.

    ``arange(n)`` says that all is in order.
    """
    if _agree(times_ns, stamps_ns):
        return np.arange(len(times_ns))
    ranks = np.argsort(np.argsort(times_ns, kind="stable"), kind="stable")
    order = np.argsort(stamps_ns, kind="stable")[ranks]
    return order if _agree(times_ns, stamps_ns[order]) else None


def _agree(times_ns: Times, stamps_ns: Times) -> bool:
    return bool((np.abs(times_ns - stamps_ns) <= TOLERANCE_NS).all())
