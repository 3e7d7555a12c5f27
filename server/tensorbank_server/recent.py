"""A cache of the most recently used values. The longest unused goes first, so a full cache is never emptied at once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

__all__ = ["Recent"]

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """A cache of values by key, of a fixed number. May be used from many threads.

    Parameters
    ----------
    n_max
        The number of values that are kept.
    """

    def __init__(self, n_max: int) -> None:
        self._n_max = n_max
        self._values: OrderedDict[K, V] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: K) -> V | None:
        """Return a value; None if it is not kept."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key]

    def put(self, key: K, value: V) -> V:
        """Keep a value, and return it."""
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            while len(self._values) > self._n_max:
                self._values.popitem(last=False)
        return value

    def drop(self, key: K) -> None:
        """Keep a value no longer; one that is not kept is no error."""
        with self._lock:
            self._values.pop(key, None)
