"""The usual time of a read: quantiles of what is remembered, which a read that hung does not spoil."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorbank.fetch.lateness import FEW, KEPT, TAIL, Latencies, Lateness, by_rate_s

SECONDS = st.lists(st.floats(0.001, 0.004), min_size=FEW, max_size=KEPT)


def latencies(seconds, n_bytes=1000):
    made = Latencies()
    for s in seconds:
        made.add(n_bytes, s)
    return made


@given(SECONDS, st.sampled_from([0.5, 0.9, 0.95]))
def test_a_quantile_is_numpys(seconds, q):
    found = latencies(seconds).usual_s(1000, q)
    below = np.mean(np.array(seconds) < found)
    assert found in seconds
    assert below <= q <= np.mean(np.array(seconds) <= found) + 1 / len(seconds)


@given(SECONDS, st.integers(1, 3))
def test_what_hung_is_not_usual(seconds, n_hung):
    found = latencies([*seconds, *[15.0] * n_hung]).usual_s(1000, 0.95)
    assert found <= TAIL * max(seconds)


def test_few_reads_say_nothing_and_sizes_are_apart():
    assert latencies([0.1] * (FEW - 1)).usual_s(1000, 0.95) is None
    made = latencies([0.001] * FEW)
    for _ in range(FEW):
        made.add(1_000_000, 0.5)
    assert made.usual_s(1000, 0.95) == pytest.approx(0.001)
    assert made.usual_s(1_000_000, 0.95) == pytest.approx(0.5)
    assert made.usual_s(30, 0.5) is not None, "of any size, while there are few of its own"


@given(st.integers(2, 32), st.integers(1, 128), st.floats(0.001, 1.0), st.floats(0.0, 30.0))
def test_a_rate_says_how_long_a_read_takes_and_silence_does_not_make_lateness_usual(
    n_answers, n_running, apart_s, silent_s
):
    answers_at_s = [7.0 + i * apart_s for i in range(n_answers)]
    steady_s = by_rate_s(answers_at_s, n_running, answers_at_s[-1])
    assert steady_s == pytest.approx(n_running * apart_s)
    silent = by_rate_s(answers_at_s, n_running, answers_at_s[-1] + silent_s)
    assert steady_s <= silent * (1 + 1e-9)
    assert silent <= 2 * steady_s * (1 + 1e-9)


@pytest.mark.parametrize(
    ("n_bytes", "waited_s", "expected"),
    [(100_000, 0.9, None), (100_000, 1.2, "stall"), (8_000_000, 6.4, None), (8_000_000, 9.1, "stall")],
)
def test_a_large_read_over_a_slow_line_is_not_late_for_being_large(n_bytes, waited_s, expected):
    """16 reads of 8 MB at once take 6.4 s at 20 MB/s, and before the first of them has come nothing else is known."""
    judge = Lateness(max_hedge_share=1.0, stall_s=0.1)
    told = judge.verdict(n_bytes, waited_s, 100.0, is_hedged=False, n_running=16, n_hedges=0, n_answers=0)
    assert told == expected
