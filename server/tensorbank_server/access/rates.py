"""Limits on callers: requests a minute, and requests at once. A request never queues: 429 says when to come again."""

# Own code rather than the package `limits`: a bucket must give the two numbers of the RateLimit headers and the exact seconds
# of Retry-After with the decision, in one step. `limits` has windows but no token bucket, and answers them by a second question,
# which is a second wait where the count is kept in Redis. `Place` and `Concurrency` have no counterpart there.

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from tensorbank_server.http import Problem

__all__ = ["PLACE", "Allowance", "Concurrency", "Place", "Rates", "decide"]

MAX_CALLERS = 10_000
"""The most callers remembered. The one that was quiet longest is forgotten first; its bucket is full by then."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """The remainder of a rate, told by the headers ``RateLimit`` and ``RateLimit-Policy``.

    They are those of draft-ietf-httpapi-ratelimit-headers.
    """

    name: str
    per_minute: int
    remaining: int
    reset_s: int

    def headers(self) -> dict[str, str]:
        return {
            "RateLimit-Policy": f'"{self.name}";q={self.per_minute};w=60',
            "RateLimit": f'"{self.name}";r={self.remaining};t={self.reset_s}',
        }


def decide(name: str, per_minute: int, left: float, *, is_enough: bool) -> Allowance:
    """Return what is told about a bucket that has ``left`` requests, after one was taken from it.

    Raises
    ------
    Problem
        429 if there was not one, with the seconds until there is.
    """
    rate = per_minute / 60
    allowance = Allowance(name, per_minute, int(left), math.ceil((per_minute - left) / rate))
    if not is_enough:
        wait_s = max(1, math.ceil((1 - left) / rate))
        raise Problem(
            429,
            "rate-limit",
            f"more than {per_minute} {name} a minute; come again in {wait_s} s",
            headers={"Retry-After": str(wait_s), **allowance.headers()},
        )
    return allowance


class Rates:
    """A token bucket for each caller, in this process. For one thread: the event loop's.

    Parameters
    ----------
    per_minute
        Requests; a caller that was quiet may spend them at once.
    clock
        Monotonic seconds.
    """

    def __init__(self, name: str, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self.per_minute = per_minute
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def spend(self, caller: str) -> Allowance:
        """Take one request from a caller's bucket.

        Raises
        ------
        Problem
            429, with the seconds until there is one again.
        """
        now_s = self._clock()
        left, then_s = self._buckets.get(caller, (float(self.per_minute), now_s))
        left = min(float(self.per_minute), left + (now_s - then_s) * self.per_minute / 60)
        is_enough = left >= 1
        left -= 1 if is_enough else 0
        self._keep(caller, left, now_s)
        return decide(self.name, self.per_minute, left, is_enough=is_enough)

    def fill(self, caller: str, left: float) -> None:
        """Say how many requests a caller has left, as another count knows it."""
        self._keep(caller, min(float(self.per_minute), left), self._clock())

    def _keep(self, caller: str, left: float, now_s: float) -> None:
        self._buckets.pop(caller, None)  # the order is that of the last request
        self._buckets[caller] = (left, now_s)
        while len(self._buckets) > MAX_CALLERS:
            self._buckets.pop(next(iter(self._buckets)))


class Place:
    """A request's place among those that run at once. It is left while the request waits for something else."""

    def __init__(self, of: Concurrency, caller: str) -> None:
        self.caller = caller
        self._of = of
        self._n_waits = 0
        self._is_given_back = False
        of.count(caller, 1)

    def leave(self) -> None:
        """Begin to wait; several waits at once count as one."""
        self._n_waits += 1
        if self._n_waits == 1 and not self._is_given_back:
            self._of.count(self.caller, -1)

    def come_back(self) -> None:
        """End a wait."""
        self._n_waits -= 1
        if self._n_waits == 0 and not self._is_given_back:
            self._of.count(self.caller, 1)

    def give_back(self) -> None:
        """Give the place back for good."""
        if self._n_waits == 0 and not self._is_given_back:
            self._of.count(self.caller, -1)
        self._is_given_back = True


PLACE: ContextVar[Place | None] = ContextVar("place", default=None)
"""The place of the request that the current task works for."""


class Concurrency:
    """A limit on the requests that run at once. For one thread: the event loop's."""

    def __init__(self, max_total: int, max_per_caller: int) -> None:
        self.max_total = max_total
        self.max_per_caller = max_per_caller
        self.n_running = 0
        self._of: Counter[str] = Counter()

    def count(self, caller: str, n: int) -> None:
        """Add to the number of a caller's requests."""
        self.n_running += n
        self._of[caller] += n
        if not self._of[caller]:
            del self._of[caller]

    @contextmanager
    def slot(self, caller: str) -> Iterator[Place]:
        """Hold a place for one request.

        Raises
        ------
        Problem
            429 where this caller has too many, 503 where all have together.
        """
        if self._of[caller] >= self.max_per_caller:
            raise Problem(
                429,
                "too-many-at-once",
                f"more than {self.max_per_caller} requests at once; send the next when one has ended",
                headers={"Retry-After": "1"},
            )
        if self.n_running >= self.max_total:
            raise Problem(503, "overloaded", "the service is busy; come again", headers={"Retry-After": "1"})
        place = Place(self, caller)
        try:
            yield place
        finally:
            place.give_back()
