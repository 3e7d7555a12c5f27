"""Fetching: tries, pauses and counts."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

import pytest

from support.waiting import wait_until
from tensorbank import ByteRange, InvalidInputError, NotFoundError, StorageError, StorageOptions
from tensorbank.fetch import FetchOptions, outage, range_requests, tries
from tensorbank.fetch.fetcher import Fetcher
from tensorbank.fetch.lateness import judge
from tensorbank.fetch.races import Wanted
from tensorbank.fetch.threads import ReadingThreads
from tensorbank.storage.store import Store


@dataclass
class ScriptedStore(Store):
    """A store that raises what it is told to, one error a call, then answers."""

    errors: Iterator[Exception] = field(default_factory=lambda: iter(()))
    calls: int = 0
    called: threading.Event = field(default_factory=threading.Event)
    url: str = "s3://nowhere"
    options: StorageOptions = field(default_factory=StorageOptions)

    def get_range(self, key: str, start: int, end: int) -> memoryview:
        self.calls += 1
        self.called.set()
        for error in self.errors:
            raise error
        self.errors = iter(())
        return memoryview(bytes(end - start))


WANTED = ByteRange("k", 10, 30)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tries, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(tries, "FIRST_PAUSE_WHEN_BUSY_S", 0.001)


@pytest.fixture
def fetching() -> Iterator[Callable[[Store], Fetcher]]:
    """A maker of fetchers, which ends their threads."""
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
        (StorageError("short", kind="short-read"), 4),
        (StorageError("no", kind="denied"), 1),
        (NotFoundError("gone"), 1),
    ],
    ids=["short", "denied", "gone"],
)
def test_what_does_not_pass_is_raised_after_as_many_tries_as_make_sense(fetching, error, calls):
    store = ScriptedStore(iter([error] * 20))
    with pytest.raises(type(error)):
        fetching(store).fetch(WANTED)
    assert store.calls == calls


@pytest.mark.parametrize("kind", ["unreachable", "throttled"])
@pytest.mark.parametrize("cached", [False, True], ids=["direct", "cached"])
def test_a_store_that_stays_away_is_waited_for_as_long_as_was_stated_and_no_longer(
    kind, cached, tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr(outage, "REPORT_AFTER_S", 0.1)
    store = ScriptedStore(itertools.repeat(StorageError("gone for now", kind=kind)))
    options = FetchOptions(patience_s=1.0, n_threads=4, cache_dir=tmp_path if cached else None)
    with closing(Fetcher(store, options)) as fetcher:
        pending = fetcher.submit(8, lambda n: Wanted(ByteRange("k", 20 * n, 20 * n + 20), lambda _: None))
        started = time.monotonic()
        pending.wait(for_all=False)
        waited_s = time.monotonic() - started
        errors = pending.wait(for_all=True)
        over_s = time.monotonic() - started
    assert 0.9 < waited_s <= over_s < 2, "those that had not begun are not waited for in their turn"
    assert {e.kind for e in errors.values()} == {kind}
    assert len(errors) == 4
    assert "patience_s" in str(next(iter(errors.values())))
    assert "s3://nowhere" in caplog.text
    assert "gives up after 1 s" in caplog.text


def test_the_first_answer_ends_the_pauses_of_all(fetching, monkeypatch):
    monkeypatch.setattr(tries, "FIRST_PAUSE_S", 60.0)
    monkeypatch.setattr(tries, "MAX_PAUSE_WHEN_AWAY_S", 60.0)
    store = ScriptedStore(unreachable(3))
    fetcher = fetching(store)
    pending = fetcher.submit(3, lambda _: Wanted(WANTED, lambda _: None))
    until_s = time.monotonic() + 20
    while store.calls < 3 or fetcher.stats.away_s == 0:
        assert time.monotonic() < until_s
    assert fetcher.fetch(WANTED) == bytes(20)
    assert pending.wait(for_all=True) == {}
    assert time.monotonic() < until_s
    assert fetcher.stats.away_s == 0


def test_a_request_that_hangs_in_its_client_ends_with_its_patience(monkeypatch):
    monkeypatch.setattr(range_requests, "LAST_TRY_S", 0.2)
    let_go = threading.Event()

    class Hangs(ScriptedStore):
        def get_range(self, key: str, start: int, end: int) -> memoryview:
            let_go.wait(60)
            raise StorageError("late", kind="unreachable")

    with closing(Fetcher(Hangs(), FetchOptions(patience_s=0.3))) as fetcher:
        started = time.monotonic()
        with pytest.raises(StorageError, match="does not answer") as caught:
            fetcher.fetch(WANTED)
        let_go.set()
    assert caught.value.kind == "unreachable"
    assert time.monotonic() - started < 10


def test_reads_go_on_while_all_threads_wait_for_losers():
    """Two reads hang in their client and win by a second request; with the threads that they keep, all would be over."""
    let_go, n_hung = threading.Event(), itertools.count()

    class HangsAtFirst(ScriptedStore):
        def get_range(self, key: str, start: int, end: int) -> memoryview:
            if start < 2 and next(n_hung) < 2:
                assert let_go.wait(60)
            return memoryview(bytes(end - start))

    def wanted(number: int) -> Wanted:
        return Wanted(ByteRange("k", number, number + 9), lambda _: None)

    with closing(Fetcher(HangsAtFirst(), FetchOptions(n_threads=2, stall_s=0.05))) as fetcher:
        assert fetcher.submit(20, wanted).wait(for_all=True) == {}
        assert not let_go.is_set()
        assert (fetcher.stats.requests, fetcher.stats.stalls) == (20, 2)
        let_go.set()


def test_requests_that_begin_behind_the_answer_take_no_thread_away(monkeypatch):
    """The thread of a second request starts only when the first has been answered: it is the loser of nothing."""
    late: list[Callable[[], None]] = []
    answer, spawn = threading.Event(), ReadingThreads.spawn

    def held(self: ReadingThreads, job: Any) -> None:
        if job.func.__name__ == "_watch":
            spawn(self, job)
        else:
            late.append(job)
            answer.set()

    class Late(ScriptedStore):
        def get_range(self, key: str, start: int, end: int) -> memoryview:
            self.calls += 1
            assert answer.wait(60)
            return memoryview(bytes(end - start))

    def wanted(number: int) -> Wanted:
        return Wanted(ByteRange("k", number, number + 9), lambda _: None)

    monkeypatch.setattr(ReadingThreads, "spawn", held)
    store = Late()
    with closing(Fetcher(store, FetchOptions(n_threads=1, stall_s=0.05, patience_s=1))) as fetcher:
        assert fetcher.submit(1, wanted).wait(for_all=True) == {}
        assert len(late) == 1
        late[0]()
        assert (store.calls, fetcher.stats.stalls) == (1, 0), "nobody wants its answer"
        assert fetcher.submit(20, wanted).wait(for_all=True) == {}
        assert store.calls == 21


@pytest.mark.parametrize("n_threads", [8, 40])
def test_with_a_cache_as_many_requests_are_under_way_as_without_one(tmp_path, n_threads, monkeypatch):
    """The first ones are answered when all of them are under way, and none beyond."""
    monkeypatch.setattr(judge, "FIRST_STALL_S", 60.0)
    all_there, most = threading.Barrier(n_threads, timeout=30), []
    lock, n_running = threading.Lock(), 0

    class Waits(ScriptedStore):
        def get_range(self, key: str, start: int, end: int) -> memoryview:
            nonlocal n_running
            with lock:
                n_running += 1
                most.append(n_running)
            all_there.wait()
            with lock:
                n_running -= 1
            return memoryview(bytes(end - start))

    def wanted(number: int) -> Wanted:
        return Wanted(ByteRange("k", 10 * number, 10 * number + 10), lambda _: None)

    options = FetchOptions(cache_dir=tmp_path, n_threads=n_threads, max_hedge_share=0.0, stall_s=60.0)
    with closing(Fetcher(Waits(), options)) as fetcher:
        assert fetcher.submit(3 * n_threads, wanted).wait(for_all=True) == {}
        assert fetcher.stats.requests == 3 * n_threads
    assert max(most) == n_threads


@pytest.mark.parametrize("n_threads", [1, 2, 5])
@pytest.mark.parametrize("seed", range(3))
def test_after_a_storm_as_many_requests_are_under_way_as_before(n_threads, seed, monkeypatch):
    """Nearly every read is asked for several times, loses, fails, or is answered in the moment in which it is asked again."""
    monkeypatch.setattr(judge, "MIN_LATE_S", 0.001)
    monkeypatch.setattr(judge, "FIRST_STALL_S", 0.002)
    monkeypatch.setattr(range_requests, "WATCH_S", 0.0005)
    random, lock = Random(seed), threading.Lock()
    most, n_running, all_there = 0, 0, None

    class Storm(ScriptedStore):
        def get_range(self, key: str, start: int, end: int) -> memoryview:
            nonlocal most, n_running
            with lock:
                n_running += 1
                most = max(most, n_running)
                fails, seconds = random.random() < 0.1, random.choice([0.0, 0.001, 0.004, 0.02])
            try:
                if all_there is not None:
                    all_there.wait()
                    return memoryview(bytes(end - start))
                time.sleep(seconds)
                if fails:
                    raise StorageError("away", kind="unreachable")
                return memoryview(bytes(end - start))
            finally:
                with lock:
                    n_running -= 1

    def wanted(number: int) -> Wanted:
        return Wanted(ByteRange("k", 10 * number, 10 * number + 10), lambda _: None)

    options = FetchOptions(n_threads=n_threads, max_hedge_share=1.0, stall_s=0.001)
    with closing(Fetcher(Storm(), options)) as fetcher:
        assert fetcher.submit(200, wanted).wait(for_all=True) == {}
        assert fetcher.stats.hedges + fetcher.stats.stalls > 0
        monkeypatch.setattr(range_requests.Requests, "_look", lambda *_: None)
        wait_until(lambda: not n_running, "requests that lost do not end")
        most, all_there = 0, threading.Barrier(n_threads, timeout=30)
        assert fetcher.submit(3 * n_threads, wanted).wait(for_all=True) == {}
    assert most >= n_threads, "the place of a loser that has only just ended may still be another's"


# ---------------------------------------------------------------- ends of threads


class Panic(BaseException):
    """The exception that a native library raises when it panics: no ``Exception``."""


FAILURES = [IndexError("offset"), MemoryError(), Panic("unwrap"), SystemExit(1), KeyboardInterrupt()]


def told(fetcher: Fetcher, wanted: Callable[[int], Wanted]) -> Exception:
    """The error of one of three reads, which a wait that has an end brings."""
    pending, found = fetcher.submit(3, wanted), []
    waiter = threading.Thread(target=lambda: found.append(pending.wait(for_all=True)), daemon=True)
    waiter.start()
    waiter.join(20)
    assert found, "the wait did not end"
    assert list(found[0]) == [1]
    return found[0][1]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda f: type(f).__name__)
@pytest.mark.parametrize("cached", [False, True], ids=["direct", "cached"])
@pytest.mark.parametrize("where", ["wanted", "store", "deliver", "count"])
def test_every_end_of_a_reading_thread_is_told_to_whoever_waits(
    tmp_path, monkeypatch, where, cached, failure
):
    def fail(at: str, *_: object) -> None:
        if at == where:
            raise failure

    class Fails(ScriptedStore):
        def get_range(self, key: str, start: int, end: int) -> memoryview:
            if start == 1000:
                fail("store")
            return memoryview(bytes(end - start))

    def wanted(number: int) -> Wanted:
        mine = number == 1
        if mine:
            fail("wanted")
        at = ByteRange("k", 1000 * number, 1000 * number + 10)
        return Wanted(at, partial(fail, "deliver") if mine else lambda _: None, n_asked_bytes=number)

    def count(self: range_requests.Requests, item: Any, *given: Any, **named: Any) -> None:
        if item.wanted.range.start == 1000:
            fail("count")

    monkeypatch.setattr(range_requests.Requests, "_count", count)
    options = FetchOptions(cache_dir=tmp_path if cached else None, n_threads=2)
    with closing(Fetcher(Fails(), options)) as fetcher:
        error = told(fetcher, wanted)
        if isinstance(failure, Exception):
            assert error is failure
        else:
            assert isinstance(error, StorageError)
            assert error.kind == "crashed"
            assert type(failure).__name__ in str(error)
        sound = fetcher.submit(20, lambda n: Wanted(ByteRange("k", 5000 + n, 5010 + n), lambda _: None))
        assert sound.wait(for_all=True) == {}, "all threads are still there"


def test_a_system_without_threads_is_an_error_and_no_wait(fetching, monkeypatch):
    fetcher = fetching(ScriptedStore())
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    with pytest.raises((StorageError, RuntimeError)):
        fetcher.submit(3, lambda _: Wanted(WANTED, lambda _: None)).wait(for_all=True)
    monkeypatch.undo()
    assert fetcher.submit(3, lambda _: Wanted(WANTED, lambda _: None)).wait(for_all=True) == {}


def no_thread(self: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_child_that_was_forked_is_told_so_at_once(tmp_path):
    script = f"""
import os, sys, time, threading, warnings
warnings.simplefilter("ignore")
from tensorbank import ByteRange, StorageError
from tensorbank.fetch.fetcher import Fetcher, FetchOptions
from tensorbank.fetch.races import Wanted
from tensorbank.fetch.threads import ReadingThreads
from tensorbank.storage.store import Store

class Slow(Store):
    def get_range(self, key, start, end):
        threading.Event().wait(0.5)
        return memoryview(bytes(end - start))

def tells(call):
    try:
        call()
    except StorageError as error:
        return str(error.kind)
    return "nothing"

for cache_dir in (None, {str(tmp_path)!r}):
    fetcher = Fetcher(Slow("s3://nowhere"), FetchOptions(cache_dir=cache_dir))
    under_way = fetcher.submit(4, lambda n: Wanted(ByteRange("k", n, n + 1), lambda _: None))
    pid = os.fork()
    if pid == 0:
        started = time.monotonic()
        told = [
            tells(lambda: under_way.wait(for_all=True)),
            tells(lambda: fetcher.submit(1, lambda n: Wanted(ByteRange("k", 0, 1), lambda _: None))),
            tells(lambda: fetcher.fetch(ByteRange("k", 9, 10))),
            tells(lambda: fetcher.stats),
        ]
        fetcher.close()
        print(told, time.monotonic() - started < 2, flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
    print(len(under_way.wait(for_all=True)), flush=True)
    fetcher.close()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == [f"{['forked'] * 4} True", "0"] * 2, done.stderr


def test_the_end_of_a_fetcher_is_not_held_up_by_pauses(fetching, monkeypatch):
    monkeypatch.setattr(tries, "FIRST_PAUSE_S", 60.0)
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
    [
        {"n_threads": 0},
        {"patience_s": -1},
        {"patience_s": float("nan")},
        {"patience_s": float("inf")},
        {"max_amplification": 0.9},
        {"max_gap_bytes": -1},
        {"max_read_bytes": 0},
        {"max_gap_bytes": float("nan")},
        {"max_inflight_bytes": "1 GiB"},
        {"n_threads": 1.5},
        {"stall_s": None},
        {"max_hedge_share": True},
        {"cache_dir": 5},
        {"cache_bytes": []},
    ],
    ids=str,
)
def test_limits_that_make_no_sense_are_refused(limits):
    with pytest.raises(InvalidInputError, match=next(iter(limits))):
        FetchOptions(**limits)


def test_limits_may_be_floats_and_have_no_end_where_that_makes_sense():
    options = FetchOptions(cache_bytes=64e9, max_amplification=float("inf"), stall_s=float("inf"))  # type: ignore[arg-type]
    assert (options.cache_bytes, options.stall_s) == (64e9, float("inf"))
