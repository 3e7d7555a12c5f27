"""Local files that stay open, for reads at any position by any thread."""

from __future__ import annotations

import os
from collections import OrderedDict
from threading import Lock

__all__ = ["Descriptors"]

MAX_OPEN_FILES = 128


class _Descriptor:
    """An open file that closes when nobody refers to it any more, so that evicting it disturbs no reader."""

    __slots__ = ("number",)

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


class Descriptors:
    """The files read last, at most ``MAX_OPEN_FILES``. May be used by several threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._open: OrderedDict[str, _Descriptor] = OrderedDict()

    def read(self, path: str, start: int, end: int) -> bytes:
        """Return the bytes ``[start, end)`` of a file, fewer if it ends before.

        Raises
        ------
        OSError
            The file cannot be opened or read.
        """
        descriptor = self._descriptor(path)
        data = os.pread(descriptor.number, end - start, start)
        if len(data) in (0, end - start):
            return data
        # Linux reads at most 2 GiB at a time.
        parts = [data]
        position = start + len(data)
        while position < end and (more := os.pread(descriptor.number, end - position, position)):
            parts.append(more)
            position += len(more)
        return b"".join(parts)

    def close(self) -> None:
        """Forget all files; those in use close when their reads end."""
        with self._lock:
            self._open.clear()

    def _descriptor(self, path: str) -> _Descriptor:
        with self._lock:
            found = self._open.get(path)
            if found is None:
                found = self._open[path] = _Descriptor(path)
                if len(self._open) > MAX_OPEN_FILES:
                    self._open.popitem(last=False)
            else:
                self._open.move_to_end(path)
        return found
