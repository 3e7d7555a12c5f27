"""The usual time of a read: quantiles of what is remembered, which a read that hung does not spoil."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorbank.fetch.lateness import FEW, KEPT, MAX_CREDIT, TAIL, Latencies, Lateness, by_rate_s

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
    told = judge.verdict(n_bytes, waited_s, 100.0, is_hedged=False, n_running=16)
    assert told == expected


# ---------------------------------------------------------------- second requests


def taught(n_answers: int, *, max_share: float = 0.02) -> Lateness:
    """A judge that knows reads of 20 ms."""
    judge = Lateness(max_share, stall_s=0.1)
    for i in range(n_answers):
        judge.learn(1000, 0.02, 0.01 * i)
    return judge


def n_asked_again(judge: Lateness, n: int, waited_s: float, now_s: float = 1000.0) -> int:
    """The number of reads, of so many that have waited alike, that are to be asked for again."""
    told = [judge.verdict(1000, waited_s, now_s, is_hedged=False, n_running=1) for _ in range(n)]
    return sum(verdict is not None for verdict in told)


LATE_S, STALLED_S = 0.07, 0.5
"""Seconds after which a read of 20 ms is late, and late beyond doubt."""


def test_without_evidence_late_reads_get_the_share_and_stalled_ones_a_trial():
    judge = taught(200)
    assert n_asked_again(judge, 100, LATE_S) == 4, "2 % of 201"
    assert n_asked_again(judge, 100, STALLED_S) == 1
    assert n_asked_again(judge, 100, STALLED_S, now_s=1000.4) == 0, "the trial has waited for 0.5 s itself"
    assert n_asked_again(judge, 100, STALLED_S, now_s=1000.6) == 1


@pytest.mark.parametrize("late_share", [0.05, 0.2, 0.4])
def test_single_late_answers_are_nearly_all_asked_for_again_as_soon_as_they_are_late(late_share):
    judge, random, now_s = taught(200), Random(1), 1000.0
    n_late = n_again = n_won = n_refused = 0
    for _ in range(2000):
        now_s += 0.01
        late_s = 0.0
        while random.random() < late_share:  # each request for it that is late needs one more
            n_late += 1
            if judge.verdict(1000, LATE_S, now_s, is_hedged=late_s > 0, n_running=1) is None:
                n_refused += 1
            n_again += 1
            late_s += LATE_S
        n_won += late_s > 0
        judge.learn(1000, 0.02, now_s, late_s=late_s, is_first=not late_s)
    assert n_refused <= 0.1 * n_late
    assert n_again <= 3 * n_won + 0.02 * 2201


def test_second_requests_that_come_no_sooner_are_few():
    judge = taught(200)
    for i in range(100):
        judge.learn(1000, 0.02, 1000.0 + i, late_s=LATE_S, is_first=False)
    n_again = 0
    for i in range(1000):
        now_s = 2000.0 + i
        is_again = judge.verdict(1000, LATE_S, now_s, is_hedged=False, n_running=1) is not None
        n_again += is_again
        judge.learn(1000, 0.09, now_s + 0.02, late_s=LATE_S * is_again)
    assert n_again <= MAX_CREDIT + 0.02 * 1300 + 1


def test_a_second_answer_as_slow_as_the_first_speaks_for_nothing():
    judge = taught(10, max_share=0.0001)
    for i in range(100):
        judge.learn(1000, 15.0, 1000.0 + i, late_s=1.0, is_first=False)
    assert n_asked_again(judge, 100, 14.9) == 0


def test_credit_ends_with_the_evidence():
    judge = taught(200, max_share=0.0001)
    for i in range(100):
        judge.learn(1000, 0.02, 1000.0 + i, late_s=LATE_S, is_first=False)
    for i in range(1000):
        judge.learn(1000, 0.02, 2000.0 + i)
    assert n_asked_again(judge, 100, LATE_S) == 0


def test_a_share_of_0_is_to_wait_whatever_speaks_for_asking_again():
    judge = taught(200, max_share=0.0)
    for i in range(100):
        judge.learn(1000, 0.02, 1000.0 + i, late_s=LATE_S, is_first=False)
    assert n_asked_again(judge, 100, LATE_S) == 0
    assert n_asked_again(judge, 10, STALLED_S) == 10, "late beyond doubt"


@pytest.mark.parametrize("n_answers", [0, 200])
def test_a_store_that_falls_silent_is_asked_more_and_more_rarely(n_answers):
    """128 reads are under way, and none is answered for two minutes; a look at them takes place 40 times a second."""
    judge, asked_s, n_again = taught(n_answers), [1000.0] * 128, 0
    for look in range(120 * 40):
        now_s = 1000.0 + look / 40
        for i, at_s in enumerate(asked_s):
            if judge.verdict(1000, now_s - at_s, now_s, is_hedged=at_s > 1000.0, n_running=128) is not None:
                asked_s[i] = now_s
                n_again += 1
    assert 1 <= n_again <= 0.02 * (n_answers + 1) + 13
