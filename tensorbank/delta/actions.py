"""The actions of a commit: files added and removed, transactions, and what makes a table. Pure.

Format: https://github.com/delta-io/delta/blob/master/PROTOCOL.md#actions. delta-rs writes appends, deletes and rewrites each by a
commit of its own; here one commit adds, removes, and says to which versions of the other tables it belongs.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from deltalake import Schema

from tensorbank.index_files import IndexFile, LevelFiles, NewFile, statistics_json

__all__ = ["LevelChange", "commit_actions", "creation_actions", "metadata_action"]

Action = dict[str, Any]


@dataclass(frozen=True, slots=True)
class LevelChange:
    """The files that a commit adds to a Delta table, and those that it removes."""

    added: tuple[NewFile, ...] = ()
    removed: tuple[IndexFile, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed)


def commit_actions(
    folder: str, change: LevelChange, transactions: Mapping[str, int], now_ms: int | None = None
) -> list[Action]:
    """Return the actions of a change; ``folder`` is the key of the table in the bank."""
    now_ms = now_ms if now_ms is not None else int(time.time() * 1000)
    removed = [
        {
            "remove": {
                "path": _path(folder, f.key),
                "deletionTimestamp": now_ms,
                "dataChange": True,
                "size": f.n_bytes,
            }
        }
        for f in change.removed
    ]
    added = [
        {
            "add": {
                "path": _path(folder, f.key),
                "partitionValues": {},
                "size": f.n_bytes,
                "modificationTime": now_ms,
                "dataChange": True,
                "stats": f.statistics,
            }
        }
        for f in change.added
    ]
    said = [{"txn": {"appId": name, "version": n, "lastUpdated": now_ms}} for name, n in transactions.items()]
    return [*said, *removed, *added]


def creation_actions(table_id: str, columns: pa.Schema, configuration: Mapping[str, str]) -> list[Action]:
    """Return the actions that make a table."""
    return [
        {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}},
        metadata_action(table_id, columns, configuration),
    ]


def metadata_action(table_id: str, columns: pa.Schema, configuration: Mapping[str, str]) -> Action:
    """Return the action that says the columns of a table."""
    return {
        "metaData": {
            "id": table_id,
            "format": {"provider": "parquet", "options": {}},
            "schemaString": Schema.from_arrow(columns).to_json(),
            "partitionColumns": [],
            "configuration": {"delta.dataSkippingNumIndexedCols": "-1", **configuration},
            "createdTime": int(time.time() * 1000),
        }
    }


def change_between(head: LevelFiles, wanted: LevelFiles, change: LevelChange) -> LevelChange:
    """Return what leads from the newest version of a table to a version of it with a change."""
    removed = {f.key for f in change.removed}
    there = {f.key for f in head.files}
    kept = [i for i, f in enumerate(wanted.files) if f.key not in removed]
    again = [i for i in kept if wanted.files[i].key not in there]
    stay = {wanted.files[i].key for i in kept} | {f.key for f in change.added}
    return LevelChange(
        added=(*readded(wanted, again), *(f for f in change.added if f.key not in there)),
        removed=tuple(f for f in head.files if f.key not in stay),
    )


def readded(files: LevelFiles, places: Sequence[int]) -> Iterable[NewFile]:
    """Yield files of a version as a commit adds them once more."""
    if not places:
        return
    names = files.statistics.column_names
    rows = files.statistics.take(pa.array(places, pa.int64())).to_pylist() if names else [{}] * len(places)
    for place, bounds in zip(places, rows, strict=True):
        file = files.files[place]
        stated = statistics_json(file.n_rows, _known(bounds.get("min")), _known(bounds.get("max")))
        yield NewFile(file.key, file.n_bytes, file.n_rows, stated)


def _known(bounds: Any) -> dict[str, Any]:
    """Return nested bounds without those that are unknown."""
    found = {}
    for name, value in (bounds or {}).items():
        known = _known(value) if isinstance(value, dict) else value
        if known is not None and known != {}:
            found[name] = known
    return found


def _path(folder: str, key: str) -> str:
    return key.removeprefix(f"{folder}/")
