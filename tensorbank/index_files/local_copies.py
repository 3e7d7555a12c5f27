"""Files that are copied to the local disk: whether they are still what was copied, and how they appear."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import crc32c as crc

from tensorbank.errors import ErrorKind, IntegrityError, StorageError, TensorBankError
from tensorbank.index_files.checksums import checksum_in_name
from tensorbank.index_files.level_files import IndexFile
from tensorbank.pieces import Room
from tensorbank.storage import LATE_S, ObjectInfo, Store, of_system

__all__ = ["Identity", "WholeCopies", "digest", "disk_error", "identity", "write"]

SLOW_BYTES_S = 4 << 20
"""Bytes per second of a network on which a file that is still coming is not late."""
SUMS = "checksums"
"""The folder of checksums of copies, within that of a bank."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The properties of a file that change when it is written to."""

    n_bytes: int
    written_ns: int
    changed_ns: int
    number: int


def identity(path: Path) -> Identity | None:
    """Return the identity of a file; None if there is none of its own, but nothing, or a link."""
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Identity(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def checksum(data: bytes) -> bytes:
    """Return the checksum and length of a copy, as they are kept in a file."""
    return f"{crc.crc32c(data):08x} {len(data)}\n".encode()


def disk_error(error: OSError, path: Path) -> TensorBankError:
    """Translate an error of the local disk."""
    if isinstance(error, TensorBankError):
        return error
    return of_system(error, f"the copy of an index file, {path}") or StorageError(
        f"{path} cannot be written: {error}", kind=ErrorKind.DISK
    )


def write(path: Path, data: bytes) -> None:
    """Write a file that appears at once."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as target:
        try:
            target.write(data)
            target.close()
            Path(target.name).replace(path)
        except BaseException:
            Path(target.name).unlink(missing_ok=True)
            raise


class WholeCopies:
    """The copies of whole files of one store. May be used by many threads at once.

    Parameters
    ----------
    folder
        Folder below which they lie, each bank's in one of its own.
    room
        The room that those of index files take.
    """

    def __init__(self, store: Store, folder: Path, room: Room) -> None:
        self.store = store
        self.folder = folder
        self._room = room
        self._sound: dict[Path, Identity] = {}

    def bring(self, file: IndexFile | ObjectInfo, path: Path) -> Path:
        """Copy a file to a path, unless a sound copy is there, and return the path.

        Raises
        ------
        IntegrityError
            The store's file has another length than its commit says.
        """
        if isinstance(file, IndexFile):
            self._room.use(path)
        found = identity(path)
        if found is not None:
            if self._sound.get(path) == found:
                return path
            if found.n_bytes == file.n_bytes and (
                checksum_in_name(file.key) is not None or self._is_sound(path)
            ):
                self._sound[path] = found
                return path
        data = self.store.get(file.key, LATE_S + file.n_bytes / SLOW_BYTES_S)
        if len(data) != file.n_bytes:
            raise IntegrityError(
                f"index file {self.store.url}/{file.key} has {len(data)} bytes, but its commit says {file.n_bytes}"
            )
        try:
            write(path, data)
            if (
                checksum_in_name(file.key) is None
            ):  # others are compared with their names, as files in place are
                write(self._sum_of(path), checksum(data))
        except OSError as error:
            raise disk_error(error, path) from error
        self._room.note(len(data))
        if (found := identity(path)) is not None:
            self._sound[path] = found
        return path

    def _is_sound(self, path: Path) -> bool:
        """Return True if a copy is what was fetched; False if nothing tells."""
        try:
            return self._sum_of(path).read_bytes() == checksum(path.read_bytes())
        except OSError:
            return False

    def _sum_of(self, path: Path) -> Path:
        """Return the path at which the checksum of a copy is kept:
        not beside the copy, where delta-rs looks for logs.
        """
        below = path.relative_to(self.folder)
        return self.folder / below.parts[0] / SUMS / Path(*below.parts[1:-1], f"{path.name}.crc32c")


def digest(text: str) -> str:
    """Return 16 hexadecimal digits that stand for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
