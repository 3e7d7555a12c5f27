"""The files of a table of no more than some hundred, in a log that was written here. Pure.

delta-rs takes longer to begin than such a list takes, and each reader and writer needs some. The types of statistics follow from
those of the columns; files of columns of other types than an index has, and logs that are not wholly ours, are read by delta-rs.
Both give the same files, which the tests compare.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tensorbank.arrow_numpy import as_arrow, strings
from tensorbank.delta.advanced_files import SIDES, statistics_of
from tensorbank.delta.own_logs import ADD, REMOVE, seal_of
from tensorbank.delta.reading import VersionState
from tensorbank.index_files import FINITE, LevelFiles, files_of, is_sealed_commit

__all__ = ["read_own_files"]

MAX_BYTES = 1 << 20
"""The most bytes of a checkpoint that is read here; in a longer one delta-rs is quicker."""
_BOUNDED = frozenset(
    {
        *(pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.float64()),
        *(pa.bool_(), pa.string(), pa.timestamp("us", "UTC")),
    }
)
"""The types of columns whose bounds are values of the same type."""


def _bounds_of(columns: Iterable[pa.Field]) -> list[pa.Field] | None:
    """Return the fields of the bounds of some columns, None if one is of a type that is not understood.

    Lists and bytes have no bounds.
    """
    found = []
    for column in columns:
        kind = column.type
        if pa.types.is_list(kind) or pa.types.is_binary(kind):
            continue
        if pa.types.is_struct(kind):
            inner = _bounds_of(kind)
            if not inner:
                return None
            kind = pa.struct(inner)
        elif kind not in _BOUNDED:
            return None
        found.append(column.with_type(kind))
    return found


def read_own_files(
    state: VersionState, level: str, files: Mapping[str, bytes], key: str, where: str
) -> LevelFiles | None:
    """Return the files of a version; None if it has none, a column of another type, or a log that is not wholly ours.

    Parameters
    ----------
    files
        The files of the log by name, compared with their checksums: the checkpoint first, then the commits in their order.
    key, where
        Key and URL of the table.
    """
    bounds = _bounds_of(state.columns)
    if not bounds:
        return None
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
    rows = statistics_of(pa.schema([pa.field(side, pa.struct(bounds)) for side in SIDES]), there)
    if not there or rows is None:
        return None
    sizes = as_arrow(np.array([int(file["size"]) for file in there.values()], np.int64))
    told = pa.Table.from_arrays(
        [strings(list(there)), sizes, *rows.columns], names=["path", "size_bytes", "num_records", *SIDES]
    )
    found, statistics = files_of(told, key, where)
    finite = FINITE in state.transactions
    return LevelFiles(level, state.table_id, state.version, found, statistics, finite)


def _in_checkpoint(data: bytes) -> list[Mapping[str, Any]]:
    """Return path, size and statistics of the files that a checkpoint has."""
    with pq.ParquetFile(pa.BufferReader(data)) as file:
        rows = file.read(["add.path", "add.size", "add.stats"], use_threads=False)
    return list(rows["add"].drop_null().to_pylist())
