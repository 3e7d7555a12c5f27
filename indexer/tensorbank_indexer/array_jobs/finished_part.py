"""Finished parts: all shards are written, and nothing shows them yet.

Their rows are the checkpoints of their shards; this is the word that all of them are there, with what the history will say.
It lies among the checkpoints, and goes with them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import crc32c as crc

import tensorbank
from tensorbank.errors import NotFoundError
from tensorbank.storage import Store
from tensorbank_indexer.parts import WRITER_VERSION, checkpoint

__all__ = ["FinishedPart", "sealed", "unsealed"]

NAME = "finished.json"


@dataclass(frozen=True, slots=True)
class FinishedPart:
    """A part that waits for its commit.

    Parameters
    ----------
    n_shards
        Shards of the part.
    details
        What the history says of the commit.
    writer, written_by
        The version of the writer, which decides what a part looks like, and that of TensorBank.
    """

    part: str
    n_shards: int
    details: Mapping[str, Any] = field(default_factory=dict)
    writer: int = WRITER_VERSION
    written_by: str = tensorbank.__version__

    def save(self, store: Store, table: str) -> None:
        """Say that the part is finished. Its shards, their checkpoints and its documents lie in the store before."""
        store.put(_key(table, self.part), sealed(asdict(self)))

    @classmethod
    def load(cls, store: Store, table: str, part: str) -> FinishedPart | None:
        """Return what was saved of a part; None if it is not finished, or the word of it is damaged."""
        try:
            found = unsealed(store.get(_key(table, part)))
        except NotFoundError:
            return None
        return None if found is None else cls(**found)


def _key(table: str, part: str) -> str:
    return f"{checkpoint.folder_of(table, part)}/{NAME}"


def sealed(record: Mapping[str, Any]) -> bytes:
    """Return a record as a line of JSON, and a line with its CRC-32C."""
    line = json.dumps(record, sort_keys=True).encode() + b"\n"
    return line + b"%08x\n" % crc.crc32c(line)


def unsealed(data: bytes) -> dict[str, Any] | None:
    """Return the record of :func:`sealed`; None if it is damaged."""
    line, end = data[:-9], data[-9:]
    if end != b"%08x\n" % crc.crc32c(line):
        return None
    record: dict[str, Any] = json.loads(line)
    return record
