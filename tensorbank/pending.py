"""Reads that were asked for together, and how far they are.

One object for all of them, not one for each: what a window of thousands of reads would allocate ahead, Python's garbage collector
walks again and again.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping

__all__ = ["Pending"]


class Pending:
    """Keeps account of ``n`` reads, numbered from 0. May be called from many threads."""

    def __init__(self, n: int) -> None:
        self._n_waiting = n
        self._n_running = 0
        self._next = 0
        self._cancelled = False
        self._errors: dict[int, Exception] = {}
        self._changed = threading.Condition()

    def numbers(self) -> Iterator[int]:
        """Reads to start, each once, in order, until they are cancelled. Whoever gets a number owes its :meth:`end`."""
        while True:
            with self._changed:
                if self._cancelled or not self._n_waiting:
                    return
                number = self._next
                self._next += 1
                self._n_waiting -= 1
                self._n_running += 1
            yield number

    def end(self, number: int, error: Exception | None = None) -> None:
        """A read that was started is over."""
        with self._changed:
            self._n_running -= 1
            if error is not None:
                self._errors[number] = error
            if error is not None or not (self._n_running or self._n_waiting) or self._cancelled:
                self._changed.notify_all()

    def cancel(self) -> None:
        """Start no more of them."""
        with self._changed:
            self._cancelled = True
            self._changed.notify_all()

    @property
    def over(self) -> bool:
        """Whether none runs and none will."""
        return not self._n_running and (self._cancelled or not self._n_waiting)

    @property
    def succeeded(self) -> bool:
        """Whether all have ended, and none in an error."""
        return self.over and not self._cancelled and not self._errors

    def wait(self, *, for_all: bool) -> Mapping[int, Exception]:
        """Return when all are over, or, unless ``for_all``, when one has failed; with the errors so far, by number."""
        with self._changed:
            while not self.over and (for_all or not self._errors):
                self._changed.wait()
            return dict(sorted(self._errors.items()))
