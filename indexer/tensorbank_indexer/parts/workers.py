"""The worker processes of an ingest: tasks in, results out, and no process left behind however it ends.

Every worker holds the end of a pipe, its lifeline, whose other end is in the process that started it. When that end is closed,
on purpose after an interruption, or by the system since the process is gone (SIGKILL, out of memory), the worker ends at once.
A task may be cut off anywhere: what it wrote is written again by the next try.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import util
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TypeVar

from tensorbank.errors import ErrorKind, TensorBankError
from tensorbank.storage import Store
from tensorbank_indexer.parts.shard_task import ShardResult
from tensorbank_indexer.source import Source
from tensorbank_indexer.zarr_groups import forbid_blosc_threads

__all__ = ["execute"]

Task = TypeVar("Task")
END_S = 10.0
"""Seconds that workers have to end once their lifeline is closed."""


def execute(
    tasks: Sequence[Task],
    source: Source,
    store: Store,
    n_workers: int,
    run: Callable[[Task, Source, Store], ShardResult],
) -> Generator[ShardResult, None, None]:
    """Yield the results as they come; close the generator to end the workers.
    One worker is this process itself.

    Parameters
    ----------
    run
        Function of a module that executes one task.

    Raises
    ------
    TensorBankError
        Of a task, or of kind ``worker-lost``: a worker died. What is finished stays finished.
    """
    n_workers = min(n_workers, len(tasks))
    if n_workers <= 1:
        yield from (run(task, source, store) for task in tasks)
        return
    context = multiprocessing.get_context("forkserver")
    held, lifeline = context.Pipe(duplex=False)
    with lifeline, held, ProcessPoolExecutor(n_workers, context, _begin, (held,)) as pool:
        waiting: set[Future[ShardResult]] = set()
        # Not concurrent.futures.wait(): a signal that comes while it takes the locks of futures leaves them taken for ever.
        over: queue.SimpleQueue[Future[ShardResult]] = queue.SimpleQueue()
        before = {*multiprocessing.active_children()}
        workers: set[BaseProcess] = set()
        try:
            for task in tasks:
                future = pool.submit(run, task, source, store)
                waiting.add(future)
                future.add_done_callback(over.put)
            workers = {*multiprocessing.active_children()} - before
            while waiting:
                future = over.get()
                waiting.discard(future)
                yield future.result()
        except BaseException as error:
            # Idle workers end with the pool. Cutting their lifeline as well would end them in the middle of that.
            if waiting or isinstance(error, BrokenProcessPool):
                lifeline.close()
                _wait_for(waiting, over)
                for worker in workers:
                    worker.kill()  # one that has not ended by itself; nothing happens to those that have
            if not isinstance(error, BrokenProcessPool):
                raise
            raise TensorBankError(
                "a worker process was killed, perhaps because memory ran out; run again, with fewer workers: finished "
                "shards are kept",
                kind=ErrorKind.WORKER_LOST,
            ) from error


def _wait_for(waiting: set[Future[ShardResult]], over: queue.SimpleQueue[Future[ShardResult]]) -> None:
    """Wait until all futures are over, for some seconds at most."""
    until_s = time.monotonic() + END_S
    with suppress(queue.Empty):
        while waiting:
            waiting.discard(over.get(timeout=max(until_s - time.monotonic(), 0)))


def _begin(lifeline: Connection) -> None:
    """Prepare a worker: its parent handles the signals that go to the whole group, and ends it by the lifeline."""
    forbid_blosc_threads()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True, name="lifeline").start()


def _end_with(lifeline: Connection) -> None:
    try:
        lifeline.poll(None)
        # As a process of multiprocessing ends, else the locks that libraries made in it count as leaked.
        util._exit_function()  # type: ignore[attr-defined]
    finally:
        os._exit(0)
