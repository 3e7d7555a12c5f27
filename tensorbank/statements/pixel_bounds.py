"""Write as SQL what statistics prove of a pixel predicate:
bounds of the number of matching pixels, and the decision. Pure.

DuckDB evaluates the bounds for millions of rows at once, next to the data; only the rows that they leave open ask for pixels.
Expressions are three-valued: NULL where a statistic is missing, which decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

import numpy as np

from tensorbank.layout import Level
from tensorbank.schema import Modality
from tensorbank.sql import quoted
from tensorbank.statements.pixel_predicates import OPERATORS, PixelPredicate
from tensorbank.statistics import QUANTILES

__all__ = ["BandFields", "Bounds", "bounds", "decision", "necessary"]

ROUNDING = 1e-15
"""A normalised difference lies in [-1, 1]; so much outward covers the rounding of a pixel's and of the bound's."""
EXACT_ITEMSIZE_BYTES = 2
"""The item size in bytes up to which dtypes lose nothing in float32,
which quantiles and the extremes of tiles are stored in."""
SHARE_SLACK = 1e-6
"""The relative slack of shares, since shares of tiles are stored in float32."""


@dataclass(frozen=True, slots=True)
class BandFields:
    """The expressions for what a row of the index knows of one band.

    Parameters
    ----------
    count, valid
        SQL of the number of pixels and of the number that are not NaN.
    knots
        SQL of (value, at least, at most), by ascending value: at least so many valid pixels are not above the value, at most so
        many are below it.
    """

    count: str
    valid: str
    knots: tuple[tuple[str, str, str], ...]

    @classmethod
    def of(cls, path: str, handle: str, modality: Modality, level: Level) -> BandFields:
        """Return the fields of a band at ``path`` of a handle, in a row of samples or of tiles."""
        exact = np.dtype(modality.dtype).itemsize <= EXACT_ITEMSIZE_BYTES
        valid = f"{path}.valid"
        low, high = f"{path}.min::DOUBLE", f"{path}.max::DOUBLE"
        if level == "tiles" and not exact:
            knots: tuple[tuple[str, str, str], ...] = ((low, "0", "0"), (high, valid, valid))
        else:
            knots = ((low, "1", "0"), (high, valid, f"{valid} - 1"))
        if level == "samples" and exact:
            ranks = [(f"{path}.{n}::DOUBLE", f"floor({_double(p)} * ({valid} - 1))") for n, p in QUANTILES]
            knots = (knots[0], *((value, f"{rank} + 1", rank) for value, rank in ranks), knots[-1])
        count = f"{path}.count" if level == "samples" else _count(handle, level)
        return cls(count, valid, knots)


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds in SQL: how many pixels match at least and at most, and how many there are."""

    low: str
    high: str
    count: str


def bounds(
    predicate: PixelPredicate, handle: str, paths: Sequence[str], modality: Modality, level: Level
) -> Bounds:
    """Return the bounds for one row of the index.

    Parameters
    ----------
    handle
        SQL of the handle.
    paths
        SQL of the statistics of the predicate's one or two bands.
    """
    if modality.categorical:
        return _of_classes(predicate, handle, modality, level)
    bands = [BandFields.of(path, handle, modality, level) for path in paths]
    found = _of_difference(predicate, *bands) if len(bands) == 2 else _of_band(predicate, bands[0])
    if np.dtype(modality.dtype).kind != "f":
        return found
    # an index that counted infinities among its values says nothing certain of those that are
    spoilt = " OR ".join(f"isinf({path}.{side})" for path in paths for side in ("min", "max"))
    low, high = (f"(CASE WHEN ({spoilt}) IS NOT TRUE THEN {n} END)" for n in (found.low, found.high))
    return Bounds(low, high, found.count)


def decision(predicate: PixelPredicate, found: Bounds, otherwise: str) -> str:
    """Return SQL of the predicate's answer, a boolean, or the share itself where it is compared with nothing.

    ``otherwise`` is evaluated where the bounds decide nothing.
    """
    low, high, count = found.low, found.high, found.count
    if predicate.quantifier == "any":
        yes, no = f"{low} > 0", f"{high} = 0"
    elif predicate.quantifier == "all":
        yes, no = f"{low} = {count}", f"{high} < {count}"
    elif predicate.share_comparison is None:
        return f"CASE WHEN {low} = {high} THEN {_share(low, count)} ELSE {otherwise} END"
    else:
        x, op = _double(predicate.share), predicate.share_comparison
        least, most = _share(low, count), _share(high, count)
        if op in (">", ">="):
            yes, no = f"{least} {op} {x}", f"NOT ({most} {op} {x})"
        elif op in ("<", "<="):
            yes, no = f"{most} {op} {x}", f"NOT ({least} {op} {x})"
        else:
            apart = f"({least} > {x} OR {most} < {x})"
            same = f"({low} = {high} AND {least} = {x})"
            yes, no = (same, apart) if op == "=" else (apart, same)
    return f"CASE WHEN {yes} THEN true WHEN {no} THEN false ELSE {otherwise} END"


def necessary(
    predicate: PixelPredicate, handle: str, paths: Sequence[str], modality: Modality, level: Level
) -> str | None:
    """Return SQL of a plain comparison that holds wherever the predicate is true, for skipping blocks by it;
    None if none does.
    """
    some = predicate.quantifier == "any" or (
        predicate.quantifier == "share" and _asks_for_some(predicate.share_comparison, predicate.share)
    )
    if len(paths) > 1 or not (some or predicate.quantifier == "all"):
        return None
    if level == "tiles" and np.dtype(modality.dtype) == np.float64:
        return None  # an extreme beyond the range of float32 is null there, which no comparison finds
    op, c = predicate.comparison, predicate.constant
    if modality.categorical:
        share = {"any": 0.0, "all": 1.0}.get(predicate.quantifier, predicate.share)
        names = [n for code, n in modality.classes if op == "=" and code == c]
        least = f">= {_plain(share * (1 - SHARE_SLACK))}" if share else "> 0"
        return f"{handle}.share.{quoted(names[0])} {least}" if names else None
    low, high = f"{paths[0]}.min", f"{paths[0]}.max"
    if predicate.quantifier == "all":
        low, high = high, low
    down, up = c, c
    if level == "tiles":
        down, up = _float32(c, -np.inf), _float32(c, np.inf)
        op = {"<": "<=", ">": ">="}.get(op, op)  # the rounded constant may be an extreme itself
    asked = {
        ">": f"{high} > {_plain(down)}",
        ">=": f"{high} >= {_plain(down)}",
        "<": f"{low} < {_plain(up)}",
        "<=": f"{low} <= {_plain(up)}",
        "=": f"{high} >= {_plain(down)} AND {low} <= {_plain(up)}",
    }
    return asked.get(op)


def _asks_for_some(comparison: str | None, share: float) -> bool:
    return (comparison == ">" and share >= 0) or (comparison in (">=", "=") and share > 0)


def _of_band(predicate: PixelPredicate, band: BandFields) -> Bounds:
    c, op = predicate.constant, predicate.comparison
    if op in ("=", "!="):
        below, upto = _up_to(band, c, "<"), _up_to(band, c, "<=")
        least, most = f"greatest({upto[0]} - {below[1]}, 0)", f"({upto[1]} - {below[0]})"
    else:
        if predicate.quantifier != "share":  # the extremes say all that can be said
            band = replace(band, knots=(band.knots[0], band.knots[-1]))
        least, most = _up_to(band, c, "<" if op in ("<", ">=") else "<=")
    if op in ("<", "<=", "="):
        return Bounds(least, most, band.count)
    return Bounds(f"({band.valid} - {most})", f"({band.valid} - {least})", band.count)


def _up_to(band: BandFields, c: float, op: str) -> tuple[str, str]:
    """Bound the number of valid pixels that are ``<`` or ``<=`` a constant."""
    # Every knot (value, least, most) bounds the count from both sides: if the value itself matches, so do at least `least`
    # pixels, and if it does not, at most `most` do. The highest knot that matches gives the best lower bound, the lowest that
    # does not the best upper one; CASE takes the first that applies, so they are tried in that order. With knots (0, 1, 0),
    # (5, 50, 49) and (9, 100, 99), "< 7" is true of 5 and not of 9: between 50 and 99 of 100 pixels are below 7.
    x = _double(c)
    inside = [(f"{value} {op} {x}", least) for value, least, _ in reversed(band.knots)]
    beyond = [(f"NOT ({value} {op} {x})", most) for value, _, most in band.knots]
    return _cases(inside, f"CASE WHEN {band.valid} >= 0 THEN 0 END"), _cases(beyond, band.valid)


def _cases(cases: Sequence[tuple[str, str]], otherwise: str) -> str:
    return f"(CASE {' '.join(f'WHEN {when} THEN {then}' for when, then in cases)} ELSE {otherwise} END)"


def _of_difference(predicate: PixelPredicate, a: BandFields, b: BandFields) -> Bounds:
    """Bound a difference by interval arithmetic, where both bands are positive:
    ``(a - b) / (a + b)`` rises with a and falls with b.
    """
    (a_min, *_), (b_min, *_), (a_max, *_), (b_max, *_) = a.knots[0], b.knots[0], a.knots[-1], b.knots[-1]
    # Where a or b may be negative, a denominator may be 0 in between: then nothing is claimed. At least `both` pixels have a
    # value in both bands, however those without one fall, and at most `most`.
    positive = f"({a_min} >= 0 AND {b_min} >= 0 AND {a_min} + {b_min} > 0)"
    low = f"(({a_min} - {b_max}) / ({a_min} + {b_max}) - {_double(ROUNDING)})"
    high = f"(({a_max} - {b_min}) / ({a_max} + {b_min}) + {_double(ROUNDING)})"
    most = f"least({a.valid}, {b.valid})"
    both = f"greatest({a.valid} + {b.valid} - {a.count}, 0)"
    op, c = predicate.comparison, _double(predicate.constant)
    if op in ("=", "!="):
        every = "false" if op == "=" else f"NOT ({low} <= {c} AND {high} >= {c})"
        none = f"NOT ({low} <= {c} AND {high} >= {c})" if op == "=" else "false"
    else:
        every = f"({low} {op} {c} AND {high} {op} {c})"
        none = f"NOT ({low} {op} {c} OR {high} {op} {c})"
    return Bounds(
        f"(CASE WHEN {positive} AND {every} THEN {both} ELSE 0 END)",
        f"(CASE WHEN {positive} AND {none} THEN 0 ELSE {most} END)",
        a.count,
    )


def _of_classes(predicate: PixelPredicate, handle: str, modality: Modality, level: Level) -> Bounds:
    """Bound a predicate from class shares;
    pixels whose code has no name match or not, as far as the shares tell.
    """
    matches, c = OPERATORS[predicate.comparison], predicate.constant
    count = _count(handle, level)
    shares = [f"{handle}.share.{quoted(n)}" for code, n in modality.classes if matches(code, c)]
    # shares are of all pixels, so `named` counts those of matching classes; `unnamed` ones hold a code without a name, which may
    # be any code but those named: "= c" of a named c never matches them, "!= c" of a named c always does
    named = f"round(({' + '.join(shares) or '0'}) * {count})"
    unnamed = f"({count} - {handle}.valid)"
    is_named = any(code == c for code, _ in modality.classes)
    low = f"({named} + {unnamed})" if predicate.comparison == "!=" and is_named else named
    high = named if predicate.comparison == "=" and is_named else f"({named} + {unnamed})"
    return Bounds(low, high, count)


def _count(handle: str, level: Level) -> str:
    if level == "samples":
        return f"{handle}.count"
    ref = f"{handle}.ref"
    return f"(({ref}.y1 - {ref}.y0)::BIGINT * ({ref}.x1 - {ref}.x0))"


def _share(n: str, count: str) -> str:
    return f"({n})::DOUBLE / {count}"


def _double(value: float) -> str:
    """Return SQL of a float64, bit by bit; a decimal literal might be rounded to the float32 of a column."""
    return f"CAST('{value!r}' AS DOUBLE)"


def _plain(value: float) -> str:
    """Return a literal without exponent: it takes the type of the column that it is compared with, so that DuckDB skips by it."""
    return format(Decimal(repr(float(value))), "f")


def _float32(value: float, towards: float) -> float:
    """Return the nearest float32 on one side of a value, or the value itself."""
    rounded = np.float32(value)
    inside = rounded > value if towards < 0 else rounded < value
    return float(np.nextafter(rounded, np.float32(towards)) if inside else rounded)
