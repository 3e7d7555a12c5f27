"""Index files and their logs near the planner: immutable files, copied once from the object store."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tensorbank.errors import IntegrityError, NotFoundError
from tensorbank.hedging import PATIENCE_S, hedged
from tensorbank.index_files import IndexFile
from tensorbank.store import ObjectInfo, Store

__all__ = ["LOG", "IndexMirror", "LogCopy", "default_cache_folder"]

N_THREADS = 16
SLOW_BYTES_S = 4 << 20
"""Of a network on which a file that is still coming is not late."""
LOG = "_delta_log"
"""Folder of a Delta table's log."""
_COMMIT = re.compile(r"(\d{20})\.json")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint\.parquet")
_OF_VERSION = re.compile(r"(\d{20})\.")


def default_cache_folder() -> Path:
    """Where index files are mirrored if nobody says otherwise."""
    return Path.home() / ".cache" / "tensorbank"


@dataclass(frozen=True, slots=True)
class LogCopy:
    """A Delta log that is complete up to ``version`` below ``folder``, which may hold none of the table's files.

    ``first`` is of the log's first file: another one if the table was made anew.
    """

    folder: Path
    version: int
    first: str


class IndexMirror:
    """Local copies of index files, and of the logs that name them.

    Files of Delta tables never change and are named by UUID, so a copy is valid for ever and needs no
    check but its length. Copies appear by rename: a killed process leaves nothing that the next would read.
    A ``file://`` bank is read where it lies.

    Parameters
    ----------
    store
        The bank.
    folder
        Root of the local copies; shared by all banks and processes of a user.
    """

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self.folder = folder

    def paths(self, files: Sequence[IndexFile]) -> list[Path]:
        """Local paths of some index files, fetched where needed, in the given order."""
        local = self.store.local_path
        if local is not None:
            return [local / f.key for f in files]
        with ThreadPoolExecutor(N_THREADS) as pool:
            return list(pool.map(self._copy, files, [self._folder / f.key for f in files]))

    def log(self, key: str, version: int | None = None) -> LogCopy:
        """The log of a Delta table as it is now, or as it was at a version: one listing, and what is not here yet.

        Files of a log are written once and never changed. A table that was made anew begins with another file, so its log gets
        another folder. ``_last_checkpoint``, which does change, is no more than a hint and stays where it is.

        Raises
        ------
        NotFoundError
            There is no such table, or no such version yet.
        """
        listed = hedged(partial(self.store.objects, f"{key}/{LOG}"))
        files = {info.key.removeprefix(f"{key}/{LOG}/"): info for info in listed}
        commits = [int(m[1]) for m in map(_COMMIT.fullmatch, files) if m]
        if not commits or (version is not None and version > max(commits)):
            raise NotFoundError(
                f"{self.store.url}/{key} has no {'log' if version is None else 'such version'}"
            )
        version = max(commits) if version is None else version
        first = _digest(f"{min(files)}|{files[min(files)].tag}")
        local = self.store.local_path
        if local is not None:
            return LogCopy(local / key, version, first)
        folder = self._folder / key / f"log-{first}"
        wanted = {name: files[name] for name in _needed(files, version)}
        with ThreadPoolExecutor(N_THREADS) as pool:
            list(pool.map(self._copy, wanted.values(), [folder / LOG / name for name in wanted]))
        return LogCopy(folder, version, first)

    @property
    def _folder(self) -> Path:
        return self.folder / _digest(f"{self.store.options.endpoint or ''}|{self.store.url}")

    def _copy(self, file: IndexFile | ObjectInfo, path: Path) -> Path:
        if path.exists() and path.stat().st_size == file.n_bytes:
            return path
        data = hedged(partial(self.store.get, file.key), PATIENCE_S + file.n_bytes / SLOW_BYTES_S)
        if len(data) != file.n_bytes:
            raise IntegrityError(
                f"index file {self.store.url}/{file.key} has {len(data)} bytes, its commit says {file.n_bytes}"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as target:
            try:
                target.write(data)
                target.close()
                Path(target.name).replace(path)
            except BaseException:
                Path(target.name).unlink(missing_ok=True)
                raise
        return path


def _needed(names: Collection[str], version: int) -> list[str]:
    """Files of a log that say what a version holds: the last checkpoint before it, and all after that."""
    checkpoints = [int(m[1]) for m in map(_CHECKPOINT.fullmatch, names) if m]
    base = max((v for v in checkpoints if v <= version), default=0)
    of = {name: int(m[1]) for name in names if (m := _OF_VERSION.match(name))}
    return [name for name, v in of.items() if base <= v <= version]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
