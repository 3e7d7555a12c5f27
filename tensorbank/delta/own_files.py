"""The files of a small table, such as that of keys, in a log that was written here. Pure.

delta-rs takes longer to begin than such a list takes, and each writer needs one. The types of statistics are known for columns of
whole numbers and texts; files of other columns, and logs that are not wholly ours, are read by delta-rs. Both give the same
files, which the tests compare.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tensorbank.delta.advanced_files import SIDES, statistics_of
from tensorbank.delta.own_logs import ADD, REMOVE, seal_of
from tensorbank.delta.reading import VersionState
from tensorbank.index_files import FINITE, LevelFiles, files_of, is_sealed_commit

__all__ = ["has_plain_columns", "read_own_files"]

MAX_BYTES = 1 << 20
"""The most bytes of a checkpoint that is read here; in a longer one delta-rs is quicker."""
PLAIN = (pa.int64(), pa.string())


def has_plain_columns(state: VersionState) -> bool:
    """Tell whether a table has only columns whose statistics are understood here."""
    return all(kind in PLAIN for kind in state.columns.types)


def read_own_files(
    state: VersionState, level: str, files: Mapping[str, bytes], key: str, where: str
) -> LevelFiles | None:
    """Return the files of a version with plain columns, None if it has none, or its log is not wholly ours.

    Parameters
    ----------
    files
        The files of the log by name, compared with their checksums: the checkpoint first, then the commits in their order.
    key, where
        Key and URL of the table.
    """
    there: dict[str, Mapping[str, Any]] = {}
    for name, data in files.items():
        if name.endswith(".parquet"):
            if seal_of(name) not in files or len(data) > MAX_BYTES:
                return None
            there |= {file["path"]: file for file in _in_checkpoint(data)}
        elif name.endswith(".json"):
            if not is_sealed_commit(data):
                return None
            for line in data.splitlines():
                if line.startswith(ADD):
                    file = json.loads(line)["add"]
                    there[file["path"]] = file
                elif line.startswith(REMOVE):
                    there.pop(json.loads(line)["remove"]["path"], None)
    bounds = pa.struct(list(state.columns))
    rows = statistics_of(pa.schema([pa.field(side, bounds) for side in SIDES]), there) if there else None
    if rows is None:
        return None
    told = pa.table(
        {
            "path": pa.array(list(there), pa.string()),
            "size_bytes": pa.array([int(file["size"]) for file in there.values()], pa.int64()),
            "num_records": rows["numRecords"],
            **{side: rows[side] for side in SIDES},
        }
    )
    found, statistics = files_of(told, key, where)
    finite = FINITE in state.transactions
    return LevelFiles(level, state.table_id, state.version, found, statistics, finite)


def _in_checkpoint(data: bytes) -> list[Mapping[str, Any]]:
    """Return path, size and statistics of the files that a checkpoint has."""
    with pq.ParquetFile(pa.BufferReader(data)) as file:
        rows = file.read(["add.path", "add.size", "add.stats"], use_threads=False)
    return list(rows["add"].drop_null().to_pylist())
