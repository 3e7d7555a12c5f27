"""Index files that are written anew, one row group after the other, with other columns or other values in them."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tensorbank.catalog import Catalog
from tensorbank.index_files import ROW_GROUP_ROWS, IndexFile, NewFile, disk_error, parquet_writer, upload
from tensorbank.layout import index_key

__all__ = ["rewritten"]


def rewritten(
    catalog: Catalog, table: str, level: str, file: IndexFile, change: Callable[[pa.Table], pa.Table]
) -> NewFile:
    """Write an index file anew; its rows stay in their order, and at most one row group is in memory.

    Parameters
    ----------
    change
        Callable that makes the new rows of a row group; all that it returns have one schema.

    Raises
    ------
    IntegrityError
        The file is not what was written.
    StorageError
        The store cannot be read or written, or the local disk is full.
    """
    with (
        pq.ParquetFile(catalog.path(file)) as parquet,
        tempfile.TemporaryDirectory(prefix="tensorbank-") as scratch,
    ):
        path = Path(scratch) / "rows.parquet"
        try:
            _write(path, map(change, _row_groups(parquet)), parquet.metadata.num_rows)
        except OSError as error:
            raise disk_error(error, path) from error
        return upload(catalog.store, index_key(table, level), path)


def _write(path: Path, tables: Iterator[pa.Table], n_rows: int) -> None:
    first = next(tables)
    with parquet_writer(path, first.schema, n_rows) as writer:
        for rows in itertools.chain((first,), tables):
            writer.write_table(rows, row_group_size=ROW_GROUP_ROWS)


def _row_groups(parquet: pq.ParquetFile) -> Iterator[pa.Table]:
    """Yield the rows of each row group, at least one table."""
    if not parquet.num_row_groups:
        yield parquet.read()
    for group in range(parquet.num_row_groups):
        yield parquet.read_row_group(group)
