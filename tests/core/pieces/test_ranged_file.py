"""Files that are read by ranges: whatever the store and the disk do, the bytes are those that were written, or an error."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import crc32c
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.ranged import PIECE_BYTES, small_pieces
from tensorbank import IntegrityError, StorageError
from tensorbank.errors import ErrorKind
from tensorbank.index_files import parquet_bytes
from tensorbank.pieces import KeptPieces, RangedFile, Room


def content() -> bytes:
    rng = np.random.default_rng(1)
    with small_pieces():
        return parquet_bytes(pa.table({f"c{i}": rng.normal(size=3000) for i in range(5)}))


DATA = content()


class Source:
    """The file as a store has it, with what goes wrong on the way."""

    def __init__(self, data: bytes = DATA) -> None:
        self.data = data
        self.asked: list[tuple[int, int]] = []
        self.flips: list[int] = []
        self.short = 0
        self.cut_bytes = 0

    def __call__(self, start: int, n_bytes: int) -> memoryview:
        self.asked.append((start, n_bytes))
        if self.short:
            self.short -= 1
            raise StorageError("sent fewer bytes", kind=ErrorKind.SHORT_READ)
        found = bytearray(self.data[start : start + n_bytes])
        while self.flips:
            found[self.flips.pop() % len(found)] ^= 32
        n_kept, self.cut_bytes = len(found) - self.cut_bytes, 0
        return memoryview(bytes(found))[:n_kept]

    @property
    def n_bytes(self) -> int:
        return sum(n for _, n in self.asked)


def opened(folder: Path, source: Source, *, tail_bytes: int = 4096) -> RangedFile:
    kept = KeptPieces(folder / "bank" / "pieces" / "file.parquet", len(DATA), Room(folder, 1 << 30))
    file = RangedFile("s3://bank/file.parquet", kept, crc32c.crc32c(DATA), source)
    with small_pieces():
        assert file.open(tail_bytes)
    return file


@given(
    st.lists(st.tuples(st.integers(0, len(DATA) + 10), st.integers(0, 9000)), min_size=1, max_size=8),
    st.integers(8, 5000),
    st.lists(
        st.tuples(st.integers(0, len(DATA) - 1), st.sampled_from(["flip", "zero", "remove"])), max_size=3
    ),
)
@settings(max_examples=60)
def test_any_range_is_what_was_written_though_the_copy_is_damaged(tmp_path_factory, reads, tail, damages):
    folder = tmp_path_factory.mktemp("copies")
    source = Source()
    file = opened(folder, source, tail_bytes=tail)
    damage = iter(damages)
    for start, n_bytes in reads:
        assert file.read(start, n_bytes) == DATA[start : start + n_bytes]
        if (done := next(damage, None)) is not None:
            spoil(file.kept.path, *done)
        assert file.read(start, n_bytes) == DATA[start : start + n_bytes]


def spoil(path: Path, at: int, how: str) -> None:
    if how == "remove":
        path.unlink(missing_ok=True)
        return
    body = bytearray(path.read_bytes())
    body[at : at + 1] = b"\0" * 1 if how == "zero" else bytes([body[at] ^ 4])
    path.write_bytes(body)


def test_each_piece_comes_once(tmp_path):
    source = Source()
    file = opened(tmp_path, source)
    for start in range(0, len(DATA), 1000):
        file.read(start, 3000)
    assert source.n_bytes <= len(DATA) + 4096, "but for the guess of the tail"
    n = len(source.asked)
    again = opened(tmp_path, source)
    assert again.read(0, len(DATA)) == DATA
    assert len(source.asked) == n, "another process finds all of it on the disk"
    assert again.is_complete


def test_a_short_guess_of_the_tail_takes_more_requests_and_a_long_one_brings_pieces(tmp_path):
    short = Source()
    opened(tmp_path / "a", short, tail_bytes=10)
    assert 1 < len(short.asked) <= 3
    long = Source()
    file = opened(tmp_path / "b", long, tail_bytes=len(DATA) // 2)
    assert len(long.asked) == 1
    file.read(len(DATA) * 2 // 3, 5000)
    assert len(long.asked) == 1


def test_wrong_bytes_on_the_way_are_fetched_again(tmp_path):
    source = Source()
    source.flips = [5]
    file = opened(tmp_path, source)
    source.flips = [1]
    source.short = 1
    assert file.read(100, 5000) == DATA[100:5100]
    assert not source.flips
    assert not source.short
    for cut_bytes in (PIECE_BYTES, 100):
        source.cut_bytes = cut_bytes
        start = 10_000 + cut_bytes * 20
        assert file.read(start, 3000) == DATA[start : start + 3000]
        assert not source.cut_bytes


def test_an_end_that_is_cut_is_not_taken(tmp_path):
    source = Source()
    source.cut_bytes = 5
    kept = KeptPieces(tmp_path / "bank" / "pieces" / "f", len(DATA), Room(tmp_path, 1 << 30))
    file = RangedFile("s3://bank/f", kept, crc32c.crc32c(DATA), source)
    with small_pieces():
        assert not file.open(4096), "what has no list that can be read is read as a whole"
        assert file.open(4096)
    assert file.read(0, len(DATA)) == DATA


def test_wrong_bytes_in_the_store_are_an_error_and_are_not_kept(tmp_path):
    wrong = bytearray(DATA)
    wrong[20 * PIECE_BYTES + 7] ^= 1
    source = Source(bytes(wrong))
    file = opened(tmp_path, source)
    with pytest.raises(IntegrityError, match=f"bytes {20 * PIECE_BYTES} to {21 * PIECE_BYTES} are not"):
        file.read(20 * PIECE_BYTES, 10)
    assert file.read(30 * PIECE_BYTES, 100) == DATA[30 * PIECE_BYTES :][:100], "the others are sound"
    with pytest.raises(IntegrityError):
        file.read(20 * PIECE_BYTES, 10)
    source.data = DATA
    assert file.read(20 * PIECE_BYTES, 10) == DATA[20 * PIECE_BYTES :][:10]


def test_a_file_of_another_content_is_not_opened(tmp_path):
    wrong = bytearray(DATA)
    wrong[-300] ^= 1
    kept = KeptPieces(tmp_path / "bank" / "pieces" / "f", len(DATA), Room(tmp_path, 1 << 30))
    for source in (Source(bytes(wrong)), Source(DATA[:-9] + b"x" * 9), Source(b"\0" * len(DATA))):
        file = RangedFile("s3://bank/f", kept, crc32c.crc32c(DATA), source)
        with small_pieces():
            assert not file.open(4096)
        assert not kept.path.exists()


def test_many_threads_fetch_a_piece_once(tmp_path):
    source = Source()
    file = opened(tmp_path, source)
    source.asked.clear()
    together = threading.Barrier(8)

    def read(number: int) -> bool:
        together.wait()
        start = number % 2 * PIECE_BYTES
        return file.read(start, 20_000) == DATA[start : start + 20_000]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(8)))
    assert source.n_bytes <= 20_000 + 3 * PIECE_BYTES


def test_a_full_disk_goes_on_without_the_copy(tmp_path, monkeypatch, caplog):
    def full(file, data, offset):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    source = Source()
    file = opened(tmp_path, source)
    assert file.read(0, len(DATA)) == DATA
    assert file.read(500, 100) == DATA[500:600]
    assert [r.message for r in caplog.records if "not kept" in r.message] == [caplog.records[0].message]
    n = len(source.asked)
    file.bring(0, 5000)
    assert len(source.asked) == n, "nothing is brought that could not be kept"


def test_the_error_of_the_store_is_that_of_the_read(tmp_path):
    source = Source()
    file = opened(tmp_path, source)

    def gone(start, n_bytes):
        raise StorageError("the store is away", kind=ErrorKind.UNREACHABLE)

    file._fetch = gone
    with pytest.raises(StorageError, match="away"):
        file.read(0, 100)
    file._fetch = source
    assert file.read(0, 100) == DATA[:100]
