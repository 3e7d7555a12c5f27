"""Locks on byte intervals of numbered objects, between all threads and processes of a node.

They are Linux's open file description locks on one empty file: each object has its own stretch of the file's 2^63 offsets, the
kernel does the arithmetic of overlaps, and a lock ends with the process that holds it, however that ends.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path
from types import TracebackType

__all__ = ["IntervalLocks"]

STRETCH_BITS = 45
"""The number of bits of an offset in an object's stretch of locks: more than a store allows an object.
Objects whose numbers differ by a multiple of 2^17 share a stretch: at worst one waits."""
N_STRETCHES = 1 << 17
_FLOCK = struct.Struct("hhqqi4x")  # struct flock: type, whence, start, length, pid


class IntervalLocks:
    """A set of locks of one holder, who gives all of them back at once:
    by :meth:`release`, or at the end of the context.

    Parameters
    ----------
    path
        The file, which must exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = -1

    def __enter__(self) -> IntervalLocks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Give all locks back."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def try_lock(self, number: int, start: int, end: int) -> bool:
        """Lock bytes ``[start, end)``, not empty, of object ``number``; False if any of them is locked by another holder."""
        if self._file < 0:
            self._file = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        first = (number % N_STRETCHES << STRETCH_BITS) + start
        try:
            fcntl.fcntl(
                self._file, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, first, end - start, 0)
            )
        except (BlockingIOError, PermissionError):
            return False
        return True
