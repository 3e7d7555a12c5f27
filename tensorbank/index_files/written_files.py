"""Index files that are written: Arrow rows as Parquet, under a name that says what they hold."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tensorbank.index_files.checksums import index_file_name
from tensorbank.index_files.file_statistics import bounds_of_file, statistics_json
from tensorbank.storage import Store

__all__ = ["NewFile", "ROW_GROUP_ROWS", "parquet_writer", "upload", "write_rows"]

ROW_GROUP_ROWS = 122_880
"""The most rows of a row group."""
COMPRESSION_LEVEL = 3


@dataclass(frozen=True, slots=True)
class NewFile:
    """One index file in the store, which a commit may name. ``statistics`` is the JSON of its add-action."""

    key: str
    n_bytes: int
    n_rows: int
    statistics: str = field(repr=False)


def parquet_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """Open a Parquet file as index files are written; write row groups of :data:`ROW_GROUP_ROWS`."""
    return pq.ParquetWriter(path, schema, compression="zstd", compression_level=COMPRESSION_LEVEL)


def write_rows(store: Store, folder: str, rows: pa.Table | Iterable[pa.Table]) -> NewFile:
    """Write rows as one index file below a key; tables that come one after the other have one schema.

    Raises
    ------
    StorageError
        The store cannot be written.
    """
    tables = iter([rows] if isinstance(rows, pa.Table) else rows)
    first = next(tables)
    with tempfile.TemporaryDirectory(prefix="tensorbank-") as scratch:
        path = Path(scratch) / "rows.parquet"
        with parquet_writer(path, first.schema) as writer:
            for table in (first, *tables) if isinstance(rows, pa.Table) else _chain(first, tables):
                writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
        return upload(store, folder, path)


def _chain(first: pa.Table, rest: Iterable[pa.Table]) -> Iterable[pa.Table]:
    yield first
    yield from rest


def upload(store: Store, folder: str, path: Path) -> NewFile:
    """Put a Parquet file that was just written into the store, below a key and under the name that its content gives it."""
    with pq.ParquetFile(path) as file:
        metadata, schema = file.metadata, file.schema_arrow
        low, high = bounds_of_file(metadata, schema)
    key = f"{folder}/{index_file_name(path)}"
    data = path.read_bytes()
    store.put(key, data)
    return NewFile(key, len(data), metadata.num_rows, statistics_json(metadata.num_rows, low, high))
