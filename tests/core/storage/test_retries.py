"""Questions are asked again after the errors, the pauses and the time that a policy says: on a clock of its own."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorbank import NotFoundError, StorageError
from tensorbank.storage import retries
from tensorbank.storage.retries import RetryPolicy, retrying

POLICY = RetryPolicy(first_pause_s=1.0, max_pause_s=4.0, deadline_s=20.0)
KINDS = ("unreachable", "throttled")


class Clock:
    """A clock on which only pauses and questions take time."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.pauses_s: list[float] = []

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.pauses_s.append(seconds)
        self.now_s += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(retries, "time", SimpleNamespace(monotonic=found.monotonic, sleep=found.sleep))
    return found


def failing(errors: Iterator[Exception]) -> object:
    """A question that fails with one error after the other, and is then answered."""

    def ask() -> str:
        for error in errors:
            raise error
        return "answer"

    return ask


def busy(retry_after_s: float | None = None) -> StorageError:
    """The error of a store that is busy."""
    error = StorageError("busy", kind="throttled")
    error.retry_after_s = retry_after_s
    return error


def test_an_answer_ends_the_tries(clock):
    errors = [StorageError("away", kind="unreachable"), busy()]
    assert retrying(dict.fromkeys(KINDS, POLICY), failing(iter(errors))) == "answer"
    first_s, second_s = clock.pauses_s
    assert 0.5 <= first_s <= 1.5
    assert 1.0 <= second_s <= 3.0


@pytest.mark.parametrize("error", [NotFoundError("gone"), StorageError("no", kind="denied"), ValueError("x")])
def test_other_errors_are_raised_at_once(clock, error):
    with pytest.raises(type(error)) as caught:
        retrying(dict.fromkeys(KINDS, POLICY), failing(iter([error])))
    assert caught.value is error
    assert clock.pauses_s == []


def test_each_kind_has_its_policy(clock):
    policies = {"unreachable": RetryPolicy(1.0, 4.0, 20.0, n_tries=3)}
    with pytest.raises(StorageError, match="away"):
        retrying(policies, failing(StorageError("away", kind="unreachable") for _ in range(99)))
    assert len(clock.pauses_s) == 2
    with pytest.raises(StorageError, match="busy"):
        retrying(policies, failing(busy() for _ in range(99)))
    assert len(clock.pauses_s) == 2


@given(st.none() | st.floats(0, 100), st.floats(0, 10))
def test_the_last_try_begins_in_time(retry_after_s, each_s):
    with pytest.MonkeyPatch.context() as patch:
        clock, begun_s = Clock(), []
        patch.setattr(retries, "time", SimpleNamespace(monotonic=clock.monotonic, sleep=clock.sleep))

        def ask() -> None:
            begun_s.append(clock.now_s - 100.0)
            clock.now_s += each_s
            raise busy(retry_after_s)

        with pytest.raises(StorageError, match="busy"):
            retrying({"throttled": POLICY}, ask)
        assert begun_s[0] == 0
        assert max(begun_s) <= POLICY.deadline_s + 1e-6
        assert clock.now_s - 100.0 >= POLICY.deadline_s - 1e-6
        assert clock.now_s - 100.0 <= POLICY.deadline_s + each_s + 1e-6
