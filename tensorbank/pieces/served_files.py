"""Files that DuckDB reads through us: a file system of fsspec, whose files are those of a statement's scans.

DuckDB reads a file from several threads by one handle, by a call of ``seek`` and one of ``read``, between which another thread's
may come; so each thread has a place of its own here. It keeps the footers of files whose time of change stays.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import fsspec

from tensorbank.errors import TensorBankError
from tensorbank.pieces.scan import Scan, ServedFile

__all__ = ["ServedFiles"]

_WRITTEN = datetime(2000, 1, 1, tzinfo=UTC)


class ServedFiles(fsspec.AbstractFileSystem):  # type: ignore[misc] # fsspec has no types
    """The files of one statement, by names that begin with ``tensorbank://``.

    ``failure`` is the error that a read raised: to be raised in place of DuckDB's, which only says that it failed.
    """

    protocol = "tensorbank"
    cachable = False

    def __init__(self) -> None:
        super().__init__()
        self._files: dict[str, ServedFile] = {}
        self._scans: list[Scan] = []
        self.failure: TensorBankError | None = None

    def serve(self, files: Mapping[str, ServedFile]) -> None:
        """Serve some files until :meth:`clear`."""
        self._scans += {file.scan for file in files.values()}
        self._files |= files

    def clear(self) -> None:
        """Serve nothing any more."""
        for scan in self._scans:
            scan.close()
        self._files, self._scans = {}, []
        self.failure = None

    def open(self, path: str, mode: str = "rb", **_: Any) -> _Handle:  # noqa: ARG002 - fsspec's signature
        return _Handle(self, self._served(path))

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return {"name": path, "size": self._served(path).n_bytes, "type": "file"}

    def modified(self, path: str) -> datetime:  # noqa: ARG002 - index files never change
        return _WRITTEN

    def glob(self, path: str, **_: Any) -> list[str]:
        """Return the one file of a name: characters of patterns in it are its own."""
        return [path] if path in self._files else []

    def exists(self, path: str, **_: Any) -> bool:
        return path in self._files

    def isfile(self, path: str) -> bool:
        return path in self._files

    def isdir(self, path: str) -> bool:  # noqa: ARG002 - there are no folders
        return False

    def _served(self, path: str) -> ServedFile:
        try:
            return self._files[path]
        except KeyError:
            raise FileNotFoundError(path) from None


class _Handle:
    """An open file, as DuckDB uses one."""

    closed = False

    def __init__(self, files: ServedFiles, file: ServedFile) -> None:
        self._files = files
        self._file = file
        self._place = threading.local()

    def seek(self, start: int, whence: int = 0) -> int:
        if whence == 2:
            start += self._file.n_bytes
        elif whence:
            raise ValueError("a place is counted from the beginning or the end of a file")
        self._place.start = start
        return start

    def read(self, n_bytes: int) -> bytes:
        start = self._place.__dict__.pop("start", None)
        if start is None:  # whose place it would be, nothing tells
            raise ValueError("a thread reads a file without a place of its own")
        try:
            return self._file.read(start, n_bytes)
        except TensorBankError as error:
            self._files.failure = error
            raise

    def tell(self) -> int:
        return int(self._place.start)

    def flush(self) -> None:
        """Do nothing: files are only read."""

    def close(self) -> None:
        """Do nothing: others may read the file."""
