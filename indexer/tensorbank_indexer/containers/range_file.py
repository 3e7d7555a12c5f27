"""A file behind range reads, as libraries want it: an object with ``read`` and ``seek``."""

from __future__ import annotations

import io
from collections.abc import Callable

__all__ = ["RangeFile"]


class RangeFile(io.RawIOBase):
    """A binary file for reading, seekable, of which each read is one range read. For one thread.

    Parameters
    ----------
    read
        Returns the bytes ``[start, end)`` of the file.
    size_bytes
        Size of the file.
    path
        Its name in errors.
    """

    def __init__(self, read: Callable[[int, int], bytes], size_bytes: int, path: str) -> None:
        super().__init__()
        self._read, self._size_bytes, self._path, self._position = read, size_bytes, path, 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position, in bytes from the start."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the position, and return it.

        Raises
        ------
        ValueError
            It would lie before the start, as a damaged footer may ask for.
        """
        position = offset + (0, self._position, self._size_bytes)[whence]
        if position < 0:
            raise ValueError(f"byte {position} of {self._path} was asked for")
        self._position = position
        return position

    def read(self, size: int | None = -1) -> bytes:
        """Return ``size`` bytes from the position on, fewer at the end; all that are left if it is negative or None."""
        end = self._size_bytes if size is None or size < 0 else min(self._position + size, self._size_bytes)
        data = self._read(self._position, end) if end > self._position else b""
        self._position += len(data)
        return data
