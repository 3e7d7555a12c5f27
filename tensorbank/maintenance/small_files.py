"""The choice of index files to merge: those that are small, and those that hold rows which do not count. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tensorbank.index_files import ROW_GROUP_ROWS, IndexFile

__all__ = ["FULL_BYTES", "Chosen", "choose"]

FULL_BYTES = 256 << 20
"""The bytes from which on a file of any level is left alone."""
FULL_COLUMN_BYTES = 64 << 20
"""The bytes from which on a file of an added column is left alone."""
FULL_KEYS = 4 << 20
"""The rows from which on a file of keys is left alone."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The files to write anew, by level."""

    files: Mapping[str, tuple[IndexFile, ...]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return any(self.files.values())

    def of(self, level: str) -> tuple[IndexFile, ...]:
        """Return the files of a level."""
        return self.files.get(level, ())


def choose(files: Mapping[str, Sequence[IndexFile]], dead: Mapping[str, frozenset[str]]) -> Chosen:
    """Choose files of some levels.

    Parameters
    ----------
    files
        All files, by level.
    dead
        Keys of the files with rows that go, by level.
    """
    n_samples = sum(f.n_rows for f in files.get("samples", ()))
    n_tiles = sum(f.n_rows for f in files.get("tiles", ()))
    found = {}
    for level, of_level in files.items():
        small = [f for f in of_level if not _is_full(level, f, n_samples / max(n_tiles, 1))]
        gone = dead.get(level, frozenset())
        if len(small) < 2 and not any(f.key in gone for f in small):
            small = []
        chosen = {f.key for f in small} | gone
        found[level] = tuple(f for f in of_level if f.key in chosen)
    return Chosen(found)


def _is_full(level: str, file: IndexFile, samples_per_tile: float) -> bool:
    """Tell whether a file is left alone as it is."""
    if level == "keys":
        return file.n_rows >= FULL_KEYS
    if level.startswith("columns/"):
        return file.n_bytes >= FULL_COLUMN_BYTES
    if file.n_bytes >= FULL_BYTES:
        return True
    if level != "tiles":
        return file.n_rows >= ROW_GROUP_ROWS
    # A file of several parts was merged before, of as many samples as fit into memory, and of a quarter at least.
    n_samples = file.n_rows * samples_per_tile
    return n_samples >= (ROW_GROUP_ROWS if file.part is not None else ROW_GROUP_ROWS // 4)
