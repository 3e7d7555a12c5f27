"""Reads that were asked for together, and how far they are.

One object for all of them, not one for each: what a window of thousands of reads would allocate ahead, Python's garbage collector
walks again and again.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping

from tensorbank.errors import ErrorKind, StorageError

__all__ = ["ReadGroup", "forked"]

LOOK_S = 1.0
"""Seconds between two looks of a waiting thread at whether anything progresses.

Silence is counted in looks rather than read off a clock,
so that a process that was suspended is not taken for one that hangs.
"""


def forked() -> StorageError:
    """Return the error of a child process that uses its parent's threads: none of them came with it."""
    return StorageError(
        "this process was forked after reading had begun, and the reading threads did not come with it; "
        'start workers with multiprocessing_context="forkserver" or "spawn", or open the plan anew in the child',
        kind=ErrorKind.FORKED,
    )


class ReadGroup:
    """An account of ``n`` reads, numbered from 0.
    May be called from many threads of the process that made it.

    Parameters
    ----------
    stall_s
        Silence after which a wait ends in an error: a bound for faults that nobody foresaw, far beyond all time limits of
        reads.
    beats
        Tells a number that changes whenever a read ends, of this or of others before it; what keeps changing is no silence.
    within
        Group that is cancelled with this one.
    """

    def __init__(
        self,
        n: int,
        *,
        stall_s: float = math.inf,
        beats: Callable[[], int] = int,
        within: ReadGroup | None = None,
    ) -> None:
        self._stall_s = stall_s
        self._beats = beats
        self._within = within
        self._pid = os.getpid()
        self._n_waiting = n
        self._n_running = 0
        self._next = 0
        self._cancelled = False
        self._errors: dict[int, Exception] = {}
        self._changed = threading.Condition()

    def numbers(self) -> Iterator[int]:
        """Yield the reads to start, each once, in order, until they are cancelled.
        Whoever gets a number owes its :meth:`end`.
        """
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
        """Note the end of a read that was started."""
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
        if self._within is not None:
            self._within.cancel()

    @property
    def is_cancelled(self) -> bool:
        """True if no more of them is started."""
        return self._cancelled

    @property
    def over(self) -> bool:
        """True if no item runs and none will."""
        return not self._n_running and (self._cancelled or not self._n_waiting)

    @property
    def succeeded(self) -> bool:
        """True if all have ended, and none in an error."""
        return self.over and not self._cancelled and not self._errors

    def wait(self, *, for_all: bool) -> Mapping[int, Exception]:
        """Return when all are over, or, unless ``for_all``, when one has failed; with the errors so far, by number.

        Raises
        ------
        StorageError
            Nothing has ended for ``stall_s``, with kind ``stalled``; or this process is a fork of the one that reads, with kind
            ``forked``.
        """
        if self._pid != os.getpid():  # before the lock, which a thread of the parent may have held
            raise forked()
        with self._changed:
            silent_s, seen = 0.0, self._beats()
            while not self.over and (for_all or not self._errors):
                if self._changed.wait(LOOK_S):
                    continue
                beats = self._beats()
                silent_s, seen = (silent_s + LOOK_S, seen) if beats == seen else (0.0, beats)
                if silent_s >= self._stall_s:
                    raise StorageError(
                        f"{self._n_running} reads are under way and nothing has come for {silent_s:.0f} s, longer than any "
                        "time limit allows; a thread has been lost",
                        kind=ErrorKind.STALLED,
                    )
            return dict(sorted(self._errors.items()))
