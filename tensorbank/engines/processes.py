"""Worker processes of this machine: tasks in, results out, and no process left behind however it ends.

Each worker has a pipe of its own to a thread of the process that started it. One that is killed, be it in the middle of a result,
leaves an end of that pipe and nothing else: its task goes to another one, which takes its place. A queue that workers share would
be left with half a message, for whose rest its reader waits without end.

Every worker also holds the end of another pipe, its lifeline. When the other end is closed, on purpose after an interruption, or
by the system since the process that started it is gone (SIGKILL, out of memory), it ends in the middle of its task. A task may be
cut off anywhere: what it wrote is written again by the next try.

A worker says when it is ready. One that ends before that by itself, not by a signal, would end so again, and is not replaced.
Until one was ready in this process, no second one is started beside the first: what prevents all of them is printed once.
"""

from __future__ import annotations

import multiprocessing
import pickle
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import closing, nullcontext
from copy import copy
from dataclasses import dataclass
from itertools import chain, islice
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from tensorbank.engines.executor import Result, Setting, Task
from tensorbank.engines.process_worker import work
from tensorbank.engines.program import WORKER_NAME, died_early, helper_ended
from tensorbank.errors import ErrorKind, TensorBankError

__all__ = ["ProcessExecutor"]

SomeTask = TypeVar("SomeTask", bound=Task)
SomeResult = TypeVar("SomeResult", bound=Result)
Answer = tuple[bool, Any]
"""True and a result, or False and an error."""
END_S = 10.0
"""Seconds that workers have to end before they are killed."""
N_RETRIES = 2
"""The number of times that a task whose worker died is given to another one."""
GONE = 255
"""The exit status that multiprocessing gives to a process of which it learns nothing, since what started it was killed."""
TASKS_A_WORKER = 2
"""The number of tasks that are taken for each worker, so that none waits while results are looked at."""


class ProcessExecutor:
    """An executor of worker processes of this machine, started for the tasks of one call. One worker is this process itself."""

    def __init__(self, n_workers: int, setting: Setting) -> None:
        self.n_workers = n_workers
        self.setting = setting

    def open(self) -> None:
        """See ``Executor.open``: processes are started when there are tasks."""

    def close(self) -> None:
        """See ``Executor.close``: processes end with the tasks."""

    def execute(
        self, tasks: Iterable[SomeTask], run: Callable[[SomeTask, Any], SomeResult]
    ) -> Generator[SomeResult, None, None]:
        """See ``Executor.execute``; ``worker-lost``: all workers died that were given a task, one after the other.

        ``worker-start``: a worker ended before it could take a task, and so would all others.
        """
        coming = iter(tasks)
        first = list(islice(coming, 2))
        coming = chain(first, coming)
        if self.n_workers <= 1 or len(first) < 2:
            yield from (run(task, self.setting) for task in coming)
            return
        with closing(_Pool(self.n_workers, run, self.setting)) as pool:
            while True:
                for task in islice(coming, TASKS_A_WORKER * self.n_workers - pool.n_under_way):
                    pool.give(task)
                if not pool.n_under_way:
                    return
                yield pool.result()


@dataclass(frozen=True)
class _Worker:
    """A process that executes tasks, and the pipe to it."""

    process: BaseProcess
    connection: Connection

    def ask(self, task: bytes) -> bytes | None:
        """Return the answer to a task; None if the process ended before the whole of it was here."""
        try:
            self.connection.send_bytes(task)
            return self.connection.recv_bytes()
        except (EOFError, OSError):
            return None

    def ready(self) -> bool:
        """Wait until the process can take tasks; False if it was ended from outside before that.

        Raises
        ------
        TensorBankError
            It ended by itself, or says why it takes none.
        """
        try:
            is_ready, error = pickle.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            self.process.join(END_S)
            status = self.process.exitcode
            if status is None or status < 0 or status == GONE:
                return False
            raise died_early(status) from None
        if not is_ready:
            raise error
        return True

    def end(self) -> None:
        """Let the process end, which is between two tasks or dead."""
        self.connection.close()
        self.process.join(END_S)
        self.process.kill()  # nothing happens to one that has ended
        self.process.join()


class _Pool:
    """Some worker processes, with a thread each that gives it tasks and takes its answers."""

    def __init__(self, n_workers: int, run: Callable[..., Result], setting: Setting) -> None:
        self.n_workers = n_workers
        self.n_under_way = 0
        self._work = pickle.dumps((run, setting))
        self._first = threading.Lock()
        self._start_error: TensorBankError | None = None
        self._context = multiprocessing.get_context("forkserver")
        self._held, self._lifeline = self._context.Pipe(duplex=False)
        self._threads: list[threading.Thread] = []
        self._workers: set[_Worker] = set()
        self._stopping = threading.Event()
        # Not concurrent.futures: a signal that comes while it takes the locks of futures leaves them taken for ever.
        self._coming: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._over: queue.SimpleQueue[Answer] = queue.SimpleQueue()

    def give(self, task: Task) -> None:
        """Give a task to whichever worker is free next; there is one more, while they are fewer than they may be."""
        if len(self._threads) < self.n_workers:
            thread = threading.Thread(target=self._tend, daemon=True, name="tensorbank-worker")
            self._threads.append(thread)
            thread.start()
        self.n_under_way += 1
        self._coming.put(task)

    def result(self) -> Any:
        """Return the next result, or raise the error of a task."""
        is_done, value = self._over.get()
        self.n_under_way -= 1
        if not is_done:
            raise value
        return value

    def close(self) -> None:
        """End all processes, those in the middle of a task as well."""
        self._stopping.set()
        if self.n_under_way:
            self._lifeline.close()
        for _ in self._threads:
            self._coming.put(None)
        until_s = time.monotonic() + END_S
        threads = [thread for thread in self._threads if thread.ident is not None]
        for thread in threads:
            thread.join(max(until_s - time.monotonic(), 0.0))
        for worker in [*self._workers]:
            worker.process.kill()
        for thread in threads:
            thread.join(END_S)
        self._lifeline.close()
        self._held.close()

    def _tend(self) -> None:
        """Give tasks to one worker, or to the one that takes its place, until there are no more."""
        worker: _Worker | None = None
        try:
            while (task := self._coming.get()) is not None and not self._stopping.is_set():
                try:
                    worker, answer = self._answered(task, worker)
                except Exception as error:  # noqa: BLE001 - edge of a thread: whoever waits for the answer gets it
                    self._over.put((False, error))
                else:
                    self._over.put(answer)
        finally:
            if worker is not None:
                self._end(worker)

    def _answered(self, task: Task, worker: _Worker | None) -> tuple[_Worker | None, Answer]:
        """Return what a task comes to, and the worker that had it in the end."""
        packed = pickle.dumps(task)
        for _ in range(1 + N_RETRIES):
            worker = worker or self._started()
            answer = worker.ask(packed) if worker is not None else None
            if answer is not None:
                return worker, pickle.loads(answer)
            if worker is not None:
                self._end(worker)
                worker = None
            if self._stopping.is_set():
                break
        lost = TensorBankError(
            f"worker processes were killed at {task.label}, {1 + N_RETRIES} one after the other, perhaps because memory ran out; "
            "run again, with fewer workers, and it goes on where it keeps what is finished",
            kind=ErrorKind.WORKER_LOST,
        )
        return None, (False, lost)

    def _started(self) -> _Worker | None:
        """Return a new worker that can take tasks; None if it was ended from outside before, or nobody wants it any more."""
        with nullcontext() if _startable.is_set() else self._first:
            if self._start_error is not None:
                raise copy(self._start_error)  # each thread adds to the stack of its own
            if self._stopping.is_set():
                return None
            worker = self._launched()
            is_ready = False
            try:
                is_ready = worker.ready()
            except TensorBankError as error:
                self._start_error = error
                raise
            finally:
                if not is_ready:
                    self._end(worker)
            if not is_ready:
                return None
            _startable.set()
            return worker

    def _launched(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        with theirs:  # a worker that ends then closes the last of its end
            arguments = (theirs, self._held, self._work)
            process = self._context.Process(target=work, args=arguments, name=WORKER_NAME, daemon=False)
            try:
                process.start()
            except (EOFError, ConnectionError) as error:
                ours.close()
                raise helper_ended("the process that starts them") from error
        worker = _Worker(process, ours)
        self._workers.add(worker)
        return worker

    def _end(self, worker: _Worker) -> None:
        worker.end()
        self._workers.discard(worker)


_startable = threading.Event()
"""Set once a worker of this process was ready: others will be, as they import the same."""
