"""Checkpoints of a log: all that a version holds in one file, made by delta-rs in a copy of the log."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from deltalake import DeltaTable

from tensorbank.delta.reading import translated
from tensorbank.index_files import LAST_CHECKPOINT, LOG, LogCopy, checkpoint_name, checkpoint_seal, seal_name
from tensorbank.storage import Store

__all__ = ["CHECKPOINT_INTERVAL", "write_checkpoint"]

CHECKPOINT_INTERVAL = 50
"""The number of versions after which a checkpoint is written: so many small objects a reader fetches beside it at most."""


def write_checkpoint(store: Store, folder: str, log: LogCopy, *, newest: bool = True) -> None:
    """Write the checkpoint of a version of the table below a key: first its checksum, then it, then the hint that names it, if it
    is the ``newest`` one.

    A version that has one keeps it: compaction writes them of all levels, also of those that stayed as they were.

    Raises
    ------
    StorageError
        The store cannot be written. The log is as good without.
    """
    if checkpoint_name(log.version) in log.names:  # delta-rs would write none
        return
    with (
        tempfile.TemporaryDirectory(prefix="tensorbank-") as scratch,
        translated(f"{store.url}/{folder}", store),
    ):
        copied = Path(scratch) / LOG
        copied.mkdir()
        for name in log.names:
            shutil.copyfile(log.folder / LOG / name, copied / name)
        DeltaTable(scratch, version=log.version).create_checkpoint()
        data = (copied / checkpoint_name(log.version)).read_bytes()
        hint = (copied / LAST_CHECKPOINT).read_bytes()
    store.put(f"{folder}/{LOG}/{seal_name(log.version)}", checkpoint_seal(data))
    store.put(f"{folder}/{LOG}/{checkpoint_name(log.version)}", data)
    if newest:
        store.put(f"{folder}/{LOG}/{LAST_CHECKPOINT}", hint)
