"""Pixel predicates: what the index decides is what the pixels say."""

from __future__ import annotations

import math
import operator

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tensorbank import Band, InvalidInputError, Modality
from tensorbank.statements.pixel_bounds import bounds, decision, necessary
from tensorbank.statements.pixel_predicates import PixelPredicate, n_matching, parse_comparison
from tensorbank.statistics.band_stats import QUANTILES

OPERATORS = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "=": operator.eq,
    "!=": operator.ne,
}
CLASSES = ((0, "water"), (1, "trees"), (4, "rock"))
con = duckdb.connect()


def literal(value: float | None, kind: str) -> str:
    return f"NULL::{kind}" if value is None else f"CAST('{float(value)!r}' AS {kind})"


def sample_row(bands: dict[str, np.ndarray]) -> str:
    """Return SQL of a handle as a row of samples has it, statistics by numpy."""
    fields = []
    for name, band in bands.items():
        wide = band.astype(np.float64)
        valid = np.sort(wide[np.isfinite(wide)])
        some = valid.size > 0
        numbers = {"min": valid[0] if some else None, "max": valid[-1] if some else None}
        quantiles = {q: float(np.quantile(valid, p, method="lower")) if some else None for q, p in QUANTILES}
        parts = [f"count := {band.size}", f"valid := {valid.size}"]
        parts += [f"{n} := {literal(v, 'DOUBLE')}" for n, v in numbers.items()]
        parts += [f"{n} := {literal(v, 'FLOAT')}" for n, v in quantiles.items()]
        fields.append(f"{name} := struct_pack({', '.join(parts)})")
    return f"struct_pack({', '.join(fields)})"


def tile_row(bands: dict[str, np.ndarray]) -> str:
    """Return SQL of a handle as a row of tiles has it: extremes in float32, never inside of the true ones."""
    fields = []
    for name, band in bands.items():
        wide = band.astype(np.float64)
        valid = wide[np.isfinite(wide)]
        low = high = None
        if valid.size:
            low, high = np.float32(valid.min()), np.float32(valid.max())
            low = np.nextafter(low, np.float32(-np.inf)) if low > valid.min() else low
            high = np.nextafter(high, np.float32(np.inf)) if high < valid.max() else high
        parts = f"valid := {valid.size}, min := {literal(low, 'FLOAT')}, max := {literal(high, 'FLOAT')}"
        fields.append(f"{name} := struct_pack({parts})")
    height, width = next(iter(bands.values())).shape[-2:]
    ref = f"struct_pack(y0 := 10::SMALLINT, y1 := {10 + height}::SMALLINT, x0 := 0::SMALLINT, x1 := {width}::SMALLINT)"
    return f"struct_pack(ref := {ref}, {', '.join(fields)})"


def truth(predicate: PixelPredicate, values: np.ndarray) -> float:
    with np.errstate(invalid="ignore"):
        n = int((OPERATORS[predicate.comparison](values, predicate.constant) & np.isfinite(values)).sum())
    if predicate.quantifier == "any":
        return float(n > 0)
    if predicate.quantifier == "all":
        return float(n == values.size)
    share = n / values.size
    if predicate.share_comparison is None:
        return share
    return float(OPERATORS[predicate.share_comparison](share, predicate.share))


NO_VALUES = st.sampled_from([math.nan, math.inf, -math.inf])
integers = hnp.arrays(np.int16, (1, 1, 5, 6), elements=st.integers(-3, 6))
pixels = st.one_of(
    integers,
    hnp.arrays(np.int16, (1, 1, 5, 6), elements=st.integers(-1000, 12000)),
    hnp.arrays(np.float16, (1, 1, 4, 5), elements=st.one_of(st.floats(-2, 2, width=16), NO_VALUES)),
    hnp.arrays(np.float64, (1, 1, 3, 3), elements=st.one_of(st.floats(-2, 2), st.just(0.1), NO_VALUES)),
)
quantifiers = st.sampled_from(["any", "all", "share", "share_compared"])


@st.composite
def predicates(draw: st.DrawFn, bands=()) -> PixelPredicate:
    quantifier = draw(quantifiers)
    constant = draw(
        st.one_of(st.integers(-4, 7).map(float), st.floats(-2, 2, width=16), st.sampled_from([0.1, 0.3]))
    )
    comparison = draw(st.sampled_from(sorted(OPERATORS)))
    if quantifier == "share_compared":
        op, share = (
            draw(st.sampled_from(sorted(OPERATORS))),
            draw(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0])),
        )
        return PixelPredicate("share", bands, comparison, constant, op, share)
    return PixelPredicate(quantifier, bands, comparison, constant)


def modality(dtype: str, *names: str, classes=()) -> Modality:
    bands = tuple(Band(n) for n in names)
    return Modality("m", dtype, bands, 1, 5, 6, classes)


def check(predicate, row, paths, kind, level, expected):
    """The decision is right or open, and nothing that holds is skipped by the plain comparison."""
    found = bounds(predicate, "h", paths, kind, level)
    skip = necessary(predicate, "h", paths, kind, level) or "true"
    sql = f"SELECT {decision(predicate, found, 'NULL')}, {skip}, {found.low}, {found.high} FROM (SELECT {row} AS h)"
    decided, kept, low, high = con.execute(sql).fetchone()
    assert decided is None or float(decided) == expected
    assert kept or (predicate.quantifier == "share" and predicate.share_comparison is None) or not expected
    assert low <= high


@settings(max_examples=300, deadline=None)
@given(pixels, predicates(("a",)), st.sampled_from(["samples", "tiles"]))
def test_what_the_index_decides_is_what_the_pixels_say(values, predicate, level):
    expected = truth(predicate, values.astype(np.float64))
    row = {"samples": sample_row, "tiles": tile_row}[level]({"a": values[:, 0]})
    check(predicate, row, ["h.a"], modality(str(values.dtype), "a", "b"), level, expected)
    assert predicate.answer(n_matching(predicate, values), values[:, 0].size) == expected


@given(integers, predicates(("a",)))
def test_inequalities_of_one_band_are_always_decided_for_any_and_all(values, predicate):
    if predicate.quantifier == "share" or predicate.comparison in ("=", "!="):
        return
    found = bounds(predicate, "h", ["h.a"], modality("int16", "a", "b"), "samples")
    sql = f"SELECT {decision(predicate, found, 'NULL')} FROM (SELECT {sample_row({'a': values[:, 0]})} AS h)"
    assert con.execute(sql).fetchone() != (None,)


pairs = st.one_of(
    hnp.arrays(np.int16, (1, 2, 4, 4), elements=st.integers(-2, 5)),
    hnp.arrays(np.int16, (1, 2, 4, 4), elements=st.integers(1, 12000)),
    hnp.arrays(
        np.float16, (1, 2, 3, 3), elements=st.one_of(st.floats(0, 2, width=16), st.just(float("nan")))
    ),
)


@settings(max_examples=200, deadline=None)
@given(pairs, predicates(("a", "b")), st.sampled_from(["samples", "tiles"]))
def test_normalised_differences_are_bounded(values, predicate, level):
    a, b = values[:, 0].astype(np.float64), values[:, 1].astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        difference = np.where(a + b != 0, (a - b) / (a + b), np.nan)
    expected = truth(predicate, difference)
    row = {"samples": sample_row, "tiles": tile_row}[level]({"a": values[:, 0], "b": values[:, 1]})
    check(predicate, row, ["h.a", "h.b"], modality(str(values.dtype), "a", "b"), level, expected)
    assert predicate.answer(n_matching(predicate, values), a.size) == expected


@settings(max_examples=200, deadline=None)
@given(
    hnp.arrays(np.uint8, (1, 1, 4, 5), elements=st.integers(0, 5)),
    predicates(("m",)),
    st.sampled_from(["samples", "tiles"]),
)
def test_class_shares_bound_what_codes_say(values, predicate, level):
    expected = truth(predicate, values.astype(np.float64))
    count, kind = values.size, "DOUBLE" if level == "samples" else "FLOAT"
    n = {name: int((values == code).sum()) for code, name in CLASSES}
    shares = ", ".join(f"{name} := {literal(k / count, kind)}" for name, k in n.items())
    head = {
        "samples": f"count := {count}",
        "tiles": "ref := struct_pack(y0 := 0::SMALLINT, y1 := 4::SMALLINT, x0 := 3::SMALLINT, x1 := 8::SMALLINT)",
    }
    row = f"struct_pack({head[level]}, valid := {sum(n.values())}, share := struct_pack({shares}))"
    check(predicate, row, ["h"], modality("uint8", "m", classes=CLASSES), level, expected)


def test_statistics_that_are_missing_decide_nothing():
    row = "struct_pack(count := NULL::BIGINT, valid := NULL::BIGINT, min := NULL::DOUBLE, max := NULL::DOUBLE"
    row += "".join(f", {q} := NULL::FLOAT" for q, _ in QUANTILES) + ")"
    for quantifier in ("any", "all", "share"):
        predicate = PixelPredicate(quantifier, ("m",), ">", 0.0)
        found = bounds(predicate, "h", ["h"], modality("int16", "m"), "samples")
        sql = f"SELECT {decision(predicate, found, 'NULL')} FROM (SELECT {row} AS h)"
        assert con.execute(sql).fetchone() == (None,)


@pytest.mark.parametrize("text", ["", "0.8", "> x", "=> 3", "> 3 or true", "> 1; drop"])
def test_what_is_no_comparison_is_refused(text):
    with pytest.raises(InvalidInputError, match="comparison"):
        parse_comparison(text)


def test_comparisons_are_read():
    assert parse_comparison("> 0.8") == (">", 0.8)
    assert parse_comparison(" <=-1e3 ") == ("<=", -1000.0)
    assert parse_comparison("<> 4") == ("!=", 4.0)
