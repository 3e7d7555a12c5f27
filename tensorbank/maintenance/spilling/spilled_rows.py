"""Rows that wait on the disk for their turn, in ranges of their order.

Rows of many files are gathered in memory before they are put aside, so that a range gets some thousand at once and not a few.

All but floats are compressed. LZ4 makes floats a fifth shorter, and takes nine times as long as to write them as they are; of all
else in tiles it leaves a fiftieth, and is quicker than to write all of it.
"""

from __future__ import annotations

import itertools
import resource
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
from tensorbank.maintenance.spilling.column_parts import ColumnParts
from tensorbank.storage import of_system

__all__ = ["SORT_COLUMN", "SpilledRows", "SpilledTiles", "max_ranges"]

SORT_COLUMN = "__place"
"""The column that rows carry until they are written: what they are sorted by, int64."""
GATHERED_BYTES = 128 << 20
"""The bytes of rows that are gathered in memory before they are put aside."""
BUFFER_BYTES = 128 << 10
"""The bytes that a file of rows put aside gathers before it writes: without that each column of each piece is a system call."""
SPARE_FILES = 256
"""The files that may be open beside those of ranges."""
MAX_RANGES = 512
Int64 = npt.NDArray[np.int64]
Stream = tuple[pa.NativeFile, pa.ipc.RecordBatchStreamWriter]


def max_ranges(files_per_range: int) -> int:
    """Return the most ranges of rows that are put aside at once, whose files are all open meanwhile."""
    n_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if n_files == resource.RLIM_INFINITY:
        return MAX_RANGES
    return min(MAX_RANGES, max((n_files - SPARE_FILES) // files_per_range, 1))


class SpilledRows:
    """Rows in a folder, two files a range of their order. Rows may be added from many threads at once.

    Parameters
    ----------
    schema
        Columns of the rows without :data:`SORT_COLUMN`.
    edges
        Smallest number in the sort column of each range but the first, ascending.
    """

    FILES_PER_RANGE = 2
    """The floats and the others."""

    def __init__(self, folder: Path, schema: pa.Schema, edges: Sequence[int] | Int64) -> None:
        self._parts = ColumnParts(schema.append(pa.field(SORT_COLUMN, pa.int64())))
        self.edges = np.asarray(edges, np.int64)
        self.n_rows = np.zeros(len(self.edges) + 1, np.int64)
        self._folder = folder
        self._lock = threading.Lock()
        self._gathered: list[pa.Table] = []
        self._n_bytes = 0
        self._locks = [threading.Lock() for _ in self.n_rows]
        self._files: dict[Path, Stream] = {}

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
        rows = rows.append_column(SORT_COLUMN, as_arrow(places))
        with self._lock:
            self._gathered.append(rows)
            self._n_bytes += rows.nbytes
            if self._n_bytes < GATHERED_BYTES:
                return
            gathered, self._gathered, self._n_bytes = self._gathered, [], 0
        self._put_aside(gathered)

    def _put_aside(self, tables: list[pa.Table]) -> None:
        """Append to each range its rows of some tables, sorted."""
        if not tables:
            return
        rows = _joined(tables)
        order = np.argsort(as_numpy(rows[SORT_COLUMN]), kind="stable")
        rows = pc.take(rows, as_arrow(order), boundscheck=False)
        edges = np.searchsorted(as_numpy(rows[SORT_COLUMN]), self.edges).tolist()
        parts = self._parts.apart(rows)
        for number, (start, end) in enumerate(itertools.pairwise([0, *edges, rows.num_rows])):
            if start < end:
                self._append(number, [part.slice(start, end - start) for part in parts])

    def _append(self, number: int, parts: Sequence[pa.Table]) -> None:
        """Append rows, given in parts, to the files of a range."""
        with self._locks[number]:
            self.n_rows[number] += parts[-1].num_rows
            for path, part in zip(self._paths(number), parts, strict=True):
                if not part.num_columns:
                    continue
                try:
                    if path not in self._files:
                        is_floats = part.schema == self._parts.floats
                        self._files[path] = _stream(path, part.schema, compressed=not is_floats)
                    self._files[path][1].write_table(part)
                except OSError as error:
                    raise _of_disk(error, path) from error

    def _close(self) -> None:
        """Close the files; rows can be read after that, and none added."""
        while self._files:
            path, (file, writer) = self._files.popitem()
            try:
                writer.close()
                file.close()
            except OSError as error:
                raise _of_disk(error, path) from error

    def pieces(self, number: int, n: int) -> Iterator[pa.Table]:
        """Yield the rows of a range, sorted, at most n at a time, and forget them. The sort column is not among them."""
        if not self.n_rows[number]:
            return
        rows = self._parts.together(*map(_taken, self._paths(number)))
        order = np.argsort(as_numpy(rows[SORT_COLUMN]), kind="stable")
        rows = rows.drop_columns([SORT_COLUMN])
        for start in range(0, len(order), n):
            yield pc.take(rows, as_arrow(order[start : start + n]), boundscheck=False)

    def _paths(self, number: int) -> tuple[Path, Path]:
        """Return the files of the floats and of the others of a range; there is none of a part without columns."""
        return self._folder / f"{number}-floats.arrow", self._folder / f"{number}.arrow"


class SpilledTiles:
    """Rows of tiles, put aside in halves: what is the same in all tiles of a sample once, and the rest of each tile.

    Parameters
    ----------
    schema
        Columns of the rows.
    edges
        As those of :class:`SpilledRows`; tiles of one sample lie in one range.
    """

    FILES_PER_RANGE = 2 * SpilledRows.FILES_PER_RANGE

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
        try:
            self._shared.__exit__(kind, error, trace)
        finally:
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


def _stream(path: Path, schema: pa.Schema, *, compressed: bool) -> Stream:
    """Begin a file of rows."""
    file = pa.output_stream(str(path), compression=None, buffer_size=BUFFER_BYTES)
    options = pa.ipc.IpcWriteOptions(compression="lz4" if compressed else None, use_threads=False)
    return file, pa.ipc.new_stream(file, schema, options=options)


def _taken(path: Path) -> pa.Table:
    """Return the rows of a file, which goes; no columns if there is none."""
    if not path.exists():
        return pa.table({})
    options = pa.ipc.IpcReadOptions(use_threads=False)
    with pa.memory_map(str(path)) as file:
        tables = [pa.Table.from_batches([batch]) for batch in pa.ipc.open_stream(file, options=options)]
    path.unlink()
    return _joined(tables)


def _joined(tables: list[pa.Table]) -> pa.Table:
    """Return the rows of some tables in one piece, each column of one chunk."""
    return pa.concat_tables(tables).combine_chunks()


def _of_disk(error: OSError, path: Path) -> TensorBankError | OSError:
    return of_system(error, f"{path}, where compact keeps rows on their way (TMPDIR)") or error
