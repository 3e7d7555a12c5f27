"""A memory of what versions of tables hold, bounded by bytes: versions never change, but there are ever more."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar, cast

__all__ = ["KnownVersions"]

Value = TypeVar("Value")
NOMINAL_BYTES = 1_000
"""The bytes that an entry counts for beside those of its arrays."""

_UNKNOWN = object()


class KnownVersions:
    """A cache of facts that stay true, of which the least recently used are dropped. May be used from many threads at once.

    Parameters
    ----------
    max_bytes
        The most bytes of all entries together. The newest entry is kept, however large it is.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._entries: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._n_bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable, default: Any = None) -> Any:
        """Return what is known, the default for nothing."""
        with self._lock:
            if key not in self._entries:
                return default
            self._entries.move_to_end(key)
            return self._entries[key][0]

    def keep(self, key: Hashable, value: Value, n_bytes: int = 0) -> Value:
        """Remember a value, whose arrays have so many bytes, and return it."""
        with self._lock:
            self._n_bytes -= self._entries.pop(key, (None, 0))[1]
            self._entries[key] = value, NOMINAL_BYTES + n_bytes
            self._n_bytes += NOMINAL_BYTES + n_bytes
            while self._n_bytes > self.max_bytes and len(self._entries) > 1:
                _, (_, dropped_bytes) = self._entries.popitem(last=False)
                self._n_bytes -= dropped_bytes
        return value

    def found(self, key: Hashable, find: Callable[[], Value]) -> Value:
        """Return a fact, found unless it is known. Two threads that ask for it at once may both find it."""
        known = self.get(key, _UNKNOWN)
        if known is not _UNKNOWN:
            return cast("Value", known)
        value = find()
        return self.keep(key, value, int(getattr(value, "nbytes", 0)))
