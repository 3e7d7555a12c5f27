"""A local file that has some pieces of a stored one, each at its place.

Nothing says which pieces are there: what was never written reads as zeros, and what a disk, a person or a process that was killed
made of a piece is not what its checksum says either. So processes share a copy without a word, and each trusts what it proved.
"""

from __future__ import annotations

import os
from pathlib import Path

from tensorbank.cache import private_folder
from tensorbank.pieces.room import Room

__all__ = ["KeptPieces"]

_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_WRITE = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
FILE_MODE = 0o600


class KeptPieces:
    """A copy of which some bytes are there. May be used by many threads and processes at once.

    Parameters
    ----------
    path
        The file; it may be missing, and may go at any time.
    n_bytes
        Bytes of the whole.
    room
        The room that it takes. On a disk that fails or is full nothing more is kept; what is read then comes from the store.
    """

    def __init__(self, path: Path, n_bytes: int, room: Room) -> None:
        self.path = path
        self.n_bytes = n_bytes
        self._room = room

    @property
    def is_full(self) -> bool:
        """True if nothing more is kept."""
        return self._room.is_full

    def read(self, start: int, n_bytes: int) -> memoryview:
        """Return ``n_bytes`` from ``start`` on, zeros where nothing is there."""
        memory = memoryview(bytearray(n_bytes))
        try:
            file = os.open(self.path, _READ)
        except OSError:
            return memory
        try:
            done = 0
            while done < n_bytes and (n := os.preadv(file, [memory[done:]], start + done)):
                done += n
        except OSError as error:
            self._room.give_up(error)
        finally:
            os.close(file)
        return memory

    def write(self, start: int, data: memoryview) -> None:
        """Write bytes from ``start`` on, if the disk takes them; the file is made where it is missing."""
        if self.is_full:
            return
        try:
            file = self._opened()
            try:
                if os.fstat(file).st_size != self.n_bytes:
                    os.ftruncate(file, self.n_bytes)
                done = 0
                while done < len(data):
                    done += os.pwrite(file, data[done:], start + done)
            finally:
                os.close(file)
        except OSError as error:
            self._room.give_up(error)
        else:
            self._room.note(len(data))

    def touch(self) -> None:
        """Note that the copy is used now."""
        try:
            os.utime(self.path)
        except OSError:
            return

    def _opened(self) -> int:
        try:
            return os.open(self.path, _WRITE, FILE_MODE)
        except FileNotFoundError:
            private_folder(self.path.parent)
            return os.open(self.path, _WRITE, FILE_MODE)
