"""Latencies: what a person writes is what is drawn, and what was measured comes back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorbank import InvalidInputError
from tensorbank_simulation import Latency


def test_what_a_person_writes():
    assert Latency.parse("20").quantile_s(0.99) == pytest.approx(0.020)
    two = Latency.parse("p99=200, p50=20")
    assert [two.quantile_s(q) for q in (0, 0.5, 0.99, 1)] == pytest.approx([0.020, 0.020, 0.200, 0.200])
    assert two.quantile_s(0.745) == pytest.approx(0.110), "half way between the points"


@pytest.mark.parametrize(
    "text", ["", "fast", "p50=", "p50=20,p99=10", "-5", "p150=3", "nan", "p50=20,p50=30"]
)
def test_what_is_none_is_refused(text):
    with pytest.raises(InvalidInputError, match=r"rtt|latency"):
        Latency.parse(text)


@given(st.lists(st.floats(0.001, 2.0), min_size=1, max_size=300))
def test_what_was_measured_is_kept_by_its_quantiles(seconds):
    found = Latency.of(seconds)
    for share in (0, 0.1, 0.5, 0.9, 1):
        assert found.quantile_s(share) == pytest.approx(np.quantile(seconds, share))


def test_the_mean_is_that_of_draws():
    found = Latency.parse("p0=10,p50=20,p90=50,p100=400")
    draws = [found.quantile_s(q) for q in (np.arange(20_000) + 0.5) / 20_000]
    assert found.mean_s == pytest.approx(np.mean(draws), rel=1e-3)
