"""A race: one range that is wanted, and the requests for it that are under way. The first answer wins.

::

    open -- begin() -------------------------------------> open, one more request under way
    decided -- begin() ----------------------------------> decided, and no request: it came too late to be a loser
    open -- finish(has_bytes=True) ----------------------> decided by an answer
    open -- finish(has_bytes=False), the last under way -> decided by an error
    open -- decide() ------------------------------------> decided from outside: too old, or the reader was closed

A decided race stays decided, and whoever decides it, and nobody else, tells its end: so it is told once. Requests that are under
way at that moment are its losers: their bytes are thrown away when they come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tensorbank.errors import StorageError
from tensorbank.fetch.read_group import ReadGroup
from tensorbank.ranges import ByteRange

__all__ = ["Deliver", "Race", "Wanted"]

Deliver = Callable[[memoryview], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A range that somebody wants.

    Parameters
    ----------
    deliver
        Function that is called once with the bytes, read-only, in the thread that read them.
    n_asked_bytes
        Bytes that hold wanted blocks, for the statistics.
    spans
        Spans ``[start, end)`` of the object that these bytes are; all if empty.
    again
        This repeats a read that brought a bad block, for the statistics.
    """

    range: ByteRange
    deliver: Deliver
    n_asked_bytes: int = 0
    spans: Sequence[tuple[int, int]] = ()
    again: bool = False


@dataclass(slots=True, eq=False)
class Race:
    """The state of one read. For one thread at a time: callers hold a lock, but where a field says otherwise.

    Parameters
    ----------
    wanted, group, number
        The range, the group of reads that it belongs to, and its number there.
    begun_s, asked_s
        Times of the first request and of the newest one, of ``time.perf_counter``.
    age_s
        Seconds since the first request in which this process ran: those in which it was suspended are nobody's fault.
    n_asked, n_running
        Requests begun so far, and those under way.
    n_losers
        Requests that were under way when the race was decided.
    late_s
        Seconds that it had waited each time that another request was made beside one that was late, summed; 0 if none was.
    resumes_s
        Time at which a pause between two tries ends; before, the read is not late. Written without a lock.
    last_error
        The error of the newest try, without a lock.
    """

    wanted: Wanted
    group: ReadGroup
    number: int
    begun_s: float = 0.0
    asked_s: float = 0.0
    age_s: float = 0.0
    n_asked: int = 0
    n_running: int = 0
    n_losers: int = 0
    late_s: float = 0.0
    is_decided: bool = False
    resumes_s: float = 0.0
    last_error: StorageError | None = None

    def begin(self, now_s: float) -> int:
        """Begin a request; returns its number, from 1 on, or 0 where the race is decided and nothing is to be asked."""
        if self.is_decided:
            return 0
        self.n_asked += 1
        self.n_running += 1
        self.asked_s = now_s
        if self.n_asked == 1:
            self.begun_s = now_s
        return self.n_asked

    def finish(self, *, has_bytes: bool) -> bool:
        """End a request; True if that decides the race. An error does only if no other request may still be answered."""
        self.n_running -= 1
        return (has_bytes or not self.n_running) and self.decide()

    def decide(self) -> bool:
        """Decide the race; False if it was decided before."""
        if self.is_decided:
            return False
        self.is_decided = True
        self.n_losers = self.n_running
        return True
