"""Pixel predicates: what they mean, and what statistics say about them. Pure.

A predicate compares the pixels of one band, or the normalised difference ``(a - b) / (a + b)`` of two bands of one modality, with
a constant, in float64. NaN matches nothing, and neither does a normalised difference whose denominator is 0. Of a sample with
``count`` pixels, ``n`` of which match: *any* is ``n > 0``, *all* is ``n == count``, *share* is ``n / count``.

Statistics bound ``n`` from both sides without a pixel being read. Where the bounds meet, or fall on one side of what is asked,
the predicate is decided; only the others have to be read.
"""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tensorbank.errors import InvalidInputError
from tensorbank.stats import QUANTILES

__all__ = ["OPERATORS", "BandKnots", "PixelPredicate", "Verdicts", "decide", "n_matching", "parse_comparison"]

OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "=": operator.eq,
    "!=": operator.ne,
}
_COMPARISON = re.compile(r"\s*(>=|<=|<>|!=|==|=|>|<)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*")
ROUNDING = 1e-15
_SAME = {"==": "=", "<>": "!="}


@dataclass(frozen=True, slots=True)
class PixelPredicate:
    """One predicate.

    Parameters
    ----------
    quantifier
        ``any``, ``all`` or ``share``.
    bands
        One band name, or the two of a normalised difference; empty for the only band of a modality.
    comparison, constant
        What a pixel must satisfy.
    share_comparison, share
        For ``share`` that is compared with a constant: what the share must satisfy. None where the share itself is asked for.
    """

    quantifier: str
    bands: tuple[str, ...]
    comparison: str
    constant: float
    share_comparison: str | None = None
    share: float = 0.0

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> PixelPredicate:
        """Inverse of :meth:`to_json`."""
        raw = json.loads(text)
        return cls(**{**raw, "bands": tuple(raw["bands"])})

    def answer(self, n: int, count: int) -> float:
        """The predicate's value for ``n`` matching pixels of ``count``: 1 or 0, or the share itself."""
        if self.quantifier == "any":
            return float(n > 0)
        if self.quantifier == "all":
            return float(n == count)
        share = n / count
        if self.share_comparison is None:
            return share
        return float(OPERATORS[self.share_comparison](share, self.share))


@dataclass(frozen=True, slots=True)
class BandKnots:
    """What the index knows of a band of a sample: pixels, valid ones, and stored values at known ranks.

    ``values`` ascends from the smallest to the largest valid pixel; ``ranks``, from 1, says how many valid pixels are at or
    before each in sorted order. Both are empty where no pixel is valid.
    """

    count: int
    valid: int
    values: tuple[float, ...]
    ranks: tuple[int, ...]

    @classmethod
    def of(cls, numbers: list[float | None], *, exact_quantiles: bool) -> BandKnots:
        """From count, valid, min, the quantiles, max as an index row has them.

        ``exact_quantiles`` is False for dtypes whose values the index rounds to float32; only the bounds are used then.
        """
        count, valid = int(numbers[0] or 0), int(numbers[1] or 0)
        if not valid or numbers[2] is None or numbers[-1] is None:
            return cls(count, valid, (), ())
        low, *middle, high = (math.nan if v is None else float(v) for v in numbers[2:])
        ranks = [math.floor(p * (valid - 1)) + 1 for _, p in QUANTILES]
        if not exact_quantiles:
            middle, ranks = [], []
        return cls(count, valid, (low, *middle, high), (1, *ranks, valid))


@dataclass(frozen=True, slots=True)
class Verdicts:
    """How many evaluations the index decided and how many took reading, and what that read."""

    decided: int = 0
    read: int = 0
    read_bytes: int = 0


def parse_comparison(text: str) -> tuple[str, float]:
    """Operator and constant of ``'> 0.8'``.

    Raises
    ------
    InvalidInputError
        It is none.
    """
    found = _COMPARISON.fullmatch(text)
    if found is None:
        raise InvalidInputError(
            f"{text!r} is no comparison of a pixel; write one such as '> 0.8'", kind="sql"
        )
    return _SAME.get(found[1], found[1]), float(found[2])


def decide(predicate: PixelPredicate, knots: tuple[BandKnots, ...]) -> float | None:
    """The predicate's value from statistics alone, or None where pixels have to be read.

    Parameters
    ----------
    knots
        Of the one band, or of the two of a normalised difference.
    """
    bounds = _of_band if len(knots) == 1 else _of_difference
    low, high = bounds(predicate, knots)
    count = knots[0].count
    if not count:
        return None
    at_low, at_high = predicate.answer(low, count), predicate.answer(high, count)
    if low == high:
        return at_low
    monotone = predicate.share_comparison not in ("=", "!=") and (
        predicate.quantifier != "share" or predicate.share_comparison is not None
    )
    return at_low if monotone and at_low == at_high else None


def _of_band(predicate: PixelPredicate, knots: tuple[BandKnots, ...]) -> tuple[int, int]:
    """Bounds, both included, of how many pixels of a band match."""
    (band,) = knots
    if not band.values:
        return (0, 0) if band.valid == 0 else (0, band.valid)
    c, op = predicate.constant, predicate.comparison
    if op in ("=", "!="):
        below, upto = _rank_bounds(band, c, strict=True), _rank_bounds(band, c, strict=False)
        equal = max(upto[0] - below[1], 0), upto[1] - below[0]
        return equal if op == "=" else (band.valid - equal[1], band.valid - equal[0])
    low, high = _rank_bounds(band, c, strict=op in ("<", ">="))
    return (low, high) if op in ("<", "<=") else (band.valid - high, band.valid - low)


def _rank_bounds(band: BandKnots, c: float, *, strict: bool) -> tuple[int, int]:
    """Bounds of the number of valid pixels ``< c`` (strict) or ``<= c``."""
    inside = operator.lt if strict else operator.le
    known = [rank for value, rank in zip(band.values, band.ranks, strict=True) if inside(value, c)]
    beyond = [rank for value, rank in zip(band.values, band.ranks, strict=True) if not inside(value, c)]
    return (known[-1] if known else 0), (beyond[0] - 1 if beyond else band.valid)


def _of_difference(predicate: PixelPredicate, knots: tuple[BandKnots, ...]) -> tuple[int, int]:
    """Bounds of how many normalised differences match, by interval arithmetic where both bands are positive."""
    a, b = knots
    most = min(a.valid, b.valid)
    if not most:
        return 0, 0
    if not (
        a.values and b.values and a.values[0] >= 0 and b.values[0] >= 0 and a.values[0] + b.values[0] > 0
    ):
        return 0, most
    # rises with a, falls with b; it lies in [-1, 1], so this much outward covers the rounding of pixel and bound
    low = _difference(a.values[0], b.values[-1]) - ROUNDING
    high = _difference(a.values[-1], b.values[0]) + ROUNDING
    matches = OPERATORS[predicate.comparison]
    c = predicate.constant
    at_bounds = bool(matches(low, c)), bool(matches(high, c))
    straddles = low <= c <= high
    both_valid = max(a.valid + b.valid - a.count, 0)
    if predicate.comparison == "=":
        return (0, most) if straddles else (0, 0)
    if predicate.comparison == "!=":
        return (0, most) if straddles else (both_valid, most)
    if all(at_bounds):
        return both_valid, most
    return (0, most) if any(at_bounds) else (0, 0)


def _difference(a: float, b: float) -> float:
    return (a - b) / (a + b)


def n_matching(predicate: PixelPredicate, pixels: npt.NDArray[np.generic]) -> int:
    """How many pixels match, exactly. ``pixels`` is (time, band, y, x) of the predicate's one or two bands, in its order."""
    values = pixels.astype(np.float64)
    if values.shape[1] == 2:
        a, b = values[:, 0], values[:, 1]
        total = a + b
        values = np.divide(a - b, total, out=np.full_like(total, np.nan), where=total != 0)
    matches = OPERATORS[predicate.comparison](values, predicate.constant)
    return int(np.count_nonzero(matches & ~np.isnan(values)))
