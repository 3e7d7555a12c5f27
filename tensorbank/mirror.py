"""Index files near the planner: immutable Parquet files, copied once from the object store."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tensorbank.errors import IntegrityError
from tensorbank.hedging import PATIENCE_S, hedged
from tensorbank.index_files import IndexFile
from tensorbank.store import Store

__all__ = ["IndexMirror", "default_cache_folder"]

N_THREADS = 16
SLOW_BYTES_S = 4 << 20
"""Of a network on which a file that is still coming is not late."""


def default_cache_folder() -> Path:
    """Where index files are mirrored if nobody says otherwise."""
    return Path.home() / ".cache" / "tensorbank"


class IndexMirror:
    """Local copies of index files.

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
            return list(pool.map(self._copy, files))

    def _copy(self, file: IndexFile) -> Path:
        address = f"{self.store.options.endpoint or ''}|{self.store.url}"
        path = self.folder / hashlib.sha256(address.encode()).hexdigest()[:16] / file.key
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
