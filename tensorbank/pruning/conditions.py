"""Conditions on columns, and which blocks may hold a row that satisfies them. Pure.

A block is an index file, a shard or a row group: anything of which the smallest and largest value of a column are known. The
answer errs on one side only: a block that is ruled out holds no such row.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tensorbank.arrow_numpy import EPOCH, MICROSECOND, as_arrow, as_numpy, as_scalar

__all__ = ["ANYTHING", "AllOf", "AnyOf", "Bounds", "Compare", "Condition", "Constant", "leaves", "may_match"]

Mask = npt.NDArray[np.bool_]
Constant = float | int | str | bool | datetime
MAX_EXACT = 2.0**53
"""The number from which neighbouring integers are one float64."""
IN_LOG = pa.timestamp("us", "UTC")
MAX_COMPARED = 8
"""The most constants of a list that are compared with all blocks one by one, which takes longer than to look each block up."""
LOG_PRECISION = timedelta(milliseconds=1)
"""The precision of times in Delta's log, which cuts them to milliseconds."""


@dataclass(frozen=True, slots=True)
class Compare:
    """A column, lower-case path, against a constant. ``op`` is one of ``> >= < <= = !=``.

    ``owner`` is the number of the FROM item that the column is said to belong to, None where that is not said.
    """

    leaf: tuple[str, ...]
    op: str
    value: Constant
    owner: int | None = None


@dataclass(frozen=True, slots=True)
class AllOf:
    """A condition that holds if every part holds; without parts, nothing is asked."""

    parts: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class AnyOf:
    """A condition that holds if one part holds; without parts, nothing can match."""

    parts: tuple[Condition, ...]


Condition = Compare | AllOf | AnyOf
ANYTHING = AllOf()
Bounds = Callable[[tuple[str, ...]], tuple[pa.Array, pa.Array] | None]
"""The smallest and largest value of a leaf in each block, (n,) each; null or None where unknown."""


def leaves(condition: Condition) -> set[tuple[str, ...]]:
    """Return the columns that a condition asks about."""
    if isinstance(condition, Compare):
        return {condition.leaf}
    return set().union(*(leaves(part) for part in condition.parts))


def may_match(condition: Condition, bounds: Bounds, n: int) -> Mask:
    """Return which of ``n`` blocks may hold a row that satisfies a condition, (n,) bool.
    Each leaf's bounds are asked for once.
    """

    def sound(leaf: tuple[str, ...]) -> tuple[pa.Array, pa.Array] | None:
        known = bounds(leaf)
        return None if known is None else _sound(*known)

    return _mask(condition, cache(sound), n)


def _sound(low: pa.Array, high: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return bounds that bound: null where they are NaN, the wrong way round, or infinite on the inner side,
    as of no value at all.
    """
    if not pa.types.is_floating(low.type):
        return low, high
    least, most = as_numpy(low), as_numpy(high)
    unknown = ~((least <= most) & (least < np.inf) & (most > -np.inf))
    return (as_arrow(least, unknown), as_arrow(most, unknown)) if unknown.any() else (low, high)


def _mask(condition: Condition, bounds: Bounds, n: int) -> Mask:
    if isinstance(condition, Compare):
        known = bounds(condition.leaf)
        return np.ones(n, np.bool_) if known is None else _compared(condition, *known)
    if isinstance(condition, AnyOf) and (listed := _listed(condition)) is not None:
        known = bounds(listed[0])
        return np.ones(n, np.bool_) if known is None else _one_of(listed[1], *known)
    masks = [_mask(part, bounds, n) for part in condition.parts]
    if isinstance(condition, AllOf):
        return np.logical_and.reduce(masks) if masks else np.ones(n, np.bool_)
    return np.logical_or.reduce(masks) if masks else np.zeros(n, np.bool_)


def _listed(condition: AnyOf) -> tuple[tuple[str, ...], list[Constant]] | None:
    """Return the column and constants of a long list, None of anything else."""
    if len(condition.parts) <= MAX_COMPARED:
        return None
    values = [part.value for part in condition.parts if isinstance(part, Compare) and part.op == "="]
    columns = {part.leaf for part in condition.parts if isinstance(part, Compare)}
    return (columns.pop(), values) if len(columns) == 1 and len(values) == len(condition.parts) else None


def _one_of(values: Sequence[Constant], low: pa.Array, high: pa.Array) -> Mask:
    """Return the blocks that one of some constants may lie in, all of those whose bounds are unknown or cannot be compared.

    Each constant is a range, as wide as rounding makes it. Of ranges sorted by their lower ends, the first that does not end
    below a block is the one to look at: if it begins above the block, so do all behind it.
    """
    kind = low.type
    around = [_around(value, kind) for value in values]
    known = as_numpy(pc.and_(pc.is_valid(low), pc.is_valid(high)))
    pairs = sorted(pair for pair in around if pair is not None)
    if len(pairs) < len(values) or pa.types.is_boolean(kind):
        return np.ones(len(low), np.bool_)
    if pa.types.is_string(kind):
        most = [upper for _, upper in pairs]  # a text is its own range
        lows, highs = low.to_pylist(), high.to_pylist()
        first = [bisect_left(most, lower or "") for lower in lows]
        meets = [
            i < len(pairs) and pairs[i][0] <= (upper or "") for i, upper in zip(first, highs, strict=True)
        ]
        found: Mask = np.array(meets, np.bool_) | ~known
        return found
    if pa.types.is_timestamp(kind):
        low, high = (pc.cast(side, IN_LOG, safe=False).view(pa.int64()) for side in (low, high))
    lowest, highest = (as_numpy(side, 0) for side in (low, high))
    least, most = np.array(pairs, np.float64 if pa.types.is_floating(kind) else np.int64).T
    ends = np.maximum.accumulate(most)  # a wide range may end above the next ones
    place = np.searchsorted(ends, lowest)
    kept: Mask = ((place < len(pairs)) & (least[np.minimum(place, len(pairs) - 1)] <= highest)) | ~known
    return kept


def _compared(condition: Compare, low: pa.Array, high: pa.Array) -> Mask:
    """Return the blocks to keep, among them those whose bounds are unknown or cannot be compared with the constant.

    With ``least <= value <= most`` and ``low <= x <= high``, ``x < value`` means ``low < most``, and so on.
    """
    enclosed = _enclosed(condition.value, low.type)
    if enclosed is None:
        return np.ones(len(low), np.bool_)
    least, most = enclosed
    op = condition.op
    if op in ("<", "<="):
        mask = (pc.less if op == "<" else pc.less_equal)(low, most)
    elif op in (">", ">="):
        mask = (pc.greater if op == ">" else pc.greater_equal)(high, least)
    elif op == "=":
        mask = pc.and_(pc.less_equal(low, most), pc.greater_equal(high, least))
    elif least.equals(most):
        mask = pc.invert(pc.and_(pc.equal(low, least), pc.equal(high, least)))
    else:
        return np.ones(len(low), np.bool_)
    kept: Mask = as_numpy(mask, True)
    return kept


def _enclosed(value: Constant, kind: pa.DataType) -> tuple[pa.Scalar, pa.Scalar] | None:
    """Return two values of a column's type that enclose a constant, None where it is of another kind."""
    around = _around(value, kind)
    if around is None:
        return None
    if pa.types.is_timestamp(kind):
        first, last = (as_scalar(ticks, IN_LOG).cast(kind) for ticks in around)
        return first, last
    least, most = around
    kind = pa.int64() if pa.types.is_integer(kind) else kind
    return as_scalar(least, kind), as_scalar(most, kind)


def _around(value: Constant, kind: pa.DataType) -> tuple[Any, Any] | None:
    """Return what :func:`_enclosed` does as values of Python, of times in microseconds since 1970."""
    if pa.types.is_timestamp(kind):
        times = _times(value)
        return (
            None if times is None else ((times[0] - EPOCH) // MICROSECOND, (times[1] - EPOCH) // MICROSECOND)
        )
    if pa.types.is_boolean(kind):
        return (value, value) if isinstance(value, bool) else None
    if pa.types.is_string(kind):
        return (value, value) if isinstance(value, str) else None
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < 2**62:
        return None
    if pa.types.is_integer(kind):
        least, most = value, value
        if (
            isinstance(value, float) and abs(value) >= MAX_EXACT
        ):  # a neighbour was meant, or is met by rounding
            least, most = _neighbours(value, pa.float64())
        return math.floor(least), math.ceil(most)
    return _neighbours(float(value), kind) if pa.types.is_floating(kind) else None


def _neighbours(value: float, kind: pa.DataType) -> tuple[float, float]:
    """Return the neighbours of a number among the floats of a column: SQL may round the number to one between them."""
    as_kind = np.float32 if pa.types.is_float32(kind) else np.float64
    near = as_kind(value)
    return float(np.nextafter(near, as_kind(-np.inf))), float(np.nextafter(near, as_kind(np.inf)))


def _times(value: Constant) -> tuple[datetime, datetime] | None:
    """Return the earliest and latest instant that the log may have for a constant;
    without a zone it is of UTC, as everywhere.
    """
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    try:
        instant = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        return instant - LOG_PRECISION, instant + LOG_PRECISION
    except OverflowError:
        return None
