"""A cache of encoded files, for the next range of one: GDAL reads a GeoTIFF in several requests."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

__all__ = ["EncodedFiles"]


class EncodedFiles:
    """A cache of encoded files, the least recently used first to go. May be used from many threads.

    Parameters
    ----------
    max_bytes
        The size of all files together, at most; a file that is larger alone is not kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._files: OrderedDict[str, bytes] = OrderedDict()
        self._n_bytes = 0
        self._lock = threading.Lock()

    def get(self, key: str, encode: Callable[[], bytes]) -> bytes:
        """Return a file by its key, encoded now if it is not kept. Two at the same time may both encode it."""
        with self._lock:
            if key in self._files:
                self._files.move_to_end(key)
                return self._files[key]
        made = encode()
        with self._lock:
            if key not in self._files and len(made) <= self._max_bytes:
                self._files[key] = made
                self._n_bytes += len(made)
                while self._n_bytes > self._max_bytes:
                    _, dropped = self._files.popitem(last=False)
                    self._n_bytes -= len(dropped)
        return made
