"""Rows that wait on the disk for their turn, in ranges of their order, since they do not fit into memory together.

Rows of many files are gathered in memory before they are put aside, so that a range gets some thousand at once and not a few.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tensorbank.arrow_numpy import as_arrow, as_numpy
from tensorbank.errors import TensorBankError
from tensorbank.maintenance.level_columns import RUN_COLUMN, TileHalves
from tensorbank.maintenance.sample_order import run_starts
from tensorbank.storage import of_system

__all__ = ["SORT_COLUMN", "SpilledRows", "SpilledTiles"]

SORT_COLUMN = "__place"
"""The column that rows carry until they are written: what they are sorted by, int64."""
GATHERED_BYTES = 128 << 20
"""The bytes of rows that are gathered in memory before they are put aside."""
BUFFER_BYTES = 128 << 10
"""The bytes that a file of rows put aside gathers before it writes: without that each column of each piece is a system call."""
Int64 = npt.NDArray[np.int64]


class SpilledRows:
    """Rows in a folder, a file a range of their order. Rows may be added from many threads at once.

    Parameters
    ----------
    schema
        Columns of the rows without :data:`SORT_COLUMN`.
    edges
        Smallest number in the sort column of each range but the first, ascending.
    """

    def __init__(self, folder: Path, schema: pa.Schema, edges: Sequence[int] | Int64) -> None:
        self.schema = schema.append(pa.field(SORT_COLUMN, pa.int64()))
        self.edges = np.asarray(edges, np.int64)
        self.n_rows = np.zeros(len(self.edges) + 1, np.int64)
        self._folder = folder
        self._lock = threading.Lock()
        self._gathered: list[pa.Table] = []
        self._n_bytes = 0
        self._locks = [threading.Lock() for _ in self.n_rows]
        self._files: dict[int, tuple[pa.NativeFile, pa.ipc.RecordBatchStreamWriter]] = {}

    def __enter__(self) -> SpilledRows:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._put_aside(self._gathered)
        finally:
            self._close()

    def add(self, rows: pa.Table, places: Int64) -> None:
        """Add rows with the numbers that they are sorted by, (n,)."""
        if not rows.num_rows:
            return
        if (places[1:] < places[:-1]).any():
            order = np.argsort(places, kind="stable")
            rows, places = rows.take(as_arrow(order)), places[order]
        rows = rows.append_column(SORT_COLUMN, as_arrow(places))
        with self._lock:
            self._gathered.append(rows)
            self._n_bytes += rows.nbytes
            if self._n_bytes < GATHERED_BYTES:
                return
            gathered, self._gathered, self._n_bytes = self._gathered, [], 0
        self._put_aside(gathered)

    def _put_aside(self, tables: list[pa.Table]) -> None:
        """Append to each range its slices of some tables, each of which is sorted."""
        cuts = []
        for rows in tables:
            inner = np.searchsorted(as_numpy(rows[SORT_COLUMN]), self.edges)
            cuts.append([0, *inner.tolist(), rows.num_rows])
        for number in range(len(self.n_rows)):
            slices = [
                rows.slice(cut[number], cut[number + 1] - cut[number])
                for rows, cut in zip(tables, cuts, strict=True)
                if cut[number + 1] > cut[number]
            ]
            if slices:
                self._append(number, _joined(slices))

    def _append(self, number: int, rows: pa.Table) -> None:
        with self._locks[number]:
            self.n_rows[number] += rows.num_rows
            try:
                if number not in self._files:
                    file = pa.output_stream(
                        str(self._path(number)), compression=None, buffer_size=BUFFER_BYTES
                    )
                    options = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
                    self._files[number] = file, pa.ipc.new_stream(file, self.schema, options=options)
                self._files[number][1].write_table(rows)
            except OSError as error:
                raise _of_disk(error, self._path(number)) from error

    def _close(self) -> None:
        """Close the files; rows can be read after that, and none added."""
        while self._files:
            number, (file, writer) = self._files.popitem()
            try:
                writer.close()
                file.close()
            except OSError as error:
                raise _of_disk(error, self._path(number)) from error

    def pieces(self, number: int, n: int) -> Iterator[pa.Table]:
        """Yield the rows of a range, sorted, at most n at a time, and forget them. The sort column is not among them."""
        if not self.n_rows[number]:
            return
        path = self._path(number)
        options = pa.ipc.IpcReadOptions(use_threads=False)
        with pa.memory_map(str(path)) as file:
            tables = [pa.Table.from_batches([batch]) for batch in pa.ipc.open_stream(file, options=options)]
        path.unlink()
        rows = _joined(tables)
        tables.clear()
        order = np.argsort(as_numpy(rows[SORT_COLUMN]), kind="stable")
        rows = rows.drop_columns([SORT_COLUMN])
        for start in range(0, len(order), n):
            yield pc.take(rows, as_arrow(order[start : start + n]), boundscheck=False)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number}.arrow"


class SpilledTiles:
    """Rows of tiles, put aside in halves: what is the same in all tiles of a sample once, and the rest of each tile.

    Parameters
    ----------
    schema
        Columns of the rows.
    edges
        As those of :class:`SpilledRows`; tiles of one sample lie in one range.
    """

    def __init__(self, folder: Path, schema: pa.Schema, edges: Sequence[int] | Int64) -> None:
        self._halves = TileHalves(schema)
        self._once, self._each = (folder / name for name in ("once", "each"))
        for half in (self._once, self._each):
            half.mkdir()
        self._shared = SpilledRows(self._once, self._halves.once, edges)
        self._own = SpilledRows(self._each, self._halves.each, edges)
        self._lock = threading.Lock()
        self._n_runs = 0

    @property
    def n_rows(self) -> Int64:
        """The rows of each range."""
        return self._own.n_rows

    def __enter__(self) -> SpilledTiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shared.__exit__(kind, error, trace)
        self._own.__exit__(kind, error, trace)

    def add(self, rows: pa.Table, places: Int64) -> None:
        """Add rows with the numbers that they are sorted by, (n,)."""
        starts = self._halves.starts(rows)
        with self._lock:
            first = self._n_runs
            self._n_runs += len(starts)
        once, each = self._halves.apart(rows, starts, first)
        self._shared.add(once, places[starts])
        self._own.add(each, places)

    def pieces(self, number: int, n: int) -> Iterator[pa.Table]:
        """Yield the rows of a range, sorted, at most n at a time, and forget them.

        Texts that repeat are numbers of dictionaries, which have no other words than these rows.
        """
        if not self.n_rows[number]:
            return
        (once,) = self._shared.pieces(number, int(self._shared.n_rows[number]))
        runs = as_numpy(once[RUN_COLUMN])
        by_run = np.argsort(runs, kind="stable")
        runs = runs[by_run]
        for each in self._own.pieces(number, n):
            own = as_numpy(each[RUN_COLUMN])
            starts = run_starts(own)
            which = by_run[np.searchsorted(runs, own[starts])]
            yield self._halves.together(pc.take(once, as_arrow(which), boundscheck=False), starts, each)


def _joined(tables: list[pa.Table]) -> pa.Table:
    """Return the rows of some tables in one piece, each column of one chunk."""
    return pa.concat_tables(tables).combine_chunks()


def _of_disk(error: OSError, path: Path) -> TensorBankError | OSError:
    return of_system(error, f"{path}, where compact keeps rows on their way (TMPDIR)") or error
