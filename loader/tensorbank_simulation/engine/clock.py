"""A clock of events: what is to happen, by its time."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

__all__ = ["Clock"]

Action = Callable[[], None]


class Clock:
    """A clock that goes from one event to the next. Events of one time happen in the order in which they were asked for."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._events: list[tuple[float, int, Action]] = []
        self._numbers = itertools.count()

    def at(self, time_s: float, action: Action) -> None:
        """Do something at a time, which is not before now."""
        heapq.heappush(self._events, (time_s, next(self._numbers), action))

    def after(self, seconds: float, action: Action) -> None:
        """Do something after a while."""
        heapq.heappush(self._events, (self.now_s + seconds, next(self._numbers), action))

    def run(self, is_over: Callable[[], bool]) -> bool:
        """Let events happen until it is over; False if nothing is left to happen before that."""
        events = self._events
        while not is_over():
            if not events:
                return False
            self.now_s, _, action = heapq.heappop(events)
            action()
        return True
