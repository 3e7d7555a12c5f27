"""Banks whose index is read by ranges though they are small, from a folder that is treated as a remote store."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import tensorbank as tb
from tensorbank.bank import LocalEngine
from tensorbank.catalog import Catalog
from tensorbank.index_files import MAX_BYTES, IndexMirror
from tensorbank.storage import Store
from tensorbank.storage.object_client import ObjectClient

__all__ = ["RemoteFolder", "index_bytes", "remote_bank", "small_pieces"]

PIECE_BYTES = 512


class RemoteFolder(Store):
    """A folder that is treated as remote: what is fetched is counted, and may be changed on its way.

    Parameters
    ----------
    spoil
        Callable from the key, the first byte and the data of an answer to what comes instead.
    """

    local_path = None

    def __init__(
        self, folder: Path, spoil: Callable[[str, int, memoryview], memoryview] = lambda _k, _s, data: data
    ) -> None:
        super().__init__(folder.resolve().as_uri())
        self.folder = folder
        self.spoil = spoil
        self.ranges: list[tuple[str, int, int]] = []
        self.wholes: list[str] = []
        self._counting = threading.Lock()

    def __getstate__(self) -> dict[str, object]:
        return {"folder": self.folder}

    def _open(self, *, writing: bool = False) -> ObjectClient:
        if self._client is None:
            self._client = ObjectClient.open(self.url, *self.settings(), self.folder)
        return self._client

    def get(self, key: str, late_s: float | None = None) -> bytes:
        data = bytes(self.spoil(key, 0, memoryview(super().get(key, late_s))))
        with self._counting:
            self.wholes.append(key)
        return data

    def get_range(self, key: str, start: int, end: int) -> memoryview:
        data = self.spoil(key, start, super().get_range(key, start, end))
        with self._counting:
            self.ranges.append((key, start, end))
        return data

    @property
    def n_index_bytes(self) -> int:
        """The bytes of index files that came so far."""
        whole = sum((self.folder / key).stat().st_size for key in self.wholes if is_index_file(key))
        return whole + sum(end - start for key, start, end in self.ranges if is_index_file(key))


def is_index_file(key: str) -> bool:
    return key.endswith(".parquet") and "/index/" in key and "_delta_log" not in key


def index_bytes(bank: Path) -> int:
    """Return the bytes of all index files of a bank."""
    return sum(
        p.stat().st_size for p in bank.rglob("*.parquet") if is_index_file(p.relative_to(bank).as_posix())
    )


def remote_bank(store: Store, cache: Path, max_bytes: int = MAX_BYTES) -> tb.Bank:
    """Open the bank of a store, with its copies in a folder."""
    return tb.Bank(LocalEngine(Catalog(store, IndexMirror(store, cache, max_bytes))))


@contextmanager
def small_pieces(**more: Any) -> Iterator[None]:
    """Write and read by ranges what is too small for it otherwise; ``more`` are patches of other names."""
    found = {
        "tensorbank.pieces.summed_writer.PIECE_BYTES": PIECE_BYTES,
        "tensorbank.pieces.summed_writer.WHOLE_BYTES": 0,
        "tensorbank.index_files.mirror.WHOLE_BYTES": 0,
        "tensorbank.pieces.ranged_file.MIN_TAIL_BYTES": 0,
        "tensorbank.pieces.ranged_file.MAX_GAP_BYTES": 0,
        "tensorbank.planning.views.SMALL_BYTES": 0,
        **more,
    }
    with ExitStack() as stack:
        for name, value in found.items():
            stack.enter_context(mock.patch(name, value))
        yield
