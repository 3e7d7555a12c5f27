"""Rows on the local disk, appended once and then taken by their numbers: what is too much for memory, mapped into it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["SpooledRows"]

BATCH_ROWS = 4096


class SpooledRows:
    """Rows of one schema in a file of the local disk. Append all of them, then take.

    Parameters
    ----------
    path
        File that is made; it belongs to whoever made its folder.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path = path
        self.schema = schema
        self.n_rows = 0
        self._starts: list[int] = []
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._sink, schema)
        self._reader: pa.ipc.RecordBatchFileReader | None = None

    def append(self, rows: pa.Table) -> int:
        """Append rows and return the number of the first."""
        first = self.n_rows
        for batch in rows.combine_chunks().to_batches(max_chunksize=BATCH_ROWS):
            self._starts.append(self.n_rows)
            self._writer.write_batch(batch)
            self.n_rows += batch.num_rows
        return first

    def take(self, numbers: npt.NDArray[np.int64]) -> pa.Table:
        """Return the rows of (n,) numbers, in this order; nothing can be appended afterwards."""
        if self._reader is None:
            self._writer.close()
            self._sink.close()
            self._reader = pa.ipc.open_file(pa.memory_map(str(self.path)))
        order = np.argsort(numbers, kind="stable")
        of_batch = np.searchsorted(np.array(self._starts, np.int64), numbers[order], "right") - 1
        taken = []
        for batch in np.unique(of_batch).tolist():
            inside = numbers[order][of_batch == batch] - self._starts[batch]
            taken.append(self._reader.get_batch(batch).take(pa.array(inside)))
        rows = pa.Table.from_batches(taken, schema=self.schema).combine_chunks()
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        return rows.take(pa.array(back))
