"""One limit for the local copies of index files, whole ones and those of some pieces: what was used longest ago goes first.

Pieces go at any time: whoever reads them fetches what is missing. A whole copy is opened by its name, by DuckDB and others, at
some moment after it was handed out; so it stays for :data:`KEEP_S` after that, even beyond the limit. Whoever has it open by then
may read on: an open file outlives its name.
"""

from __future__ import annotations

import logging
import os
import re
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PIECES_FOLDER", "Room"]

KEEP_S = 3600.0
"""Seconds for which a whole copy stays after it was handed out: longer than a statement waits before it opens its files."""
PIECES_FOLDER = "pieces"
"""The folder of copies of some pieces, within that of a bank."""
SHARE = 32
"""The share of the limit, as its denominator, that one process writes before it looks again what all have written."""
_BANK = re.compile(r"[0-9a-f]{16}")
_LOG = "_delta_log"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Copy:
    """A local copy: when it was used last, its bytes on the disk, and whether it may go at any time."""

    used_s: float
    path: str
    n_bytes: int
    is_partial: bool


class Room:
    """The room of one folder of copies. May be used by many threads and processes at once.

    Parameters
    ----------
    folder
        Folder with a folder for each bank.
    max_bytes
        Most bytes of index files in all of them together.

    ``is_full`` says that the disk takes no more pieces: reads go on without.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self.is_full = False
        self._looking = threading.Lock()
        self._n_new_bytes = max_bytes  # nobody has looked yet

    def give_up(self, error: OSError) -> None:
        """Keep no more pieces, on a disk that is full or fails, and warn once."""
        if not self.is_full:
            self.is_full = True
            _log.warning(
                "pieces of index files are not kept in %s any more, reads go on: %s", self.folder, error
            )

    def note(self, n_bytes: int) -> None:
        """Note that a copy grew, and make room now and then."""
        self._n_new_bytes += n_bytes
        if self._n_new_bytes > self.max_bytes // SHARE and self._looking.acquire(blocking=False):
            try:
                self._n_new_bytes = 0
                self.make()
            finally:
                self._looking.release()

    def use(self, path: Path) -> None:
        """Note that a whole copy is handed out. Others compare its bytes anew after that, so it is noted now and then only."""
        with suppress(OSError):
            found = path.lstat()
            if stat.S_ISREG(found.st_mode) and time.time() - found.st_atime > KEEP_S / 4:
                os.utime(path, ns=(time.time_ns(), found.st_mtime_ns))

    def make(self) -> int:
        """Remove copies until the others are within the limit, with some to spare; return the bytes that went."""
        copies = sorted(self._copies(), key=lambda copy: copy.used_s)
        excess = sum(copy.n_bytes for copy in copies) - self.max_bytes
        if excess <= 0:
            return 0
        excess += self.max_bytes // SHARE * 2
        n_bytes = 0
        kept_s = time.time() - KEEP_S
        for copy in copies:
            if n_bytes < excess and (copy.is_partial or copy.used_s < kept_s):
                with suppress(OSError):
                    Path(copy.path).unlink()
                    n_bytes += copy.n_bytes
        _log.info("%d bytes of copies of index files made room in %s", n_bytes, self.folder)
        return n_bytes

    def _copies(self) -> Iterator[_Copy]:
        """Yield all copies of index files, in no order."""
        try:
            banks = [entry.path for entry in os.scandir(self.folder) if _BANK.fullmatch(entry.name)]
        except OSError:
            return
        for bank in banks:
            for folder, folders, names in os.walk(bank):
                if _LOG in folders:
                    folders.remove(_LOG)
                is_partial = Path(folder).relative_to(bank).parts[:1] == (PIECES_FOLDER,)
                for name in names:
                    path = os.path.join(folder, name)  # noqa: PTH118 - thousands of them
                    with suppress(OSError):
                        found = os.lstat(path)
                        if name.endswith(".parquet") and stat.S_ISREG(found.st_mode):
                            used_s = max(found.st_atime, found.st_mtime)
                            yield _Copy(used_s, path, found.st_blocks * 512, is_partial)
