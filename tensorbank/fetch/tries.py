"""Tries of one range, one after another, until its bytes come or there is no hope.

This is the one layer that repeats a ranged read (:mod:`tensorbank.storage.retries`), and its patience is the deadline. It does
not use :func:`tensorbank.storage.retrying`, since its pauses end early: with the first answer to any read, or when the reader is
closed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import NamedTuple

from tensorbank.errors import ErrorKind, StorageError, as_error
from tensorbank.fetch.outage import Outage
from tensorbank.fetch.races import Race
from tensorbank.fetch.range_reader import RangeReader
from tensorbank.storage import MAX_PAUSE_S, PASSING, RetryPolicy

__all__ = ["FIRST_PAUSE_S", "MAX_PAUSE_WHEN_AWAY_S", "Outcome", "Tries", "over_time", "range_policies"]

N_SHORT_TRIES = 4
"""The most tries of a read that brings too few bytes:
that is the object's fault far more often than the network's."""
FIRST_PAUSE_S = 0.02
"""Seconds before the second try; doubled each time.
A lost connection or a cut body, which are the usual reasons, should cost no more than a slow answer."""
MAX_PAUSE_WHEN_AWAY_S = 5.0
"""Seconds of the longest pause while a store is out of reach; the first answer ends all such pauses."""
FIRST_PAUSE_WHEN_BUSY_S = 0.25
"""Seconds before the second try with a store that is busy and does not say for how long."""
MAX_TRY_S = 30.0
"""The most seconds that one try counts for: it took longer only if the process was suspended,
which is not the store's fault."""


class Outcome(NamedTuple):
    """The end of the tries: bytes or an error, and the seconds that the last try took, if it brought bytes."""

    data: memoryview | None
    error: Exception | None
    seconds: float


class Tries:
    """A reader of single ranges that tries again. May be used from many threads at once.

    Parameters
    ----------
    ranges
        Reader that tries once.
    patience_s
        Seconds that a read waits for a store that is out of reach or busy.
    """

    def __init__(self, ranges: RangeReader, patience_s: float) -> None:
        self.outage = Outage(ranges.url, patience_s)
        self.n_retries = 0
        self._n_waiting = 0
        self._ranges = ranges
        self._policies = range_policies(patience_s)
        self._lock = threading.Lock()

    def outcome(self, race: Race, closing: threading.Event) -> Outcome:
        """Ask for a range until it comes, or somebody else has it, or there is no hope.

        A request beside a late one has no patience of its own: it counts what the race has waited.

        Parameters
        ----------
        closing
            Event that ends all pauses.
        """
        wanted, n_retries, waited_s = race.wanted.range, 0, race.age_s
        while True:
            started_s = time.perf_counter()
            try:
                data = self._ranges.get_range(wanted.key, wanted.start, wanted.end)
            except StorageError as error:
                waited_s += min(time.perf_counter() - started_s, MAX_TRY_S)
                race.last_error = error
                policy = self._policies.get(error.kind)
                pause_s = None if policy is None else policy.pause_s(n_retries, waited_s, error.retry_after_s)
                if pause_s is None:
                    return Outcome(None, over_time(error, waited_s) if n_retries else error, 0.0)
                if race.is_decided or not self._paused(race, error, pause_s, closing):
                    return Outcome(None, error, 0.0)
                waited_s += pause_s
                n_retries += 1
            except BaseException as error:  # noqa: BLE001 - the edge of a thread: whoever waits gets it
                return Outcome(None, as_error(error), 0.0)
            else:
                self.outage.end()
                return Outcome(data, None, time.perf_counter() - started_s)

    def _paused(self, race: Race, error: StorageError, pause_s: float, closing: threading.Event) -> bool:
        """Wait before another try; False if the reader was closed meanwhile, or somebody else has brought the range."""
        race.resumes_s = time.perf_counter() + pause_s
        with self._lock:
            self._n_waiting += 1
        if error.kind in PASSING:
            self.outage.note(error, self._n_waiting)
        may_wake = error.kind == ErrorKind.UNREACHABLE  # a store that is busy wants to be left alone
        is_closing = self.outage.pause(pause_s, closing, may_wake=may_wake)
        goes_on = not is_closing and not race.is_decided
        with self._lock:
            self._n_waiting -= 1
            self.n_retries += goes_on
        return goes_on


def range_policies(patience_s: float) -> Mapping[str, RetryPolicy]:
    """Return the policies of ranged reads, by kind of error, for a reader that waits for so many seconds."""
    return {
        ErrorKind.UNREACHABLE: RetryPolicy(FIRST_PAUSE_S, MAX_PAUSE_WHEN_AWAY_S, patience_s),
        ErrorKind.THROTTLED: RetryPolicy(FIRST_PAUSE_WHEN_BUSY_S, MAX_PAUSE_S, patience_s),
        ErrorKind.SHORT_READ: RetryPolicy(FIRST_PAUSE_S, MAX_PAUSE_WHEN_AWAY_S, patience_s, N_SHORT_TRIES),
    }


def over_time(error: StorageError, waited_s: float) -> StorageError:
    """Return the same error with the seconds that were spent on trying again."""
    told = StorageError(f"{error}; tried again for {waited_s:.0f} s (patience_s)", kind=error.kind)
    told.retry_after_s = error.retry_after_s
    told.__cause__ = error
    return told
