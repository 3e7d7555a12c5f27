"""Fetching: tries, pauses and counts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

import pytest

from tensorbank import ByteRange, InvalidInputError, NotFoundError, StorageError, requests
from tensorbank.fetch import Fetcher, FetchOptions
from tensorbank.requests import Wanted
from tensorbank.store import Store


@dataclass
class ScriptedStore(Store):
    """Raises what it is told to, one error a call, then answers."""

    errors: Iterator[Exception] = field(default_factory=lambda: iter(()))
    calls: int = 0
    called: threading.Event = field(default_factory=threading.Event)
    url: str = "s3://nowhere"

    def get_range(self, key: str, start: int, end: int) -> memoryview:
        self.calls += 1
        self.called.set()
        for error in self.errors:
            raise error
        return memoryview(bytes(end - start))


WANTED = ByteRange("k", 10, 30)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(requests, "FIRST_PAUSE_WHEN_BUSY_S", 0.001)


@pytest.fixture
def fetching() -> Iterator[Callable[[Store], Fetcher]]:
    """Makes fetchers, and ends their threads."""
    with ExitStack() as made:
        yield lambda store: made.enter_context(closing(Fetcher(store)))


def unreachable(n: int) -> Iterator[Exception]:
    return iter([StorageError("slow down", kind="unreachable")] * n)


def test_a_store_that_recovers_is_tried_again_and_counted(fetching):
    fetcher = fetching(ScriptedStore(unreachable(3)))
    assert len(fetcher.fetch(WANTED, n_asked_bytes=15)) == 20
    stats = fetcher.stats
    assert (stats.requests, stats.bytes_read, stats.bytes_asked, stats.retries, stats.refetches) == (
        1,
        20,
        15,
        3,
        0,
    )
    fetcher.fetch(WANTED, again=True)
    assert fetcher.stats.refetches == 1


@pytest.mark.parametrize(
    ("error", "calls"),
    [
        (StorageError("gone for now", kind="unreachable"), 10),
        (StorageError("busy", kind="throttled"), 8),
        (StorageError("short", kind="short-read"), 2),
        (StorageError("no", kind="denied"), 1),
        (NotFoundError("gone"), 1),
    ],
    ids=["unreachable", "throttled", "short", "denied", "gone"],
)
def test_what_does_not_pass_is_raised_after_as_many_tries_as_make_sense(fetching, error, calls):
    store = ScriptedStore(iter([error] * 20))
    with pytest.raises(type(error)):
        fetching(store).fetch(WANTED)
    assert store.calls == calls


def test_the_end_of_a_fetcher_is_not_held_up_by_pauses(fetching, monkeypatch):
    monkeypatch.setattr(requests, "FIRST_PAUSE_S", 60.0)
    store = ScriptedStore(unreachable(9))
    fetcher = fetching(store)
    pending = fetcher.submit(1, lambda _: Wanted(WANTED, lambda _: None))
    store.called.wait(10)
    started = time.monotonic()
    fetcher.close()
    (error,) = pending.wait(for_all=True).values()
    assert error.kind == "closed"
    assert time.monotonic() - started < 5
    assert store.calls == 1


@pytest.mark.parametrize(
    "limits",
    [{"n_threads": 0}, {"max_amplification": 0.9}, {"max_gap_bytes": -1}, {"max_read_bytes": 0}],
    ids=lambda v: next(iter(v)),
)
def test_limits_that_make_no_sense_are_refused(limits):
    with pytest.raises(InvalidInputError, match=next(iter(limits))):
        FetchOptions(**limits)
