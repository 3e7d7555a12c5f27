"""Second tries: who wins, and whose error is told."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tensorbank import StorageError
from tensorbank.storage import hedging
from tensorbank.storage.hedging import hedged

AT_ONCE_S = 0.0
NEVER_S = 60.0


class Late:
    """A call that lasts until it is let go."""

    def __init__(self, answer: object = "late") -> None:
        self.let_go = threading.Event()
        self.answer = answer

    def __call__(self) -> object:
        assert self.let_go.wait(30)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def fails() -> object:
    raise ConnectionError("second")


def in_turn(*calls: Callable[[], object]) -> Callable[[], object]:
    """A call whose first try is the first of some, and so on."""
    waiting = iter(calls)

    def call() -> object:
        return next(waiting)()

    return call


def test_a_call_in_time_is_the_only_one():
    calls = []
    assert hedged(lambda: calls.append(1) or "here", NEVER_S) == "here"
    assert len(calls) == 1


def test_an_error_in_time_is_not_repeated():
    calls = []

    def call():
        calls.append(1)
        raise ConnectionError("refused")

    with pytest.raises(ConnectionError, match="refused"):
        hedged(call, NEVER_S)
    assert len(calls) == 1


def test_a_late_call_is_overtaken():
    late = Late()
    assert hedged(in_turn(late, lambda: "second"), AT_ONCE_S) == "second"
    late.let_go.set()


@pytest.mark.parametrize("second_fails", [False, True])
def test_a_late_call_may_still_win(second_fails):
    late, second = Late(), Late()

    def again():
        late.let_go.set()
        return fails() if second_fails else second()

    assert hedged(in_turn(late, again), AT_ONCE_S) == "late"
    second.let_go.set()


def test_two_failures_tell_the_first():
    late = Late(ConnectionError("first"))
    late.let_go.set()
    with pytest.raises(ConnectionError, match="first"):
        hedged(in_turn(late, fails), AT_ONCE_S)


class Panic(BaseException):
    """The exception that a native library raises when it panics: no ``Exception``."""


def test_a_panic_is_an_error_and_no_wait():
    def call() -> object:
        raise Panic("unwrap on None")

    with pytest.raises(StorageError, match="Panic: unwrap on None") as caught:
        hedged(call, NEVER_S)
    assert caught.value.kind == "crashed"


def test_calls_that_never_end_are_not_waited_for(monkeypatch):
    monkeypatch.setattr(hedging, "LIMIT_S", 0.2)
    late = Late()
    with pytest.raises(StorageError, match="hangs") as caught:
        hedged(late, AT_ONCE_S)
    late.let_go.set()
    assert caught.value.kind == "stalled"
