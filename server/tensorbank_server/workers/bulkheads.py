"""A bulkhead for each bank: threads of its own, a bounded number of waiting calls, a time limit, and a circuit breaker.

A bank whose store hangs costs its own threads and those who ask for it. What blocks runs in daemon threads, so that one that
never comes back holds up neither other banks nor the end of the process.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, ParamSpec, TypeVar

from tensorbank.errors import StorageError
from tensorbank_server.access import PLACE, Concurrency
from tensorbank_server.http import Problem
from tensorbank_server.workers.watches import Watch

__all__ = ["Bulkhead", "Threads"]

P = ParamSpec("P")
T = TypeVar("T")
RETRY_AFTER_S = 5


class Threads:
    """A set of daemon threads that do what one event loop gives them, in order. They begin when there is work.

    Parameters
    ----------
    n
        Calls at once.
    """

    def __init__(self, name: str, n: int) -> None:
        self.name = name
        self.n = n
        self._calls: deque[Callable[[], None]] = deque()
        self._ready = threading.Condition()
        self._n_threads = self._n_idle = 0
        self._is_closed = False
        self.n_held = 0
        """The number of calls that run or wait, those whose caller has given up among them."""

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call that blocks. If its caller is cancelled, the call keeps its thread until it returns."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        bound = partial(call, *args, **kwargs)

        def tell(value: Any, error: BaseException | None) -> None:
            self.n_held -= 1
            if future.done():  # nobody waits any more
                return
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)

        def work() -> None:
            value, error = None, None
            try:
                value = bound()
            except BaseException as caught:  # noqa: BLE001 - the edge of a thread: whoever waits is told
                error = RuntimeError("a call ran out") if isinstance(caught, StopIteration) else caught
            try:
                loop.call_soon_threadsafe(tell, value, error)
            except RuntimeError:  # the loop has ended: nobody is left to be told
                return

        self.n_held += 1
        self._submit(work)
        return await future

    def _submit(self, call: Callable[[], None]) -> None:
        with self._ready:
            self._calls.append(call)
            if self._n_idle:
                self._ready.notify()
            elif self._n_threads < self.n:
                self._n_threads += 1
                threading.Thread(target=self._work, name=self.name, daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._ready:
                self._n_idle += 1
                while not self._calls and not self._is_closed:
                    self._ready.wait()
                self._n_idle -= 1
                if not self._calls:
                    self._n_threads -= 1
                    return
                call = self._calls.popleft()
            call()
            del call  # it may hold a tensor

    def close(self) -> None:
        """Let threads end when their call has; drop calls that have not begun."""
        with self._ready:
            self._is_closed = True
            self._calls.clear()
            self._ready.notify_all()


class Bulkhead:
    """The bulkhead of one bank, as the module describes it. For one event loop.

    Parameters
    ----------
    name
        Name of the bank.
    n_threads, max_waiting
        Calls at once, and calls that may wait behind them; callers beyond are told to come again.
    max_per_caller
        The most calls of one caller, running and waiting together.
    limit_s
        Seconds that one call may take, its wait included.
    watch
        The watch that says whether the bank can be read. While it cannot, no call waits for it: the watch alone tries.
    """

    def __init__(
        self,
        name: str,
        *,
        n_threads: int,
        max_waiting: int,
        max_per_caller: int,
        limit_s: float,
        watch: Watch,
    ) -> None:
        self.name = name
        self.watch = watch
        self._threads = Threads(f"tensorbank-bank-{name}", n_threads)
        self._max_held = n_threads + max_waiting
        self._callers = Concurrency(self._max_held, max_per_caller)
        self._limit_s = limit_s

    def check(self) -> None:
        """Refuse a call that needs the bank while it cannot be read.

        Raises
        ------
        Problem
            503 with ``Retry-After``.
        """
        if self.watch.problem is not None:
            raise self._unavailable()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Wait for the bank: meanwhile the request leaves its place in the service, which others may need.

        Raises
        ------
        Problem
            503: the bank cannot be read, or too many wait for it; 429: this caller has too many that do.
        """
        self.check()
        place = PLACE.get()
        if self._threads.n_held >= self._max_held or self._callers.n_running >= self._max_held:
            raise Problem(
                503,
                "bank-busy",
                f"too many requests wait for the bank {self.name}; come again",
                headers={"Retry-After": "2"},
            )
        with self._callers.slot(place.caller if place else ""):
            if place is not None:
                place.leave()
            try:
                yield
            finally:
                if place is not None:
                    place.come_back()

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call that may wait for the store.

        Raises
        ------
        Problem
            503: the bank cannot be read, too many wait for it, or it did not answer in time.
        """
        try:
            async with asyncio.timeout(self._limit_s):
                return await self.work(call, *args, **kwargs)
        except TimeoutError:
            self.watch.doubt()
            raise self._unavailable() from None

    async def work(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a long call with what a bank holds: as :meth:`run`, but limited by the request's own time alone."""
        with self.waiting():
            try:
                return await self._threads.run(call, *args, **kwargs)
            except StorageError:
                self.watch.doubt()
                raise

    def _unavailable(self) -> Problem:
        return Problem(
            503,
            "bank-unavailable",
            f"the bank {self.name} cannot be read now; others can",
            headers={"Retry-After": str(RETRY_AFTER_S)},
        )

    def close(self) -> None:
        """Let the threads end; those that hang are left behind."""
        self._threads.close()
