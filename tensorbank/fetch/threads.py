"""Threads that work off jobs in order, as many as are wanted at the moment.

Unlike an executor's, they end when they are told to, and a thread that hangs in a request holds up neither the others' end nor
the interpreter's.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from functools import cache

from tensorbank.errors import ErrorKind, StorageError

__all__ = ["ReadingThreads"]

LINGER_S = 0.5
"""Seconds to wait for running jobs at close:
longer than most requests take, short enough for a person."""

Job = Callable[[], None]

_log = logging.getLogger(__name__)


class ReadingThreads:
    """A pool of threads of one owner. May be called from many threads at once.

    Parameters
    ----------
    size
        Callable that returns the number of jobs that may run at once; asked whenever that matters.
    """

    def __init__(self, size: Callable[[], int]) -> None:
        self._size = size
        self._jobs: deque[Iterator[Job]] = deque()
        self._ready = threading.Condition()
        self._threads: set[threading.Thread] = set()
        self._n_idle = self._n_workers = self._n_lost = 0
        self._until = 0.0
        self._pid = os.getpid()
        self.closing = threading.Event()
        """The event that is set when the threads end: jobs that pause should go on."""
        _living().add(self)

    def submit(self, jobs: Iterator[Job], n: int) -> None:
        """Run about ``n`` jobs, which must not raise, behind those submitted before. Each is asked for when its turn comes.

        One that raises all the same is logged, and the others go on.

        Raises
        ------
        StorageError
            The system gives no thread, and there is none yet; none of the jobs will run. Its kind is ``no-threads``.
        """
        with self._ready:
            self._jobs.append(jobs)
            self._ready.notify(min(self._n_idle, n))
            self._staff()
            if not self._n_workers and not self.closing.is_set() and self._n_wanted > 0:
                self._jobs.pop()
                raise StorageError(
                    "the system refuses to start a thread, so nothing can be read; lower n_threads, or raise the limits of "
                    "processes and memory",
                    kind=ErrorKind.NO_THREADS,
                )

    def replace(self, n: int) -> None:
        """Let others take the place of ``n`` threads that wait for answers which nobody wants any more.

        A request that lost its race keeps its thread until its client gives up, after 20 s of silence. With one answer in a
        hundred that late, and reads of 10 ms, four threads would soon do nothing but wait for them.
        """
        if n:
            with self._ready:
                self._n_lost += n
                self._staff()

    def take_back(self) -> None:
        """Count a thread again that was replaced: its answer has come."""
        with self._ready:
            self._n_lost -= 1

    def spawn(self, job: Job) -> None:
        """Run a job at once, beside the others. RuntimeError if the system gives no thread."""
        with self._ready:
            self._start(job)

    @property
    def n_threads(self) -> int:
        """The number of threads that live."""
        return len(self._threads)

    def dismiss(self) -> None:
        """Drop jobs that have not started, and let the threads end when their job has.

        In a process that was forked off nothing happens: the threads are the parent's, and one of them may have held the lock.
        The garbage collector calls this wherever the owner goes, in a fork as well.
        """
        if self._pid != os.getpid():
            return
        with self._ready:
            if not self.closing.is_set():
                self._until = time.monotonic() + LINGER_S
            self.closing.set()
            self._jobs.clear()
            self._ready.notify_all()

    def close(self) -> None:
        """Drop jobs that have not started, and wait for a while for the others to end; called again, for the rest of it."""
        if self._pid != os.getpid():
            return
        self.dismiss()
        with self._ready:
            threads = list(self._threads)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(self._until - time.monotonic(), 0))

    @property
    def _n_wanted(self) -> int:
        return self._size() + self._n_lost

    def _start(self, job: Job) -> None:
        def run() -> None:
            try:
                job()
            finally:
                with self._ready:
                    self._threads.discard(thread)

        thread = threading.Thread(target=run, name="tensorbank-read", daemon=True)
        self._threads.add(thread)
        try:
            thread.start()
        except BaseException:
            self._threads.discard(thread)
            raise

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                job()
            except BaseException:  # noqa: BLE001 - the edge of a thread: a worker that ended would be missed by later jobs
                _log.exception("a job of a reading thread ended in an error that it told nobody")
            del job  # it may hold a batch

    def _next(self) -> Job | None:
        with self._ready:
            while not self.closing.is_set() and self._n_workers <= self._n_wanted:
                if self._jobs:
                    jobs = self._jobs[0]
                    try:
                        job = next(jobs, None)
                    except BaseException:  # noqa: BLE001 - the same edge; a generator that raised is over
                        _log.exception("jobs of a reading thread could not be made")
                        job = None
                    if job is not None:
                        self._staff()
                        return job
                    if self._jobs:  # the last job may have ended all
                        self._jobs.popleft()
                    del jobs
                else:
                    self._n_idle += 1
                    self._ready.wait()
                    self._n_idle -= 1
            self._n_workers -= 1
            if self._jobs:  # it was woken for one of them, and is one too many: another has to be
                self._ready.notify()
            return None

    def _staff(self) -> None:
        """Start one more thread, where there is work for it; it looks for the next itself."""
        if self._jobs and not self._n_idle and not self.closing.is_set() and self._n_workers < self._n_wanted:
            self._n_workers += 1
            try:
                self._start(self._work)
            except (RuntimeError, MemoryError) as error:  # those who are there do the work
                self._n_workers -= 1
                _log.warning("no more reading threads than %d: %s", self._n_workers, error)


@cache
def _living() -> weakref.WeakSet[ReadingThreads]:
    """Return the pools that live. Daemon threads must not come back from a request while
    the interpreter goes down, so they end before.
    """
    living: weakref.WeakSet[ReadingThreads] = weakref.WeakSet()

    def end() -> None:
        for threads in list(living):
            threads.close()

    atexit.register(end)
    return living
