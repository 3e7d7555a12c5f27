"""Threads of this process, for tasks that release Python's lock most of the time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from tensorbank.engines.executor import Result, Setting, Task

__all__ = ["ThreadExecutor"]

SomeTask = TypeVar("SomeTask", bound=Task)
SomeResult = TypeVar("SomeResult", bound=Result)


class ThreadExecutor:
    """An executor of threads of this process, started for the tasks of one call. Results come in the order of tasks."""

    def __init__(self, n_threads: int, setting: Setting) -> None:
        self.n_threads = n_threads
        self.setting = setting

    def open(self) -> None:
        """See ``Executor.open``: threads are started when there are tasks."""

    def close(self) -> None:
        """See ``Executor.close``: threads end with the tasks."""

    def execute(
        self, tasks: Iterable[SomeTask], run: Callable[[SomeTask, Any], SomeResult]
    ) -> Generator[SomeResult, None, None]:
        """See ``Executor.execute``."""
        waiting: deque[Future[SomeResult]] = deque()
        with ThreadPoolExecutor(self.n_threads, thread_name_prefix="tensorbank-task") as pool:
            try:
                for task in tasks:
                    waiting.append(pool.submit(run, task, self.setting))
                    if len(waiting) > 2 * self.n_threads:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()
