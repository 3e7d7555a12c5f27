"""The index files of one bank that are read by ranges: opened once, and remembered."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from dataclasses import dataclass
from functools import partial

from tensorbank.pieces.column_places import ColumnPlaces
from tensorbank.pieces.kept_pieces import KeptPieces
from tensorbank.pieces.ranged_file import RangedFile
from tensorbank.storage import LATE_S, Store

__all__ = ["OpenedFile", "RangedFiles"]

MAX_FILES = 4096
"""The most files that are remembered; each takes some ten kilobytes for the checksums of 50 MB and the places of columns."""
SLOW_BYTES_S = 4 << 20
"""Bytes per second of a network on which bytes that are still coming are not late."""


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """A file whose tail is proved: the name by which DuckDB knows it, and where its columns lie."""

    name: str
    file: RangedFile
    places: ColumnPlaces


class RangedFiles:
    """The files of one store. May be used by many threads at once.

    They are remembered by what a commit says of them, whatever that is.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._turn = threading.Lock()
        self._opened: dict[Hashable, OpenedFile] = {}

    def find(self, said: Hashable) -> OpenedFile | None:
        """Return a file that is remembered, whose copy is used now; None of any other."""
        found = self._opened.get(said)
        if found is not None:
            found.file.kept.touch()
        return found

    def open(self, key: str, kept: KeptPieces, checksum: int, *, tail_bytes: int) -> RangedFile | None:
        """Return a file once its tail is here and proved; None if it is to be read as a whole.

        Parameters
        ----------
        kept
            Copy of what came of it.
        checksum
            CRC-32C of the whole file.
        tail_bytes
            Guess of how long the tail is.
        """
        file = RangedFile(f"{self._store.url}/{key}", kept, checksum, partial(self._fetch, key))
        if not file.open(tail_bytes):
            return None
        kept.touch()
        return file

    def keep(self, said: Hashable, opened: OpenedFile) -> OpenedFile:
        """Remember a file, and return it, or the one that is remembered already."""
        with self._turn:
            found = self._opened.setdefault(said, opened)
            if len(self._opened) > MAX_FILES:
                del self._opened[next(iter(self._opened))]
        return found

    def forget(self, said: Hashable) -> None:
        """Forget a file, as one that is read as a whole from now on."""
        with self._turn:
            self._opened.pop(said, None)

    def _fetch(self, key: str, start: int, n_bytes: int) -> memoryview:
        return self._store.get_piece(key, start, start + n_bytes, LATE_S + n_bytes / SLOW_BYTES_S)
