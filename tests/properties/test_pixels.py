"""Pixel predicates: what the index decides is what the pixels say."""

from __future__ import annotations

import operator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tensorbank import InvalidInputError
from tensorbank.pixels import BandKnots, PixelPredicate, decide, n_matching, parse_comparison
from tensorbank.stats import QUANTILES

OPERATORS = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "=": operator.eq,
    "!=": operator.ne,
}


def knots_of(band: np.ndarray) -> BandKnots:
    """As an index row has them, by numpy."""
    wide = band.astype(np.float64)
    valid = np.sort(wide[~np.isnan(wide)])
    if not valid.size:
        return BandKnots.of([band.size, 0, *[None] * (len(QUANTILES) + 2)], exact_quantiles=True)
    middle = [float(np.quantile(valid, p, method="lower")) for _, p in QUANTILES]
    return BandKnots.of([band.size, valid.size, valid[0], *middle, valid[-1]], exact_quantiles=True)


def truth(predicate: PixelPredicate, values: np.ndarray) -> float:
    with np.errstate(invalid="ignore"):
        n = int((OPERATORS[predicate.comparison](values, predicate.constant) & ~np.isnan(values)).sum())
    if predicate.quantifier == "any":
        return float(n > 0)
    if predicate.quantifier == "all":
        return float(n == values.size)
    share = n / values.size
    if predicate.share_comparison is None:
        return share
    return float(OPERATORS[predicate.share_comparison](share, predicate.share))


pixels = st.one_of(
    hnp.arrays(np.int16, (1, 1, 5, 6), elements=st.integers(-3, 6)),
    hnp.arrays(np.int16, (2, 1, 5, 6), elements=st.integers(-1000, 12000)),
    hnp.arrays(
        np.float16, (1, 1, 4, 5), elements=st.one_of(st.floats(-2, 2, width=16), st.just(float("nan")))
    ),
)
quantifiers = st.sampled_from(["any", "all", "share", "share_compared"])


@st.composite
def predicates(draw: st.DrawFn, bands=()) -> PixelPredicate:
    quantifier = draw(quantifiers)
    constant = draw(st.one_of(st.integers(-4, 7).map(float), st.floats(-2, 2, width=16)))
    comparison = draw(st.sampled_from(sorted(OPERATORS)))
    if quantifier == "share_compared":
        op, share = (
            draw(st.sampled_from(sorted(OPERATORS))),
            draw(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0])),
        )
        return PixelPredicate("share", bands, comparison, constant, op, share)
    return PixelPredicate(quantifier, bands, comparison, constant)


@given(pixels, predicates())
def test_what_the_index_decides_is_what_the_pixels_say(values, predicate):
    expected = truth(predicate, values.astype(np.float64))
    decided = decide(predicate, (knots_of(values[:, 0]),))
    assert decided is None or decided == expected
    assert predicate.answer(n_matching(predicate, values), values[:, 0].size) == expected


@given(pixels, predicates())
def test_inequalities_of_one_band_are_always_decided_for_any_and_all(values, predicate):
    if predicate.quantifier != "share" and predicate.comparison not in ("=", "!="):
        assert decide(predicate, (knots_of(values[:, 0]),)) is not None


pairs = hnp.arrays(np.int16, (1, 2, 4, 5), elements=st.integers(-5, 60)) | hnp.arrays(
    np.int16, (1, 2, 4, 5), elements=st.integers(0, 4000)
)


@given(pairs, predicates(bands=("a", "b")))
def test_normalised_differences_are_bounded_from_outside(values, predicate):
    a, b = values[0, 0].astype(np.float64), values[0, 1].astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        difference = np.where(a + b == 0, np.nan, (a - b) / (a + b))
    expected = truth(predicate, difference)
    decided = decide(predicate, (knots_of(values[:, 0]), knots_of(values[:, 1])))
    assert decided is None or decided == expected
    assert predicate.answer(n_matching(predicate, values), values[:, 0].size) == expected


@pytest.mark.parametrize("text", ["", "0.8", "> x", "=> 3", "> 3 or true", "> 1; drop"])
def test_what_is_no_comparison_is_refused(text):
    with pytest.raises(InvalidInputError, match="comparison"):
        parse_comparison(text)


def test_comparisons_are_read():
    assert parse_comparison("> 0.8") == (">", 0.8)
    assert parse_comparison(" <=-1e3 ") == ("<=", -1000.0)
    assert parse_comparison("<> 4") == ("!=", 4.0)
