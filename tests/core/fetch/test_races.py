"""Races are decided once, by the first answer or the last error, whatever comes in which order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tensorbank import ByteRange
from tensorbank.fetch.races import Race, Wanted
from tensorbank.fetch.read_group import ReadGroup


def race() -> Race:
    """A race that nothing was asked for yet."""
    return Race(Wanted(ByteRange("k", 0, 9), lambda _: None), ReadGroup(1), 0)


def test_the_first_answer_wins_and_the_others_lose():
    this = race()
    assert [this.begin(1.0), this.begin(2.0), this.begin(3.0)] == [1, 2, 3]
    assert (this.begun_s, this.asked_s) == (1.0, 3.0)
    assert not this.finish(has_bytes=False)
    assert this.finish(has_bytes=True)
    assert (this.is_decided, this.n_losers) == (True, 1)
    assert not this.finish(has_bytes=True)
    assert (this.n_losers, this.n_running) == (1, 0)


def test_an_error_counts_once_nobody_else_may_answer():
    this = race()
    this.begin(0.0)
    this.begin(0.0)
    assert not this.finish(has_bytes=False)
    assert this.finish(has_bytes=False)
    assert this.n_losers == 0


def test_what_is_decided_from_outside_stays_so():
    this = race()
    this.begin(0.0)
    assert this.decide()
    assert (this.n_losers, this.decide(), this.finish(has_bytes=True)) == (1, False, False)


@given(st.lists(st.sampled_from(["begin", "bytes", "error", "decide"]), max_size=30))
def test_a_race_is_decided_once(steps):
    this, n_running, n_decided = race(), 0, 0
    for step in steps:
        if step == "begin":
            number = this.begin(0.0)
            assert (number > 0) == (n_decided == 0), "nothing begins in a race that is over"
            n_running += number > 0
        elif step == "decide":
            n_decided += this.decide()
        elif n_running:
            n_running -= 1
            n_decided += this.finish(has_bytes=step == "bytes")
            if step == "bytes" or not n_running:
                assert this.is_decided
        assert n_decided == this.is_decided
        assert (this.n_running, this.n_losers >= 0) == (n_running, True)
