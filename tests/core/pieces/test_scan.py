"""Columns that are brought ahead of reads, and how DuckDB reads files that are served."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from pathlib import Path

import crc32c
import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.ranged import small_pieces
from tensorbank import StorageError
from tensorbank.errors import ErrorKind
from tensorbank.index_files import parquet_writer
from tensorbank.pieces import ColumnPlaces, KeptPieces, RangedFile, Room, Scan, ScannedFile, ServedFile
from tensorbank.pieces.served_files import ServedFiles

N_GROUPS, GROUP_ROWS = 12, 500
LIMIT_S = 60


def content(folder: Path) -> tuple[bytes, pa.Table]:
    rng = np.random.default_rng(2)
    rows = pa.table({f"c{i}": rng.normal(size=N_GROUPS * GROUP_ROWS) for i in range(6)})
    path = folder / "file.parquet"
    with small_pieces(), parquet_writer(path, rows.schema) as writer:
        writer.write_table(rows, row_group_size=GROUP_ROWS)
    return path.read_bytes(), rows


class Fixture:
    """One file in a store, and a scan of it."""

    def __init__(self, folder: Path, groups: range) -> None:
        self.data, self.rows = content(folder)
        self.asked: list[int] = []
        self.changed = threading.Condition()
        self.failure: StorageError | None = None
        kept = KeptPieces(folder / "bank" / "pieces" / "file.parquet", len(self.data), Room(folder, 1 << 30))
        self.file = RangedFile("s3://bank/file.parquet", kept, crc32c.crc32c(self.data), self.fetch)
        with small_pieces():
            assert self.file.open(4096)
        self.places = ColumnPlaces.of(pq.read_metadata(io.BytesIO(self.data)))
        self.scan = Scan([ScannedFile(self.file, self.places, groups)])
        self.asked.clear()

    def fetch(self, start: int, n_bytes: int) -> memoryview:
        if self.failure is not None:
            raise self.failure
        with self.changed:
            self.asked += range(start, start + n_bytes, 512)
            self.changed.notify_all()
        return memoryview(self.data)[start : start + n_bytes]

    def middle(self, group: int, column: int) -> int:
        return int(self.places.starts[group, column] + self.places.ends[group, column]) // 2

    def read(self, group: int, column: int) -> None:
        start, end = self.places.starts[group, column], self.places.ends[group, column]
        assert self.scan.read(0, int(start), int(end - start)) == self.data[start:end]

    def has(self, group: int, column: int) -> bool:
        return self.middle(group, column) // 512 in {start // 512 for start in self.asked}

    def wait(self, holds: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(holds, LIMIT_S)


def test_columns_of_conditions_come_before_they_are_asked_for(tmp_path):
    it = Fixture(tmp_path, range(3, 7))
    it.scan.bring(["c1", "c4", "no_such_column"])
    it.wait(lambda: all(it.has(g, c) for g in range(3, 7) for c in (1, 4)))
    it.scan.close()
    assert [(g, c) for g in range(N_GROUPS) for c in (0, 2, 3, 5) if it.has(g, c)] == []
    assert [g for g in (0, 1, 8, 9, 10, 11) if it.has(g, 1)] == []


def test_of_a_column_as_many_row_groups_come_ahead_as_were_read(tmp_path):
    it = Fixture(tmp_path, range(N_GROUPS))
    it.read(0, 2)
    it.wait(lambda: it.has(1, 2))
    assert not it.has(3, 2)
    it.read(1, 2)
    it.wait(lambda: it.has(3, 2))
    it.read(2, 2)
    it.wait(lambda: it.has(5, 2))
    assert [g for g in range(7, N_GROUPS) if it.has(g, 2)] == []
    it.scan.close()
    it.read(6, 2)
    assert not it.has(9, 2), "nothing comes ahead after the end"


def test_columns_that_are_read_together_come_ahead_together(tmp_path):
    it = Fixture(tmp_path, range(N_GROUPS))
    start, end = int(it.places.starts[0, 2]), int(it.places.ends[0, 3])
    it.scan.read(0, start, end - start)
    it.wait(lambda: it.has(1, 2) and it.has(1, 3))
    it.scan.close()


def test_a_column_comes_as_one_though_its_head_is_read_first(tmp_path):
    it = Fixture(tmp_path, range(1))
    start, end = it.places.interval(0, 2)
    assert it.scan.read(0, start, 8) == it.data[start : start + 8]
    n = len(it.asked)
    assert n >= (end - start) // 512
    assert it.scan.read(0, start + 8, end - start - 8) == it.data[start + 8 : end]
    assert it.scan.read(0, start, 60) == it.data[start : start + 60]
    assert len(it.asked) == n


def test_what_is_on_the_disk_is_not_brought_again(tmp_path):
    it = Fixture(tmp_path, range(N_GROUPS))
    for group in range(N_GROUPS):
        it.read(group, 3)
    it.scan.close()
    it.asked.clear()
    again = Scan(it.scan.files)
    again.bring(["c3"])
    assert again._pool is None
    it.read(5, 3)
    assert it.asked == []


def test_what_cannot_be_brought_is_an_error_for_who_reads_it(tmp_path):
    it = Fixture(tmp_path, range(N_GROUPS))
    it.failure = StorageError("the store is away", kind=ErrorKind.UNREACHABLE)
    it.scan.bring(["c1"])
    with pytest.raises(StorageError, match="away"):
        it.read(0, 1)
    it.failure = None
    it.read(0, 1)
    it.scan.close()


# ---------------------------------------------------------------- DuckDB


NAME = "tensorbank://0/file.parquet"


def test_duckdb_reads_served_files_by_many_threads(tmp_path):
    it = Fixture(tmp_path, range(N_GROUPS))
    served = ServedFiles()
    with duckdb.connect() as con:
        con.register_filesystem(served)
        con.execute("SET threads = 8")
        con.register("truth", it.rows)
        for number in range(30):
            served.serve({NAME: ServedFile(Scan(it.scan.files), 0)})
            low = number / 30
            wanted = f"SELECT c{number % 6}, c1 FROM {{}} WHERE c{(number + 2) % 6} > {low} ORDER BY ALL"
            found = con.sql(wanted.format(f"read_parquet('{NAME}')")).fetchall()
            assert found == con.sql(wanted.format("truth")).fetchall()
            served.clear()
        with pytest.raises(duckdb.Error):
            con.sql(f"SELECT count(c1) FROM read_parquet('{NAME}')").fetchall()


def test_a_thread_has_its_own_place_in_a_file(tmp_path):
    it = Fixture(tmp_path, range(N_GROUPS))
    served = ServedFiles()
    served.serve({NAME: ServedFile(it.scan, 0)})
    handle = served.open(NAME)
    handle.seek(1000)
    other = threading.Thread(target=handle.seek, args=(5000,))
    other.start()
    other.join()
    assert handle.tell() == 1000
    assert handle.read(100) == it.data[1000:1100]
    with pytest.raises(ValueError, match="place"):
        handle.read(100)
    handle.seek(-8, 2)
    assert handle.read(100) == it.data[-8:]


def test_the_error_of_a_read_is_kept_for_who_asked(tmp_path):
    it = Fixture(tmp_path, range(N_GROUPS))
    served = ServedFiles()
    served.serve({NAME: ServedFile(it.scan, 0)})
    with duckdb.connect() as con:
        con.register_filesystem(served)
        con.sql(f"SELECT count(*) FROM read_parquet('{NAME}')").fetchall()
        it.failure = StorageError("the store is away", kind=ErrorKind.UNREACHABLE)
        with pytest.raises(duckdb.Error):
            con.sql(f"SELECT sum(c1) FROM read_parquet('{NAME}')").fetchall()
    assert served.failure is it.failure
    served.clear()
    assert served.failure is None
