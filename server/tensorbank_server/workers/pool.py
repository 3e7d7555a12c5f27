"""Processes that query: a query can be killed, runs out of memory alone, and takes no time of the event loop.

Each is started afresh (a used object-store client does not survive a fork) and does one job at a time. The kernel ends
one whose job takes too long, even if nobody is left to ask for it; the pool then starts another.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import signal
import threading
from multiprocessing.connection import Connection
from typing import TypeVar

import anyio
import anyio.to_thread

from tensorbank.errors import TensorBankError
from tensorbank_server.http import Problem
from tensorbank_server.monitoring import Metrics
from tensorbank_server.workers.jobs import Job
from tensorbank_server.workers.process import WorkerOptions, work

__all__ = ["JobError", "WorkerPool"]

T = TypeVar("T")

GRACE_S = 1.0
"""Seconds from the end of a job's time to the end of its worker."""
WAIT_S = 2.0
"""Seconds that a job waits for a worker; then the caller is told to come again."""
START_S = 60.0
RESTART_S = 5.0
JOIN_S = 5.0
_LOG = logging.getLogger(__name__)


class JobError(RuntimeError):
    """An error of a job that nobody foresaw; its words are for the log."""


class WorkerPool:
    """A fixed number of workers, and the queue for them. Belongs to one event loop.

    Parameters
    ----------
    n
        Jobs at once.
    """

    def __init__(self, n: int, options: WorkerOptions, metrics: Metrics) -> None:
        self.n = n
        # where there are several banks, none of them has all workers: one whose store hangs leaves a worker to others
        share = max(1, n - 1) if len(options.banks) > 1 else n
        self._shares = {bank: asyncio.Semaphore(share) for bank in options.banks}
        self.options = options
        self.metrics = metrics
        self._idle: asyncio.Queue[_Worker] = asyncio.Queue()
        self._workers: set[_Worker] = set()
        self._replacing: set[asyncio.Task[None]] = set()
        self._limiter: anyio.CapacityLimiter | None = None
        self._busy: dict[int, _Worker] = {}

    async def start(self) -> None:
        """Start the workers and wait until they are ready."""
        self._limiter = anyio.CapacityLimiter(self.n)
        started = await asyncio.gather(
            *(asyncio.to_thread(_Worker.start, self.options) for _ in range(self.n))
        )
        for worker in started:
            self._workers.add(worker)
            self._idle.put_nowait(worker)

    async def run(self, job: Job[T], limit_s: float, wait_s: float = WAIT_S) -> T:
        """Do a job in a worker, which is waited for ``wait_s`` at most.

        Raises
        ------
        TensorBankError
            The job's own.
        Problem
            503: no worker was free, or it ended, as one does that runs out of memory; 504: it took too long.
        """
        share = self._shares[job.bank]
        try:
            async with asyncio.timeout(wait_s):
                await share.acquire()
        except TimeoutError:
            raise _busy() from None
        try:
            return await self._run(job, limit_s, wait_s)
        finally:
            share.release()

    async def _run(self, job: Job[T], limit_s: float, wait_s: float) -> T:
        try:
            async with asyncio.timeout(wait_s):
                worker = await self._idle.get()
                while not worker.is_running:  # it was killed while it had nothing to do: not this job's fault
                    worker.alive, worker.why_ended = False, "died"
                    self._give_back(worker)
                    worker = await self._idle.get()
        except TimeoutError:
            raise _busy() from None
        self._busy[id(job)] = worker
        try:
            return await anyio.to_thread.run_sync(worker.ask, job, limit_s, limiter=self._limiter)
        finally:
            del self._busy[id(job)]
            self._give_back(worker)

    def kill(self, job: Job[object]) -> bool:
        """End the worker that does a job, if one does; whoever waits for it is told."""
        worker = self._busy.get(id(job))
        if worker is not None:
            worker.kill()
        return worker is not None

    @property
    def n_alive(self) -> int:
        return sum(worker.alive for worker in self._workers)

    def _give_back(self, worker: _Worker) -> None:
        if worker.alive and worker.n_jobs < self.options.max_jobs:
            self._idle.put_nowait(worker)
            return
        self.metrics.worker_restarts.labels(worker.why_ended or "recycled").inc()
        self._workers.discard(worker)
        replacing = asyncio.get_running_loop().create_task(self._replace(worker))
        self._replacing.add(replacing)
        replacing.add_done_callback(self._replacing.discard)

    async def _replace(self, worker: _Worker) -> None:
        await asyncio.to_thread(worker.stop)
        fresh = await self._start()
        self._workers.add(fresh)
        self._idle.put_nowait(fresh)

    async def _start(self) -> _Worker:
        """Start a worker, and try again until one starts."""
        while True:
            try:
                return await asyncio.to_thread(_Worker.start, self.options)
            except (TensorBankError, EOFError, OSError):
                _LOG.exception("a query worker could not be started; trying again")
                await asyncio.sleep(RESTART_S)

    async def close(self) -> None:
        """End the workers, whatever they do."""
        for replacing in list(self._replacing):
            replacing.cancel()
        for worker in self._workers:
            worker.kill()  # whoever asks one is told, and lets go of it
        await asyncio.gather(*(asyncio.to_thread(worker.stop) for worker in self._workers))
        self._workers.clear()


def _busy() -> Problem:
    return Problem(503, "overloaded", "all workers are busy; come again", headers={"Retry-After": "2"})


class _Worker:
    """A worker process, seen from the service. For one caller at a time."""

    def __init__(self, process: multiprocessing.process.BaseProcess, connection: Connection) -> None:
        self._process = process
        self._connection = connection
        self._lock = threading.Lock()
        self.n_jobs = 0
        self.alive = True
        self.why_ended = ""

    @classmethod
    def start(cls, options: WorkerOptions) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(theirs, options), name="tensorbank-query", daemon=True)
        process.start()
        theirs.close()
        worker = cls(process, ours)
        if not ours.poll(START_S):
            worker.stop()
            raise TensorBankError("a query worker did not start")
        ours.recv()
        return worker

    @property
    def is_running(self) -> bool:
        """True if the process lives."""
        return self._process.is_alive()

    def ask(self, job: Job[T], limit_s: float) -> T:
        with self._lock:
            self.n_jobs += 1
            try:
                self._connection.send((job, limit_s))
                if not self._connection.poll(limit_s + GRACE_S):
                    raise EOFError
                kind, answer, *more = self._connection.recv()
            except (EOFError, OSError):
                raise self._ended(limit_s) from None
        if kind == "answer":
            found: T = answer  # the other process did this job
            return found
        if kind == "error":
            raise answer
        if kind == "disk":
            raise OSError(answer, *more)
        self.alive, self.why_ended = False, "failed"
        raise JobError(answer)

    def _ended(self, limit_s: float) -> Problem:
        self.alive = False
        self._process.join(0.2)
        late = self._process.exitcode in (None, -signal.SIGALRM)
        self.why_ended = "late" if late else "died"
        _LOG.warning("a query worker %s", "took too long" if late else f"ended with {self._process.exitcode}")
        if late:
            return Problem(504, "time-limit", f"the query took more than {limit_s:g} s; ask for less")
        return Problem(503, "worker-ended", "the query took too much memory; ask for less")

    def kill(self) -> None:
        self._process.kill()

    def stop(self) -> None:
        self.alive = False
        self._process.kill()
        self._process.join(JOIN_S)  # one that waits in the kernel, as for a network disk, is left to it
        self._connection.close()
