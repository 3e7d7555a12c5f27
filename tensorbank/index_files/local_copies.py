"""Files that are copied to the local disk: whether they are still what was copied, and how they appear."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import crc32c as crc

from tensorbank.errors import ErrorKind, StorageError, TensorBankError
from tensorbank.storage import of_system

__all__ = ["Identity", "checksum", "digest", "disk_error", "identity", "write"]


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


def digest(text: str) -> str:
    """Return 16 hexadecimal digits that stand for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
