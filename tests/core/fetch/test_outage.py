"""An outage: it begins, is logged now and then, and ends all pauses."""

from __future__ import annotations

import logging
import threading
from types import SimpleNamespace

import pytest

from tensorbank.fetch import outage
from tensorbank.fetch.outage import Outage

ERROR = OSError("connection refused")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds that the module sees, in a list of one."""
    now_s = [100.0]
    monkeypatch.setattr(outage, "time", SimpleNamespace(perf_counter=lambda: now_s[0]))
    return now_s


def test_an_outage_lasts_from_its_first_failure_to_an_answer(clock):
    store = Outage("s3://bank", 600)
    assert store.lasts_s == 0
    store.note(ERROR, 1)
    clock[0] += 3
    store.note(ERROR, 2)
    assert store.lasts_s == 3
    store.end()
    assert store.lasts_s == 0


def test_it_is_logged_after_five_seconds_and_then_every_thirty(clock, caplog):
    store = Outage("s3://bank", 600)
    with caplog.at_level(logging.WARNING):
        for seconds in (0, 4, 2, 28, 3):  # at 0, 4, 6, 34 and 37 s
            clock[0] += seconds
            store.note(ERROR, 7)
        assert [r.getMessage().partition(" that wait")[0] for r in caplog.records] == [
            "no read of s3://bank has been answered for 6 s; each of the 7 reads",
            "no read of s3://bank has been answered for 37 s; each of the 7 reads",
        ]
        assert "connection refused" in caplog.text
        caplog.clear()
        store.end()
        assert caplog.messages == ["s3://bank answers again, after 37 s"]


def test_a_short_outage_is_not_logged(clock, caplog):
    store = Outage("s3://bank", 600)
    with caplog.at_level(logging.WARNING):
        store.note(ERROR, 1)
        clock[0] += 1
        store.end()
        store.end()
    assert caplog.messages == []


def test_who_pauses_is_woken_by_an_answer():
    store, closing, woken = Outage("s3://bank", 600), threading.Event(), []
    waiting = threading.Thread(target=lambda: woken.append(store.pause(3600, closing, may_wake=True)))
    waiting.start()
    for _ in range(600):  # the first answers may come before the pause begins
        store.note(ERROR, 1)
        store.end()
        waiting.join(0.05)
        if woken:
            break
    closing.set()
    waiting.join(30)
    assert woken == [False], "closing ends a pause with True"


def test_closing_ends_a_pause():
    closing = threading.Event()
    closing.set()
    assert Outage("s3://bank", 600).pause(60, closing, may_wake=False)
