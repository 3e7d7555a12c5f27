"""Threads that work off jobs: in order, as many as wanted, and gone when told."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from functools import partial

import pytest

from tensorbank.fetch.threads import Crew, Job


@pytest.fixture
def crew() -> Iterator[Crew]:
    crew = Crew(lambda: 4)
    yield crew
    crew.close()
    assert crew.n_threads == 0


def test_all_jobs_run_and_no_more_at_once_than_wanted(crew):
    lock, done, now, most = threading.Lock(), threading.Semaphore(0), [0], [0]

    def job() -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.002)
        with lock:
            now[0] -= 1
        done.release()

    for n in (100, 1, 50):
        crew.submit((job for _ in range(n)), n)
    for _ in range(151):
        assert done.acquire(timeout=10)
    assert most[0] == 4


def test_one_thread_keeps_the_order():
    crew, seen, over = Crew(lambda: 1), [], threading.Event()
    crew.submit((partial(seen.append, i) for i in range(50)), 50)
    crew.submit(iter([over.set]), 1)
    assert over.wait(10)
    assert seen == list(range(50))
    crew.close()


def test_jobs_are_asked_for_when_their_turn_comes(crew):
    made, gate, over = [], threading.Event(), threading.Event()

    def jobs() -> Iterator[Job]:
        for number in range(100):
            made.append(number)
            yield gate.wait if number < 99 else over.set

    crew.submit(jobs(), 100)
    assert len(made) <= 8
    gate.set()
    assert over.wait(10)


def test_a_crew_that_may_grow_does(crew):
    size, gate, started = [1], threading.Event(), threading.Semaphore(0)
    crew._size = lambda: size[0]

    def job() -> None:
        started.release()
        gate.wait(10)

    crew.submit((job for _ in range(3)), 3)
    assert started.acquire(timeout=10)
    assert not started.acquire(timeout=0.05)
    size[0] = 3
    crew.staff()
    assert started.acquire(timeout=10)
    assert started.acquire(timeout=10)
    gate.set()


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_crew_that_shrinks_while_it_idles_still_does_its_next_jobs(n):
    size, together, done = [4], threading.Barrier(5), threading.Semaphore(0)
    crew = Crew(lambda: size[0])
    crew.submit((partial(together.wait, 10) for _ in range(4)), 4)
    together.wait(10)
    deadline = time.monotonic() + 10
    while crew._n_idle < 4 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert crew._n_idle == 4
    size[0] = 1  # who is woken now may be one too many, and goes
    crew.submit((done.release for _ in range(n)), n)
    for _ in range(n):
        assert done.acquire(timeout=5), "nobody was left awake to do the job"
    crew.close()


def test_closing_drops_what_has_not_started_and_does_not_wait_for_what_hangs():
    crew, gate, started, ran = Crew(lambda: 1), threading.Event(), threading.Event(), []

    def hangs() -> None:
        started.set()
        gate.wait(30)

    crew.submit(iter([hangs, partial(ran.append, 1)]), 2)
    assert started.wait(10)
    begun = time.monotonic()
    crew.close()
    assert time.monotonic() - begun < 5
    gate.set()
    assert not ran


@pytest.mark.parametrize("failure", [ValueError("no"), SystemExit(2), KeyboardInterrupt()], ids=repr)
def test_a_job_that_raises_costs_no_thread(failure, caplog):
    crew, done = Crew(lambda: 1), threading.Semaphore(0)

    def raises() -> None:
        raise failure

    def broken() -> Iterator[Job]:
        yield raises
        raise failure

    crew.submit(broken(), 2)
    crew.submit((done.release for _ in range(3)), 3)
    for _ in range(3):
        assert done.acquire(timeout=10), "the only thread is gone"
    crew.close()
    assert len(caplog.records) == 2


def test_jobs_are_not_kept():
    class Thing:
        pass

    crew, over = Crew(lambda: 2), threading.Event()
    thing = Thing()
    gone = weakref.ref(thing)
    crew.submit(iter([partial(id, thing), over.set]), 2)
    assert over.wait(10)
    del thing
    crew.close()
    gc.collect()
    assert gone() is None


def test_a_thread_that_hangs_does_not_hold_up_the_interpreter():
    script = """
import threading
from tensorbank.fetch.threads import Crew
started = threading.Event()
def hangs():
    started.set()
    threading.Event().wait(60)
crew = Crew(lambda: 2)
crew.submit(iter([hangs]), 1)
started.wait(10)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)
