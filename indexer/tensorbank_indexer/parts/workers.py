"""The worker processes of an ingest: tasks in, results out, and no process left behind however it ends.

Every worker holds the end of a pipe, its lifeline, whose other end is in the process that started it. When that end is closed,
on purpose after an interruption, or by the system since the process is gone (SIGKILL, out of memory), the worker ends at once.
A task may be cut off anywhere: what it wrote is written again by the next try.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import util
from multiprocessing.connection import Connection
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
        try:
            waiting |= {pool.submit(run, task, source, store) for task in tasks}
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except BaseException as error:
            # Idle workers end with the pool. Cutting their lifeline as well would end them in the middle of that.
            if waiting or isinstance(error, BrokenProcessPool):
                lifeline.close()
                wait(waiting, timeout=END_S)
            if not isinstance(error, BrokenProcessPool):
                raise
            raise TensorBankError(
                "a worker process was killed, perhaps because memory ran out; run again, with fewer workers: finished "
                "shards are kept",
                kind=ErrorKind.WORKER_LOST,
            ) from error


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
