"""The executor on a Dask cluster: few tasks under way at a time, small results back, and every wait with an end.

What a lost worker had under way, the scheduler gives to another one. What this process had under way, the scheduler drops when
this process is gone; a run that is started again goes on at the checkpoints.
"""

from __future__ import annotations

import pickle
import queue
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from itertools import chain, islice
from typing import Any, TypeVar

from distributed import CancelledError, Future, KilledWorker
from distributed.protocol import pickle as travelling

from tensorbank.engines.dask_cluster import KEPT, DaskCluster
from tensorbank.engines.executor import Result, Setting, Task
from tensorbank.engines.worker_task import Work, look, perform, release
from tensorbank.errors import ErrorKind, InvalidInputError, StorageError, TensorBankError

__all__ = ["DaskExecutor", "require_reachable"]

SomeTask = TypeVar("SomeTask", bound=Task)
SomeResult = TypeVar("SomeResult", bound=Result)
N_RETRIES = 2
"""The number of times that a task which failed is tried again, on whatever worker."""
TASKS_A_THREAD = 2
"""The number of tasks that a thread of a worker is given ahead, so that it need not wait for the next one."""
CHECK_S = 2.0
"""Seconds between two looks at the cluster."""
MAX_WORK_BYTES = 1 << 20
"""The most bytes of a setting, pickled: it goes with each task."""


def require_reachable(setting: Setting, address: str) -> None:
    """Raise InvalidInputError if workers on other machines cannot have what this process has."""
    setting.require_shareable(address)
    store = setting.store
    options = store.options
    if not address.startswith("tls:") and (options.access_key is not None or options.credentials is not None):
        raise InvalidInputError(
            f"the keys of {store.url} would travel to {address} in the clear; let workers have keys in their environment, name a "
            "profile that they have (--aws-profile), or give a tls:// address"
        )


class DaskExecutor:
    """An executor on the workers of a cluster.

    Parameters
    ----------
    address
        Address of a scheduler; None: workers are processes of this machine.
    n_workers
        Processes of this machine; of a cluster that is there, the most tasks at a time, or None.
    wait_s
        Seconds without a worker after which the run ends.
    """

    def __init__(self, address: str | None, n_workers: int | None, wait_s: float, setting: Setting) -> None:
        self.is_shared = address is not None
        self.cluster = DaskCluster(address, n_workers or 1, wait_s)
        self.max_tasks = n_workers if address is not None else None
        self.setting = setting
        self.store = setting.store
        self._n_threads = 0
        self._checked_s = 0.0
        self._is_open = False

    def open(self) -> None:
        """See ``Executor.open``: connect, and let each worker look at release, archives and bank."""
        if not self._is_open:
            if self.store.local_path is not None:
                with suppress(OSError):  # as whatever is written first will say
                    self.store.local_path.mkdir(parents=True, exist_ok=True)  # workers look for it
            self.cluster.open()
            self.cluster.require(look, release(), self._packed(perform))
            self._is_open = True

    def close(self) -> None:
        """See ``Executor.close``."""
        self._is_open = False
        self.cluster.close()

    def execute(
        self, tasks: Iterable[SomeTask], run: Callable[[SomeTask, Any], SomeResult]
    ) -> Generator[SomeResult, None, None]:
        """See ``Executor.execute``; ``worker-lost``: all workers died that were given a task, one after the other."""
        coming: Iterator[tuple[int, SomeTask]] = enumerate(tasks)
        first = list(islice(coming, 1))
        if not first:
            return
        self.open()
        wanted, work = release(), self._packed(run)
        name = f"tensorbank-task-{uuid.uuid4().hex[:12]}"
        under_way: dict[Future[SomeResult], Task] = {}
        over: queue.SimpleQueue[Future[SomeResult]] = queue.SimpleQueue()
        coming = chain(first, coming)
        try:
            while True:
                for number, task in islice(coming, max(self._n_at_once() - len(under_way), 0)):
                    future = self.cluster.client.submit(
                        perform,
                        wanted,
                        work,
                        pickle.dumps(task),
                        key=f"{name}-{number}",
                        retries=N_RETRIES,
                        pure=False,
                    )
                    under_way[future] = task
                    future.add_done_callback(over.put)
                if not under_way:
                    return
                future = self._next(over)
                result = self._result(future, under_way.pop(future))
                del future  # the cluster forgets what nobody holds
                yield result
        finally:
            for future in under_way:
                future.release()

    def _packed(self, run: Callable[..., Result]) -> bytes:
        """Return what all tasks have in common, pickled.

        Raises
        ------
        InvalidInputError
            The setting holds more than addresses and options.
        """
        work: Work = (run, self.setting)
        packed = bytes(travelling.dumps(work))
        if len(packed) > MAX_WORK_BYTES:
            raise InvalidInputError(
                f"what tasks have in common has {len(packed)} bytes when pickled, which would go with each task, and may have "
                f"{MAX_WORK_BYTES}; let it hold an address and options only"
            )
        return packed

    def _n_at_once(self) -> int:
        """Return how many tasks may be under way; at least one, which then waits for a worker."""
        self._check()
        most = TASKS_A_THREAD * self._n_threads
        return max(most if self.max_tasks is None else min(self.max_tasks, most), 1)

    def _check(self) -> None:
        """Look at the cluster, if the last look is some time ago."""
        if time.monotonic() - self._checked_s >= CHECK_S or not self._n_threads:
            self._n_threads = self.cluster.n_threads()
            self._checked_s = time.monotonic()

    def _next(self, over: queue.SimpleQueue[Future[SomeResult]]) -> Future[SomeResult]:
        """Return the next future that is over."""
        while True:
            try:
                return over.get(timeout=CHECK_S)
            except queue.Empty:
                self._check()

    def _result(self, future: Future[SomeResult], task: Task) -> SomeResult:
        """Return the result of a future that is over."""
        try:
            result = self._fetched(future)
        except KilledWorker as killed:
            raise TensorBankError(
                f"workers died at {task.label}, {killed.allowed_failures + 1} one after the other; the last one was "
                f"{killed.last_worker.address}. If memory ran out, give workers more of it, or shards fewer samples; run again, "
                f"{KEPT}",
                kind=ErrorKind.WORKER_LOST,
            ) from killed
        except CancelledError as error:
            raise self.cluster.lost() from error
        except ImportError as error:
            raise self.cluster.unlike(str(error)) from error
        self._require_seen(result, task)
        return result

    def _fetched(self, future: Future[SomeResult]) -> SomeResult:
        """Return the result once it is here; if its worker is lost before that, another one does the task again."""
        while True:
            try:
                return future.result(timeout=CHECK_S)
            except TimeoutError:
                if future.status == "error":
                    raise
                self._check()

    def _require_seen(self, result: Result, task: Task) -> None:
        """Raise StorageError if a worker wrote to a folder that is another one than this process has."""
        if not (self.is_shared and self.store.is_local):
            return
        for key in result.keys:
            if not self.store.exists(key):
                raise StorageError(
                    f"a worker of {self.cluster.name} wrote {task.label}, but {key} is not in {self.store.url} as this process "
                    "sees it; let all machines share the folder, or give a bank in an object store",
                    kind=ErrorKind.NO_FOLDER,
                )
