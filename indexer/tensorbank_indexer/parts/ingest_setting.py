"""The archives and the bank of an ingest: what all of its tasks have in common, wherever they are executed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

from tensorbank.engines import Task
from tensorbank.errors import ErrorKind, InvalidInputError, StorageError, TensorBankError
from tensorbank.reading import forbid_blosc_threads
from tensorbank.storage import Store
from tensorbank_indexer.parts.part_plan import WRITER_VERSION
from tensorbank_indexer.source import Source

__all__ = ["IngestSetting", "SourceTask"]


class SourceTask(Task, Protocol):
    """A task that writes one shard, or lists some archives."""

    @property
    def first_paths(self) -> Sequence[str]:
        """The paths of source files that the task reads first, of which one has to be there; none if it reads none."""
        ...


@dataclass(frozen=True)
class IngestSetting:
    """The setting of the tasks of an ingest; see :class:`tensorbank.engines.Setting`."""

    source: Source
    store: Store
    writer: int = WRITER_VERSION
    """The version of what writes shards, where tasks are given."""

    def require_shareable(self, address: str) -> None:
        """Raise InvalidInputError if the archives lie in a folder that workers elsewhere cannot find."""
        root = _local_root(self.source)
        if root is not None and not root.is_absolute():
            raise InvalidInputError(
                f"workers of {address} do not know which folder {self.source.root!r} is; give its absolute path, which they need "
                "to share"
            )

    def look(self) -> None:
        """Raise TensorBankError if this process writes other shards, or has no such archives."""
        if self.writer != WRITER_VERSION:
            raise TensorBankError(
                f"it writes shards as version {WRITER_VERSION} does, and tasks come from {self.writer}",
                kind=ErrorKind.OTHER_RELEASE,
            )
        root = _local_root(self.source)
        if root is not None and not root.is_dir():
            raise StorageError(f"it has no folder {root}, where the archives are", kind=ErrorKind.NO_FOLDER)

    def look_for(self, task: SourceTask) -> None:
        """Raise StorageError if the source's folder is empty here: to read it would give no sample, and no error either."""
        root = _local_root(self.source)
        if root is None:
            return
        paths = [root / path for path in task.first_paths]
        if paths and not any(path.exists() for path in paths):
            raise StorageError(
                f"it has no file {paths[0]}, which is among the archives", kind=ErrorKind.NO_FOLDER
            )

    def begin(self) -> None:
        """Keep to one thread: there are as many workers as processors."""
        forbid_blosc_threads()


def _local_root(source: Source) -> Path | None:
    """Return the folder of a source; None if it lies elsewhere than on a disk."""
    scheme, separator, path = source.root.rpartition("://")
    if separator and scheme != "file":
        return None
    return Path(unquote(path) if separator else path)
