"""Index files of one level merged into few, whose rows lie in the order of their samples.

Each file is read once, a row group at a time, and its rows are put aside on the disk by ranges of the order; then range after
range is sorted and written. Memory holds three ranges at most, and the disk for a while about twice what the files have.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tensorbank.arrow_numpy import as_numpy
from tensorbank.index_files import ROW_GROUP_ROWS, IndexFile, parquet_writer
from tensorbank.maintenance.dead_rows import DeadRows
from tensorbank.maintenance.level_columns import compact_schema, conformed, repeating_texts
from tensorbank.maintenance.moved_samples import MovedSamples
from tensorbank.maintenance.sample_order import ORDER_COLUMNS, SampleOrder
from tensorbank.maintenance.spilling import SpilledRows, SpilledTiles, max_ranges

__all__ = [
    "GROUPS_PER_FILE",
    "merged_samples",
    "merged_shards",
    "merged_tiles",
    "orders_of",
    "read_groups",
    "reused_memory",
]

GROUPS_PER_FILE = 8
"""The row groups of a file of samples, of about a million rows."""
RANGE_BYTES = 256 << 20
"""The bytes of the rows of tiles, in memory, that make up one file."""
MIN_SAMPLES = ROW_GROUP_ROWS // 4
"""The fewest samples whose tiles make up one file, if there are as many."""
TILE_BITS = 32
"""The bits of a place in the order of tiles that are their own: the date and the number."""

MEMORY_KEPT_MS = 10_000
"""The milliseconds for which memory that was given back may be used again before the system gets it; Arrow's habit is 1,000."""
_LOCK = threading.Lock()
_pools: list[pa.MemoryPool] = []
"""The memory pool that was there before, once for each compaction that runs."""

Progress = Callable[[int], None]
Put = TypeVar("Put")
Places = Callable[[pa.Table], npt.NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class LevelFilesToMerge:
    """Files of a level that are to be merged, the columns of the level, and what becomes of their rows.

    Parameters
    ----------
    path
        Callable for the local path of a file, which fetches and checks it: that waits for the disk or the network, so each file
        is asked for when its turn comes, while others are decoded.
    dead
        Rows that do not count, which go.
    moved
        Samples that lie elsewhere now.
    """

    files: tuple[IndexFile, ...]
    path: Callable[[IndexFile], str]
    schema: pa.Schema
    dead: DeadRows
    moved: MovedSamples

    def read(self, file: IndexFile) -> Iterator[pa.Table]:
        """Yield the rows of each row group of a file that count, with texts that repeat as numbers."""
        path = self.path(file)
        footer = pq.read_metadata(path)
        there = {footer.schema.column(i).path for i in range(footer.num_columns)}
        texts = [name for name in repeating_texts(self.schema) if name in there]
        with pq.ParquetFile(path, metadata=footer, read_dictionary=texts) as parquet:
            for group in range(footer.num_row_groups):
                rows = parquet.read_row_group(group, use_threads=False)
                yield conformed(self.moved.redirect(self.dead.drop(rows)), compact_schema(self.schema))


def read_groups(paths: Iterable[str], columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Yield row groups of some files, one after the other."""
    for path in paths:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, columns=list(columns) if columns is not None else None)


def orders_of(files: Sequence[IndexFile], path: Callable[[IndexFile], str]) -> Iterator[pa.Table]:
    """Yield what the order of samples follows from, of all row groups of their files."""
    with ThreadPoolExecutor(_n_threads()) as pool:
        for rows in pool.map(lambda file: list(read_groups([path(file)], ORDER_COLUMNS)), files):
            yield from rows


@contextmanager
def reused_memory() -> Iterator[None]:
    """Let Arrow's memory come from jemalloc, which uses pages again, as long as the block runs.

    Arrow's own choice, mimalloc, gives freed pages back to the system, and merging, which gets and frees gigabytes, then spends a
    tenth of its time on getting them anew. A pool of the user's choice stays.
    """
    with _LOCK:
        before = _pools[0] if _pools else pa.default_memory_pool()
        if before.backend_name == "mimalloc":
            try:
                pa.set_memory_pool(pa.jemalloc_memory_pool())
                pa.jemalloc_set_decay_ms(MEMORY_KEPT_MS)
            except NotImplementedError:
                pass  # this build of Arrow has none
        _pools.append(before)
    try:
        yield
    finally:
        with _LOCK:
            first = _pools.pop()
            if not _pools:
                pa.set_memory_pool(first)


def merged_samples(
    files: LevelFilesToMerge,
    order: SampleOrder,
    folder: Path,
    put: Callable[[Path], Put],
    progress: Progress,
    *,
    file_rows: int | None = None,
) -> Iterator[Put]:
    """Write new files of samples in a folder, and yield what ``put`` returns for each.

    Parameters
    ----------
    put
        Callable that takes a file to where it belongs, in the thread that wrote it; then the file goes.
    file_rows
        Rows of a file that is one row group; files have some full row groups if not given.
    """
    per_range = _groups_per_range(-(-len(order) // ROW_GROUP_ROWS))
    edges = np.arange(per_range * ROW_GROUP_ROWS, max(len(order), 1), per_range * ROW_GROUP_ROWS)
    per_file = 1 if file_rows else max(GROUPS_PER_FILE // per_range, 1)
    ranges = [list(range(i, min(i + per_file, len(edges) + 1))) for i in range(0, len(edges) + 1, per_file)]
    aside = SpilledRows(folder, compact_schema(files.schema), edges)
    yield from _merged(
        files,
        lambda rows: order.places_of(as_numpy(rows["key"], 0)),
        aside,
        ranges,
        folder,
        put,
        progress,
        file_rows=file_rows,
    )


def merged_tiles(
    files: LevelFilesToMerge,
    order: SampleOrder,
    folder: Path,
    put: Callable[[Path], Put],
    progress: Progress,
) -> Iterator[Put]:
    """Write new files of tiles as :func:`merged_samples` does those of samples."""
    n = len(order)
    per_range = max(_samples_per_range(files, n), -(-n // max_ranges(SpilledTiles.FILES_PER_RANGE)), 1)
    n_ranges = max(n // per_range, 1)
    edges = np.arange(1, n_ranges) * n // n_ranges << TILE_BITS

    def places(rows: pa.Table) -> npt.NDArray[np.int64]:
        of_sample = order.places_of(as_numpy(rows["key"], 0))
        time, tile = (as_numpy(rows[name].cast(pa.int64()), 0) & 0xFFFF for name in ("time_index", "tile"))
        return of_sample << TILE_BITS | time << 16 | tile

    compact = compact_schema(files.schema)
    aside = SpilledTiles(folder, compact, edges)
    ranges = [[i] for i in range(n_ranges)]
    yield from _merged(files, places, aside, ranges, folder, put, progress, given=compact)


def merged_shards(tables: Sequence[pa.Table], schema: pa.Schema, folder: Path) -> Path:
    """Return a new file of shards in a folder, by part and number."""
    rows = pa.concat_tables([conformed(t, schema) for t in tables])
    path = folder / "shards.parquet"
    with parquet_writer(path, schema, rows.num_rows) as writer:
        writer.write_table(
            rows.sort_by([("part", "ascending"), ("shard", "ascending")]), row_group_size=ROW_GROUP_ROWS
        )
    return path


def _groups_per_range(n_groups: int) -> int:
    """Return how many row groups of samples make up a range: one, or a power of two where that would be too many ranges."""
    least = max(-(-n_groups // max_ranges(SpilledRows.FILES_PER_RANGE)), 1)
    return 1 << (least - 1).bit_length()


def _samples_per_range(files: LevelFilesToMerge, n_samples: int) -> int:
    """Return how many samples have about the tiles of one file."""
    rows = next((rows for file in files.files for rows in files.read(file)), None)
    if rows is None or not n_samples:
        return ROW_GROUP_ROWS
    n_of_first = len(np.unique(as_numpy(rows["key"], 0)))
    if not n_of_first:
        return ROW_GROUP_ROWS
    return int(np.clip(RANGE_BYTES * n_of_first // max(rows.nbytes, 1), MIN_SAMPLES, ROW_GROUP_ROWS))


def _merged(
    files: LevelFilesToMerge,
    places: Places,
    aside: SpilledRows | SpilledTiles,
    ranges: Sequence[Sequence[int]],
    folder: Path,
    put: Callable[[Path], Put],
    progress: Progress,
    *,
    file_rows: int | None = None,
    given: pa.Schema | None = None,
) -> Iterator[Put]:
    """Write files of the ranges, in the order in which they are listed: one of each list, or some of so many rows.

    ``given`` are the columns as rows are handed to the writer, if they are not those of the files.
    """
    with aside as spilled, ThreadPoolExecutor(_n_threads()) as pool:

        def put_aside(file: IndexFile) -> int:
            n_rows = 0
            for rows in files.read(file):
                numbers = places(rows)
                spilled.add(rows, numbers)
                n_rows += len(numbers)
            return n_rows

        for n_rows in pool.map(put_aside, files.files):
            progress(n_rows)

    def handed_on(path: Path) -> Put:
        found = put(path)
        path.unlink()
        return found

    def write(numbers: Sequence[int]) -> list[Put]:
        n_rows = int(spilled.n_rows[list(numbers)].sum())
        if not n_rows:
            return []
        path = folder / f"{numbers[0]}.parquet"
        with parquet_writer(path, files.schema, n_rows, given) as writer:
            for number in numbers:
                for rows in spilled.pieces(number, ROW_GROUP_ROWS):
                    writer.write_table(rows.cast(given or files.schema), row_group_size=ROW_GROUP_ROWS)
        found = handed_on(path)
        progress(n_rows)
        return [found]

    def write_files(n: int, numbers: Sequence[int]) -> list[Put]:
        found: list[Put] = []
        for number in numbers:
            path = folder / f"{number}.parquet"
            for rows in spilled.pieces(number, n):
                with parquet_writer(path, files.schema, rows.num_rows) as writer:
                    writer.write_table(rows.cast(files.schema), row_group_size=rows.num_rows)
                found.append(handed_on(path))
                progress(rows.num_rows)
        return found

    with ThreadPoolExecutor(_n_threads()) as pool:
        for found in pool.map(partial(write_files, file_rows) if file_rows else write, ranges):
            yield from found


def _n_threads() -> int:
    """Return how many files are read, and ranges written, at once: one waits for the disk while others keep two cores busy."""
    return min(len(os.sched_getaffinity(0)), 2) + 1
