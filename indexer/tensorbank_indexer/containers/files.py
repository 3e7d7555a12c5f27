"""A tree of files under one root, in which archives lie, read by byte ranges.

The root is a local folder or any URL that fsspec knows. Local files are read with ``pread`` on descriptors
that stay open; everything else goes through fsspec. A ``SourceFiles`` pickles to its address and options:
descriptors and clients are made lazily, and anew in a process that inherited them by fork.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import quote

import fsspec
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from tensorbank.errors import (
    ErrorKind,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    StorageError,
    nearest,
)
from tensorbank.storage import MAX_PAUSE_S, RetryPolicy, parse_retry_after, retrying
from tensorbank_indexer.containers.descriptors import Descriptors
from tensorbank_indexer.containers.file_stat import FileStat, stat_of
from tensorbank_indexer.containers.index_pages import walk_pages
from tensorbank_indexer.containers.range_file import RangeFile

__all__ = ["SourceFiles"]

N_STAT_THREADS = 16
"""The number of requests for sizes at a time."""
POLICIES: Mapping[str, RetryPolicy] = {
    ErrorKind.THROTTLED: RetryPolicy(first_pause_s=0.5, max_pause_s=MAX_PAUSE_S, deadline_s=60.0, n_tries=5)
}
"""The policy for web servers that are busy, as hubs are that limit rates. File systems of buckets ask again themselves, and an
archive that cannot be reached is reported at once: an ingest resumes."""
BUSY_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
QUOTED = "%/:?#[]@!$&'()*+,;="
"""The characters of a URL that stay as they are;
blanks and the like are percent-encoded, as in the links of index pages."""
T = TypeVar("T")


class SourceFiles:
    """The files under ``root``; paths are relative to it, with forward slashes. May be used by several
    threads.

    Parameters
    ----------
    root
        Folder or URL (``https://``, ``s3://``, ``memory://``, ...).
    options
        Storage options for fsspec, such as ``anon`` or ``endpoint_url``.
    """

    def __init__(self, root: str, options: Mapping[str, Any] | None = None) -> None:
        self.root = root
        self.options = dict(options or {})
        self._forget()

    def _forget(self) -> None:
        self._pid = -1
        self._fs: Any = None
        self._base = ""
        self._descriptors = Descriptors()
        self._stats: dict[str, FileStat] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.root, self.options))

    def __repr__(self) -> str:
        return f"SourceFiles({self.root!r})"

    @property
    def is_local(self) -> bool:
        """True if reads are cheap system calls, not requests."""
        return isinstance(self._filesystem(), LocalFileSystem)

    def beside(self) -> SourceFiles:
        """Return the files of the folder that holds the root."""
        root = self.root.rstrip("/")
        if "://" not in root:
            return SourceFiles(str(Path(root).absolute().parent), self.options)
        return SourceFiles(root.rpartition("/")[0], self.options)

    @property
    def name(self) -> str:
        """The last segment of the root."""
        root = self.root.rstrip("/")
        return PurePosixPath(root if "://" in root else Path(root).absolute()).name

    def walk(self) -> list[str]:
        """Return the paths of all files, sorted.

        Raises
        ------
        NotFoundError
            There is no such root.
        StorageError
            The store refused or cannot be reached.
        """
        fs = self._filesystem()
        self._stats.clear()
        self._descriptors.close()
        if isinstance(fs, LocalFileSystem):
            return sorted(self._walk_local())
        if _is_http(fs):
            return sorted(self._walk_pages(fs))
        return sorted(self._walk_store(fs))

    def stat(self, paths: Iterable[str]) -> list[FileStat]:
        """Return the sizes and tags, in the order of ``paths``; those that the listing told take no request."""
        wanted = list(paths)
        unknown = [path for path in wanted if path not in self._stats]
        if len(unknown) > 1 and not self.is_local:
            with ThreadPoolExecutor(N_STAT_THREADS) as pool:
                found = dict(zip(unknown, pool.map(self._stat, unknown), strict=True))
        else:
            found = {path: self._stat(path) for path in unknown}
        return [found[path] if path in found else self._stats[path] for path in wanted]

    def read(self, path: str, start: int, end: int) -> bytes:
        """Return the bytes ``[start, end)`` of a file.

        Raises
        ------
        NotFoundError
            There is no such file.
        IntegrityError
            The file ends before ``end``.
        StorageError
            The store refused or cannot be reached.
        """
        if end <= start:
            return b""
        fs = self._filesystem()
        if isinstance(fs, LocalFileSystem):
            data = self._calling(path, lambda: self._descriptors.read(self._full(path), start, end))
        else:
            full = self._full(path)
            data = self._calling(path, lambda: fs.cat_file(full, start=start, end=end))
        if len(data) < end - start:
            reason = f"ends at byte {start + len(data)}, but bytes {start} to {end} were asked for"
            raise IntegrityError(f"{self._full(path)} {reason}.")
        if len(data) > end - start:
            reason = (
                f"{len(data)} bytes came for a range of {end - start}; the server has to support HTTP ranges"
            )
            raise StorageError(f"{self._full(path)}: {reason}.")
        return data

    def open(self, path: str, size_bytes: int | None = None) -> RangeFile:
        """Return a file for libraries that want one; each of its reads is a request if files are remote.

        ``size_bytes`` saves asking for it; else what :meth:`read` raises is raised here, too.
        """
        if size_bytes is None:
            size_bytes = self.stat([path])[0].size_bytes
        return RangeFile(partial(self.read, path), size_bytes, path)

    # ------------------------------------------------------------ one store each

    def _filesystem(self) -> Any:
        if self._pid != os.getpid():
            # After a fork: a lock may have been held, a client's threads are gone.
            self._descriptors = Descriptors()
            self._fs, self._base = self._connect()
            self._pid = os.getpid()
        return self._fs

    def _connect(self) -> tuple[Any, str]:
        protocol = self.root.partition("://")[0].partition("::")[0] if "://" in self.root else "file"
        known = fsspec.available_protocols()
        if protocol not in known:
            raise InvalidInputError(
                f"No storage is called {protocol!r}, as in {self.root!r}.{nearest(protocol, known)}"
            )
        try:
            fs, base = url_to_fs(self.root, **self.options)
        except ImportError as error:
            raise InvalidInputError(
                f"Reading {self.root!r} needs a package that is not installed: {error}"
            ) from error
        except TypeError as error:
            raise InvalidInputError(
                f"Storage options for {self.root!r} are not understood: {error}"
            ) from error
        base = base.rstrip("/") or "/"
        return fs, quote(base, safe=QUOTED) if _is_http(fs) else base

    def _full(self, path: str) -> str:
        fs = self._filesystem()
        path = quote(path) if _is_http(fs) else path
        return f"{self._base.rstrip('/')}/{path}" if path else self._base

    def _walk_local(self) -> list[str]:
        if not Path(self._base).is_dir():
            raise NotFoundError(f"There is no folder {self._base}.")

        def refuse(error: OSError) -> None:
            raise StorageError(f"{error.filename} cannot be listed: {error.strerror}.") from error

        paths: list[str] = []
        seen: set[str] = set()
        # Caches of hubs consist of symbolic links; a link to a folder above must not make the walk endless.
        for folder, subfolders, names in os.walk(self._base, onerror=refuse, followlinks=True):
            real = os.path.realpath(folder)
            if real in seen:
                subfolders.clear()
                continue
            seen.add(real)
            relative = os.path.relpath(folder, self._base)
            prefix = "" if relative == "." else relative.replace(os.sep, "/") + "/"
            paths += [prefix + name for name in names]
        return paths

    def _walk_store(self, fs: Any) -> list[str]:
        fs.invalidate_cache()
        found: dict[str, dict[str, Any]] = self._calling("", lambda: fs.find(self._base, detail=True))
        prefix = self._base.rstrip("/") + "/"
        inside = {name: info for name, info in found.items() if name.startswith(prefix)}
        if not inside:
            if not self._calling("", lambda: fs.exists(self._base)):
                raise NotFoundError(f"There is nothing at {self.root}.")
            if found:
                raise NotFoundError(f"{self.root} is a file; the folder of a dataset is needed.")
        for name, info in inside.items():
            path = name[len(prefix) :]
            self._stats[path] = stat_of(path, info)
        return list(self._stats)

    def _walk_pages(self, fs: Any) -> list[str]:
        base = self._base.rstrip("/") + "/"
        return walk_pages(base, lambda url: self._calling("", lambda: fs.ls(url, detail=False)))

    def _stat(self, path: str) -> FileStat:
        fs = self._filesystem()
        full = self._full(path)
        if isinstance(fs, LocalFileSystem):
            found = self._calling(path, Path(full).stat)
            return FileStat(path, found.st_size, f"mtime-{found.st_mtime_ns}-{found.st_size}")
        return stat_of(path, self._calling(path, lambda: fs.info(full)))

    def _calling(self, path: str, function: Callable[[], T]) -> T:
        """Call the store; its many errors become two of ours. A web server that is busy is asked again."""
        return retrying(POLICIES, partial(self._calling_once, path, function))

    def _calling_once(self, path: str, function: Callable[[], T]) -> T:
        try:
            return function()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFoundError(f"There is no {self._full(path)}.") from error
        except _store_errors() as error:
            if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE):
                raise StorageError(
                    f"{self._full(path)} cannot be opened: there are no file descriptors left; "
                    "close other files or raise the limit (ulimit -n).",
                    kind=ErrorKind.NO_DESCRIPTORS,
                ) from error
            failed = StorageError(f"{self._full(path)} cannot be read: {type(error).__name__}: {error}")
            if getattr(error, "status", None) in BUSY_STATUSES:
                failed.kind = ErrorKind.THROTTLED
                failed.retry_after_s = _retry_after_s(error)
            raise failed from error


def _retry_after_s(error: BaseException) -> float | None:
    """Return the pause that an answer of aiohttp asks for."""
    headers = getattr(error, "headers", None) or {}
    return parse_retry_after(headers.get("Retry-After"), datetime.now(UTC))


def _is_http(fs: Any) -> bool:
    protocol = fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,)
    return "http" in protocol or "https" in protocol


def _store_errors() -> tuple[type[BaseException], ...]:
    """Return the errors that the clients loaded in this process raise when the network or the store fails."""
    names = (
        ("aiohttp", "ClientError"),
        ("botocore.exceptions", "BotoCoreError"),
        ("botocore.exceptions", "ClientError"),
    )
    loaded = [getattr(sys.modules[module], name) for module, name in names if module in sys.modules]
    return (OSError, asyncio.TimeoutError, *loaded)
