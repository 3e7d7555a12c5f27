"""Rows that wait on the disk for their turn, in ranges of their order, since they do not fit into memory together."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tensorbank.arrow_numpy import as_arrow, as_numpy
from tensorbank.errors import TensorBankError
from tensorbank.storage import of_system

__all__ = ["SORT_COLUMN", "SpilledRows"]

SORT_COLUMN = "__place"
"""The column that rows carry until they are written: what they are sorted by, int64."""


class SpilledRows:
    """Rows in a folder, a file a range of their order. Rows may be added from many threads at once.

    Parameters
    ----------
    schema
        Columns of the rows without :data:`SORT_COLUMN`.
    edges
        Smallest number in the sort column of each range but the first, ascending.
    """

    def __init__(self, folder: Path, schema: pa.Schema, edges: Sequence[int] | npt.NDArray[np.int64]) -> None:
        self.schema = schema.append(pa.field(SORT_COLUMN, pa.int64()))
        self.edges = np.asarray(edges, np.int64)
        self.n_rows = np.zeros(len(self.edges) + 1, np.int64)
        self._folder = folder
        self._locks = [threading.Lock() for _ in self.n_rows]
        self._files: dict[int, tuple[pa.NativeFile, pa.ipc.RecordBatchStreamWriter]] = {}

    def __enter__(self) -> SpilledRows:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish()

    def add(self, rows: pa.Table, places: npt.NDArray[np.int64]) -> None:
        """Add rows with the numbers that they are sorted by, (n,)."""
        if len(places) > 1 and (places[1:] < places[:-1]).any():
            order = np.argsort(places, kind="stable")
            rows, places = rows.take(as_arrow(order)), places[order]
        rows = rows.append_column(SORT_COLUMN, as_arrow(places))
        cuts = [0, *np.searchsorted(places, self.edges).tolist(), len(places)]
        for number, (first, last) in enumerate(itertools.pairwise(cuts)):
            if last > first:
                self._append(number, rows.slice(first, last - first))

    def _append(self, number: int, rows: pa.Table) -> None:
        with self._locks[number]:
            self.n_rows[number] += rows.num_rows
            try:
                if number not in self._files:
                    file = pa.OSFile(str(self._path(number)), "wb")
                    options = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
                    self._files[number] = file, pa.ipc.new_stream(file, self.schema, options=options)
                self._files[number][1].write_table(rows)
            except OSError as error:
                raise _of_disk(error, self._path(number)) from error

    def finish(self) -> None:
        """Close the files; rows can be read after that, and none added."""
        for file, writer in self._files.values():
            writer.close()
            file.close()
        self._files.clear()

    def read(self, number: int) -> pa.Table:
        """Return the rows of a range, sorted, and forget them. The sort column is not among them."""
        path = self._path(number)
        if not self.n_rows[number]:
            return self.schema.remove(len(self.schema) - 1).empty_table()
        options = pa.ipc.IpcReadOptions(use_threads=False)
        with pa.OSFile(str(path), "rb") as file:
            batches = list(pa.ipc.open_stream(file, options=options))
        path.unlink()
        columns = [_joined([batch.column(i) for batch in batches]) for i in range(len(self.schema))]
        del batches
        order = np.argsort(as_numpy(columns.pop()), kind="stable")
        rows = pa.Table.from_arrays(columns, schema=self.schema.remove(len(self.schema) - 1))
        return rows.take(as_arrow(order))

    def _path(self, number: int) -> Path:
        return self._folder / f"{number}.arrow"


def _joined(chunks: list[pa.Array]) -> pa.Array:
    return chunks[0] if len(chunks) == 1 else pa.concat_arrays(chunks)


def _of_disk(error: OSError, path: Path) -> TensorBankError | OSError:
    return of_system(error, f"{path}, where compact keeps rows on their way (TMPDIR)") or error
