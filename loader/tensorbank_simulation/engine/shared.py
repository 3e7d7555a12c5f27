"""Resources that work shares: a processor's cores, a network's bandwidth, and the lock of one interpreter.

All work on a :class:`SharedResource` gets the same rate, so one number says how far all of it is: the amount that each piece
has got since the beginning, its *virtual time*. Work that comes when that is ``v`` is done when it is ``v`` plus its amount, so
that one heap keeps the order in which work ends, whatever comes and goes (processor sharing, Kleinrock 1967).

A :class:`Wire` shares its rate in turns instead: what is no longer than a turn is not slowed down by what comes behind it, so
that small answers arrive in their order.
"""

from __future__ import annotations

import heapq
import itertools
import math

from tensorbank_simulation.engine.clock import Action, Clock

__all__ = ["BURST_BYTES", "OneAtATime", "SharedResource", "Wire"]

BURST_BYTES = 256 << 10
"""The bytes of an answer that a wire carries in one turn: about what a connection has in its buffers, and what
:class:`tensorbank.testing.FaultServer` sends before it looks at others."""

TOLERANCE = 1e-12
"""The share of the time so far that rounding may leave undone: a clock that shows more cannot show so little."""


class SharedResource:
    """A resource whose rate is shared equally by the work that is under way.

    Parameters
    ----------
    rate
        Amount a second for all work together; may be infinite.
    most_each
        The most that one piece of work gets, a second.
    """

    def __init__(self, clock: Clock, rate: float, most_each: float = math.inf) -> None:
        self._clock = clock
        self._rate = rate
        self._most_each = most_each
        self._pending: list[tuple[float, int, Action]] = []
        self._numbers = itertools.count()
        self._virtual = 0.0
        self._at_s = 0.0
        self._look_s = math.inf
        self._version = 0
        self.done = 0.0
        """The amount of all work that was asked for."""

    def add(self, amount: float, action: Action) -> None:
        """Begin a piece of work, and do something when it is done."""
        self.done += amount
        if amount <= 0 or min(self._rate, self._most_each) == math.inf:
            self._clock.after(0.0, action)
            return
        self._pass()
        heapq.heappush(self._pending, (self._virtual + amount, next(self._numbers), action))
        self._plan()

    def _each(self) -> float:
        return min(self._most_each, self._rate / len(self._pending))

    def _pass(self) -> None:
        """Let the time since the last change pass."""
        now_s = self._clock.now_s
        if self._pending:
            self._virtual += (now_s - self._at_s) * self._each()
        self._at_s = now_s

    def _plan(self) -> None:
        """Look when the next work is done. With more work that is only later, and the look that is planned plans another."""
        if not self._pending:
            return
        due_s = self._clock.now_s + self._left_s()
        if due_s < self._look_s:
            self._look_s = due_s
            self._version += 1
            version = self._version
            self._clock.at(due_s, lambda: self._look(version))

    def _look(self, version: int) -> None:
        if version != self._version:
            return
        self._look_s = math.inf
        self._pass()
        pending = self._pending
        while pending and self._left_s() <= TOLERANCE * self._clock.now_s:
            self._clock.after(0.0, heapq.heappop(pending)[2])
        self._plan()

    def _left_s(self) -> float:
        """Return the seconds until the next work is done, if nothing comes or goes."""
        return max(self._pending[0][0] - self._virtual, 0.0) / self._each()


class Wire:
    """A network that carries some bytes of each answer in turn (round robin).

    Parameters
    ----------
    rate
        Bytes a second of all answers together; may be infinite.
    most_each
        The most that one answer gets, a second.
    """

    def __init__(self, clock: Clock, rate: float, most_each: float = math.inf) -> None:
        self._clock = clock
        self._rate = rate
        self._most_each = most_each
        self._free_s = 0.0

    def add(self, n_bytes: float, action: Action) -> None:
        """Begin to carry an answer, and do something when it has come."""
        now_s = self._clock.now_s
        turn = n_bytes if self._rate == math.inf else min(n_bytes, BURST_BYTES)
        self._free_s = max(now_s, self._free_s) + turn / self._rate
        left = n_bytes - turn
        then = action if left <= 0 else lambda: self.add(left, action)
        self._clock.at(max(self._free_s, now_s + turn / self._most_each), then)


class OneAtATime:
    """A resource for one piece of work at a time, in the order in which they come: a lock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._free_s = 0.0
        self.done = 0.0
        """The seconds of all work that was asked for."""

    def add(self, seconds: float, action: Action) -> None:
        """Queue a piece of work, and do something when it is done."""
        self.done += seconds
        self._free_s = max(self._clock.now_s, self._free_s) + seconds
        self._clock.at(self._free_s, action)
