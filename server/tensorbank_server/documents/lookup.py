"""Rows of a samples table by sample id, found without a query.

A table at a version never changes, so what is found out about it is kept in files: its ids, sorted, and the columns that samples
are served from, one file a row group, made when a sample of it is first asked for. Both are Arrow, mapped into memory, so
that the service stays as small as it is whatever the size of the table.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tensorbank.arrow_numpy import as_arrow
from tensorbank.errors import ErrorKind, NotFoundError
from tensorbank.schema import TableSchema
from tensorbank_server.documents.row_json import Row, finite, readable

__all__ = ["RowFiles", "SampleTable"]

BATCH_ROWS = 512
"""The rows of one batch of a file. Few, since one row is cut out of it at a time."""


class RowFiles:
    """A cache of files of row groups, the least recently used first to go. All tables of a service share it.

    Parameters
    ----------
    folder
        A folder that belongs to this process alone.
    max_bytes
        The most bytes of all files together.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._files: OrderedDict[tuple[str, int], tuple[Path, int, pa.ipc.RecordBatchFileReader]] = (
            OrderedDict()
        )
        self._lock = threading.Lock()
        self._making = threading.Lock()

    def row(self, source: Path, group: int, number: int, modalities: Sequence[str]) -> pa.RecordBatch:
        """Return one row of a row group of a samples file, as a batch of one."""
        batches = self._batches(source, group, modalities)
        return batches.get_batch(number // BATCH_ROWS).slice(number % BATCH_ROWS, 1)

    def _batches(self, source: Path, group: int, modalities: Sequence[str]) -> pa.ipc.RecordBatchFileReader:
        key = (str(source), group)
        with self._lock:
            if key in self._files:
                self._files.move_to_end(key)
                return self._files[key][2]
        with self._making:  # one at a time: two would do the same work
            with self._lock:
                if key in self._files:
                    return self._files[key][2]
            path = _write_group(source, group, modalities, self.folder)
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
            with self._lock:
                self._files[key] = (path, path.stat().st_size, reader)
                self._evict()
            return reader

    def _evict(self) -> None:
        total = sum(n_bytes for _, n_bytes, _ in self._files.values())
        while total > self.max_bytes and len(self._files) > 1:
            _, (path, n_bytes, _) = self._files.popitem(last=False)
            path.unlink(missing_ok=True)  # readers keep their mapping
            total -= n_bytes


def _write_group(source: Path, group: int, modalities: Sequence[str], folder: Path) -> Path:
    """Write the columns of a row group that samples are served from: plain ones, and the addresses of modalities."""
    with pq.ParquetFile(source, memory_map=True) as parquet:
        plain = [
            f.name
            for f in parquet.schema_arrow
            if not pa.types.is_struct(f.type) or f.name in ("bbox", "bounds")
        ]
        present = [m for m in modalities if m in parquet.schema_arrow.names]
        columns = plain + [f"{m}.ref" for m in present]
        table = parquet.read_row_group(group, columns=columns)
    columns_of = {n: table[n] for n in plain}
    for name in present:
        columns_of[name] = pc.struct_field(table[name], "ref")  # null where the modality is
    served = pa.table(columns_of)
    descriptor, name = tempfile.mkstemp(dir=folder, suffix=".rows")
    with os.fdopen(descriptor, "wb") as sink, pa.ipc.new_file(sink, served.schema) as writer:
        writer.write_table(served, max_chunksize=BATCH_ROWS)
    return Path(name)


@dataclass(frozen=True)
class SampleTable:
    """The samples of one table at one version, found by their ids.

    Parameters
    ----------
    paths
        Samples files of the table, on this machine.
    starts
        (n_files + 1,) number of the first row of each file.
    ids
        Sorted sample ids, mapped.
    rows
        (n,) number of the row of each of ``ids``.
    """

    table: str
    version: int
    schema: TableSchema
    paths: tuple[Path, ...]
    starts: tuple[int, ...]
    ids: pa.Array
    rows: npt.NDArray[np.int64]
    groups: tuple[tuple[int, ...], ...]
    files: RowFiles

    @classmethod
    def open(
        cls,
        table: str,
        version: int,
        schema: TableSchema,
        paths: Sequence[Path],
        files: RowFiles,
        deleted: pa.Table | None = None,
    ) -> SampleTable:
        """Read the ids of all files and sort them, without those of ``deleted`` rows, which have their ``key`` and ``part``."""
        keys = [] if deleted is None else ["key", "part"]
        found, starts, groups = [], [0], []
        for path in paths:
            with pq.ParquetFile(path, memory_map=True) as parquet:
                found.append(parquet.read(columns=["sample_id", *keys]))
                meta = parquet.metadata
                groups.append(tuple(meta.row_group(g).num_rows for g in range(meta.num_row_groups)))
            starts.append(starts[-1] + sum(groups[-1]))
        every = pa.concat_tables(found) if found else pa.table({"sample_id": pa.array([], pa.string())})
        every = every.append_column("row", as_arrow(np.arange(len(every), dtype=np.int64)))
        if deleted is not None:
            every = every.join(deleted, ["key", "part"], join_type="left anti")
        ids = every["sample_id"].combine_chunks().cast(pa.large_string())
        order = pc.array_sort_indices(ids)
        numbers = every["row"].combine_chunks().take(order)
        mapped = _mapped(pa.table({"id": ids.take(order), "row": numbers}), files.folder)
        return cls(
            table,
            version,
            schema,
            tuple(paths),
            tuple(starts),
            mapped["id"].chunk(0) if mapped.num_rows else pa.array([], pa.large_string()),
            mapped["row"].to_numpy() if mapped.num_rows else np.zeros(0, np.int64),
            tuple(groups),
            files,
        )

    def __len__(self) -> int:
        return len(self.ids)

    def find(self, sample_id: str, split: str | None = None) -> list[Row]:
        """Return the rows of an id as dictionaries, of one split if it is given. A modality is its address or None.

        Raises
        ------
        NotFoundError
            There is no such sample.
        """
        first = self._first(sample_id)
        found = []
        while first < len(self.ids) and self.ids[first].as_py() == sample_id:
            found.append(self._row(int(self.rows[first])))
            first += 1
        found = [row for row in found if split is None or row["split"] == split]
        if not found:
            raise NotFoundError(
                f"table {self.table} has no sample {sample_id!r}", kind=ErrorKind.UNKNOWN_SAMPLE
            )
        return found

    def _first(self, sample_id: str) -> int:
        """Return the position of the first id that is not smaller, in the order of UTF-8, by which Arrow sorts."""
        wanted = sample_id.encode()
        low, high = 0, len(self.ids)
        while low < high:
            middle = (low + high) // 2
            if self.ids[middle].as_py().encode() < wanted:
                low = middle + 1
            else:
                high = middle
        return low

    def _row(self, number: int) -> Row:
        file = int(np.searchsorted(self.starts, number, side="right")) - 1
        number -= self.starts[file]
        group = 0
        while number >= self.groups[file][group]:
            number -= self.groups[file][group]
            group += 1
        batch = self.files.row(self.paths[file], group, number, self.schema.names)
        # an index that others wrote may hold infinities: whoever is served the row need not know of them
        row: dict[str, Any] = finite(readable(batch)[0])
        for name in self.schema.names:
            row.setdefault(name, None)
        return row


def _mapped(table: pa.Table, folder: Path) -> pa.Table:
    """Copy rows to a file without a name and map it: memory that the kernel may take back."""
    if not table.num_rows:
        return table
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".ids") as target:
        with pa.ipc.new_file(target, table.schema) as writer:
            writer.write_table(table.combine_chunks())
        target.flush()
        return pa.ipc.open_file(pa.memory_map(target.name)).read_all()
