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

from tensorbank.fetch.threads import Job, ReadingThreads


@pytest.fixture
def threads() -> Iterator[ReadingThreads]:
    threads = ReadingThreads(lambda: 4)
    yield threads
    threads.close()
    assert threads.n_threads == 0


def test_all_jobs_run_and_no_more_at_once_than_wanted(threads):
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
        threads.submit((job for _ in range(n)), n)
    for _ in range(151):
        assert done.acquire(timeout=10)
    assert most[0] == 4


def test_one_thread_keeps_the_order():
    threads, seen, over = ReadingThreads(lambda: 1), [], threading.Event()
    threads.submit((partial(seen.append, i) for i in range(50)), 50)
    threads.submit(iter([over.set]), 1)
    assert over.wait(10)
    assert seen == list(range(50))
    threads.close()


def test_jobs_are_asked_for_when_their_turn_comes(threads):
    made, gate, over = [], threading.Event(), threading.Event()

    def jobs() -> Iterator[Job]:
        for number in range(100):
            made.append(number)
            yield gate.wait if number < 99 else over.set

    threads.submit(jobs(), 100)
    assert len(made) <= 8
    gate.set()
    assert over.wait(10)


def test_threads_that_are_lost_are_replaced_until_they_come_back():
    threads = ReadingThreads(lambda: 1)
    gate, started, over = threading.Event(), threading.Semaphore(0), threading.Semaphore(0)

    def job() -> None:
        started.release()
        gate.wait(10)
        over.release()

    threads.submit((job for _ in range(3)), 3)
    assert started.acquire(timeout=10)
    assert not started.acquire(timeout=0.05)
    threads.replace(2)
    assert started.acquire(timeout=10)
    assert started.acquire(timeout=10)
    threads.take_back()
    threads.take_back()
    gate.set()
    for _ in range(3):
        assert over.acquire(timeout=10)
    gate.clear()
    threads.submit((job for _ in range(2)), 2)
    assert started.acquire(timeout=10)
    assert not started.acquire(timeout=0.05)
    gate.set()
    threads.close()


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_pool_that_shrinks_while_it_idles_still_does_its_next_jobs(n):
    size, together, done = [4], threading.Barrier(5), threading.Semaphore(0)
    threads = ReadingThreads(lambda: size[0])
    threads.submit((partial(together.wait, 10) for _ in range(4)), 4)
    together.wait(10)
    deadline = time.monotonic() + 10
    while threads._n_idle < 4 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert threads._n_idle == 4
    size[0] = 1  # who is woken now may be one too many, and goes
    threads.submit((done.release for _ in range(n)), n)
    for _ in range(n):
        assert done.acquire(timeout=5), "nobody was left awake to do the job"
    threads.close()


def test_closing_drops_what_has_not_started_and_does_not_wait_for_what_hangs():
    threads, gate, started, ran = ReadingThreads(lambda: 1), threading.Event(), threading.Event(), []

    def hangs() -> None:
        started.set()
        gate.wait(30)

    threads.submit(iter([hangs, partial(ran.append, 1)]), 2)
    assert started.wait(10)
    begun = time.monotonic()
    threads.close()
    assert time.monotonic() - begun < 5
    gate.set()
    assert not ran


@pytest.mark.parametrize("failure", [ValueError("no"), SystemExit(2), KeyboardInterrupt()], ids=repr)
def test_a_job_that_raises_costs_no_thread(failure, caplog):
    threads, done = ReadingThreads(lambda: 1), threading.Semaphore(0)

    def raises() -> None:
        raise failure

    def broken() -> Iterator[Job]:
        yield raises
        raise failure

    threads.submit(broken(), 2)
    threads.submit((done.release for _ in range(3)), 3)
    for _ in range(3):
        assert done.acquire(timeout=10), "the only thread is gone"
    threads.close()
    assert len(caplog.records) == 2


def test_jobs_are_not_kept():
    class Thing:
        pass

    threads, over = ReadingThreads(lambda: 2), threading.Event()
    thing = Thing()
    gone = weakref.ref(thing)
    threads.submit(iter([partial(id, thing), over.set]), 2)
    assert over.wait(10)
    del thing
    threads.close()
    gc.collect()
    assert gone() is None


def test_a_thread_that_hangs_does_not_hold_up_the_interpreter():
    script = """
import threading
from tensorbank.fetch.threads import ReadingThreads
started = threading.Event()
def hangs():
    started.set()
    threading.Event().wait(60)
threads = ReadingThreads(lambda: 2)
threads.submit(iter([hangs]), 1)
started.wait(10)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)


def test_a_fork_lets_threads_of_its_parent_go_whatever_lock_they_held():
    """Their owner may be garbage in the child, whose collector then tells them to end."""
    script = """
import os, signal, threading, warnings, weakref
warnings.simplefilter("ignore")
from tensorbank.fetch.threads import ReadingThreads
from tensorbank.retention.lease_holder import LeaseHolder
from tensorbank.storage.store import Store

class Owner:
    pass

owner, threads, holder = Owner(), ReadingThreads(lambda: 1), LeaseHolder(Store("memory://nowhere"))
weakref.finalize(owner, threads.dismiss)
held, over = threading.Event(), threading.Event()

def hold():
    with threads._ready, threads.closing._cond, holder._lock:
        held.set()
        over.wait()

threading.Thread(target=hold, daemon=True).start()
held.wait()
child = os.fork()
if child == 0:
    signal.alarm(20)
    del owner
    threads.close()
    holder.hold([])
    holder.stop()
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout == "7\n", done.stderr
