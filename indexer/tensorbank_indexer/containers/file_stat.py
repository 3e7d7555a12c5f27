"""The size of a source's file, and the tag that changes when it is rewritten."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tensorbank.errors import StorageError

__all__ = ["FileStat", "stat_of"]


@dataclass(frozen=True, slots=True)
class FileStat:
    """The size of a file in bytes, and a tag that changes when it is rewritten: the store's ETag or ``mtime-<ns>-<size>``."""

    path: str
    size_bytes: int
    etag: str


def stat_of(path: str, info: Mapping[str, Any]) -> FileStat:
    """Return what fsspec's ``info`` tells of a file.

    Raises
    ------
    StorageError
        It does not tell the size.
    """
    size = info.get("size")
    if size is None:
        raise StorageError(f"The server does not tell the size of {path}; it has to send Content-Length.")
    tag = info.get("ETag") or info.get("etag") or info.get("md5Hash")
    if not tag:
        changed = (
            info.get("LastModified")
            or info.get("Last-Modified")
            or info.get("mtime")
            or info.get("created")
            or ""
        )
        tag = f"mtime-{changed}-{size}"
    return FileStat(path, int(size), str(tag).strip('"'))
