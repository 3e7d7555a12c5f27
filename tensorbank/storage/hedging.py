"""A second try beside one that is late, for requests that may be repeated.

One slow answer in some hundred is usual for object stores, and the few requests that a plan starts with are in a row: each of
them can hold up all. Measured: where three answers in a hundred are 15 s late, a plan of 34 requests is there after 2.6 s (median
of five, at most 4.8 s), and without second tries after up to 31 s. A try is one request, which is not repeated here: a store that
answers at once, if only by refusals, is not asked twice.

Reads of tensors are hedged by what was measured (:mod:`tensorbank.fetch.lateness`); before the first of them nothing has been
measured, so the patience here is fixed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import TypeVar

from tensorbank.errors import ErrorKind, StorageError, as_error

__all__ = ["LATE_S", "hedged"]

T = TypeVar("T")
LATE_S = 2.0
"""Seconds before a second try: several times what a sound store takes for a small object."""
MAX_TRIES = 4
LIMIT_S = 600.0
"""Seconds after which nobody waits any more:
longer than the time limits of the clients' requests and their tries allow."""


def hedged(call: Callable[[], T], late_s: float = LATE_S) -> T:
    """Return the result of the first try to succeed;
    another try begins whenever ``late_s`` passed without an answer.

    A call may be of several requests in a row: a try gets past the one that held up the try before it. What slower tries
    bring is dropped.

    Raises
    ------
    Exception
        The exception of the first try, where none succeeds. A call that fails in time is not repeated.
    StorageError
        No try has ended within :data:`LIMIT_S`; its kind is ``stalled``.
    """
    tries = [_started(call)]
    done, _ = wait(tries, timeout=late_s)
    while not done and len(tries) < MAX_TRIES:
        try:
            tries.append(_started(call))
        except RuntimeError:  # the system gives no more threads: the tries under way have to do
            break
        done, _ = wait(tries, timeout=late_s, return_when=FIRST_COMPLETED)
    while True:
        sound = [one for one in tries if one.done() and one.exception() is None]
        waiting = [one for one in tries if not one.done()]
        if sound or not waiting:
            return (sound or tries)[0].result()
        if not wait(waiting, timeout=LIMIT_S, return_when=FIRST_COMPLETED).done:
            raise StorageError(
                f"{len(waiting)} requests have not ended within {LIMIT_S:g} s; the store hangs",
                kind=ErrorKind.STALLED,
            )


def _started(call: Callable[[], T]) -> Future[T]:
    """Start a call in a thread that nobody has to wait for, not even the end of the process."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - the edge of a thread: whoever waits gets it
            future.set_exception(as_error(error))

    threading.Thread(target=run, name="hedged", daemon=True).start()
    return future
