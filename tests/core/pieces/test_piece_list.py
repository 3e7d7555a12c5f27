"""Lists of checksums in footers: they join to the checksum of the file, and are found only where they are."""

from __future__ import annotations

import crc32c
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.ranged import PIECE_BYTES, small_pieces
from tensorbank.index_files import parquet_bytes, parquet_writer
from tensorbank.pieces import PIECES, WHOLE_BYTES, PieceList
from tensorbank.pieces.joined_checksums import joined, of_pieces


def rows(n: int = 4000, seed: int = 3) -> pa.Table:
    rng = np.random.default_rng(seed)
    ids = [f"s{i}" for i in range(n)]
    return pa.table({"sample_id": ids, **{f"c{i}": rng.normal(size=n) for i in range(4)}})


@pytest.fixture(scope="module")
def data() -> bytes:
    with small_pieces():
        return parquet_bytes(rows())


@given(st.binary(max_size=3000), st.binary(max_size=300))
def test_checksums_of_parts_join_to_that_of_the_whole(first, second):
    assert joined(crc32c.crc32c(first), crc32c.crc32c(second), len(second)) == crc32c.crc32c(first + second)


@given(st.binary(max_size=3000), st.integers(1, 700))
def test_checksums_of_pieces_join_to_that_of_the_whole(data, piece_bytes):
    n = len(data) // piece_bytes
    sums = [crc32c.crc32c(data[i * piece_bytes : (i + 1) * piece_bytes]) for i in range(n)]
    assert of_pieces(np.array(sums, np.uint32), piece_bytes) == crc32c.crc32c(data[: n * piece_bytes])


def test_a_written_file_lists_its_pieces_and_proves_them_by_its_checksum(data):
    found = PieceList.find(data, len(data))
    assert found is not None
    assert found.piece_bytes == PIECE_BYTES
    assert len(found.checksums) > 100
    for number, said in enumerate(found.checksums.tolist()):
        assert crc32c.crc32c(data[number * PIECE_BYTES : (number + 1) * PIECE_BYTES]) == said
    assert found.is_of(data[found.n_bytes :], crc32c.crc32c(data))


@pytest.mark.parametrize("bit", range(0, 8, 3))
def test_no_flipped_bit_of_a_tail_passes(data, bit):
    sound = PieceList.find(data, len(data))
    assert sound is not None
    tail = bytearray(data[sound.n_bytes :])
    passed = []
    for at in range(0, len(tail), 31):
        tail[at] ^= 1 << bit
        found = PieceList.find(bytes(tail), len(data))
        if found is not None and found.is_of(bytes(tail)[found.n_bytes - len(data) :], crc32c.crc32c(data)):
            passed.append(at)
        tail[at] ^= 1 << bit
    assert passed == []


def test_the_list_is_no_part_of_the_rows(data):
    read = pq.read_table(pa.BufferReader(data))
    assert read.equals(rows())
    with small_pieces():
        again = parquet_bytes(read)
    assert again == data, "the list of the file that rows came from is not written once more"


def test_a_path_is_written_as_memory_is(data, tmp_path):
    path = tmp_path / "file.parquet"
    with small_pieces(), parquet_writer(path, rows().schema, 4000) as writer:
        writer.write_table(rows())
    assert path.read_bytes() == data


def test_a_small_file_has_no_list():
    small, large = parquet_bytes(rows(100)), parquet_bytes(rows(100_000))
    assert PIECES.encode() not in small
    assert PieceList.find(small, len(small)) is None
    found = PieceList.find(large, len(large))
    assert found is not None
    assert found.n_bytes > WHOLE_BYTES


@pytest.mark.parametrize("n", [0, 7, 8, 100])
def test_what_is_no_end_of_a_file_has_no_list(data, n):
    assert PieceList.find(data[len(data) - n :], len(data)) is None
    assert PieceList.find(b"x" * n, n) is None


@pytest.mark.parametrize(
    "text", [b"0 AAAA", b"99999999 AAAA", b"512 AAA", b"512 AAA=", b"512 " + b"AAAA" * 4000, b"x AAAA"]
)
def test_a_list_that_cannot_be_is_none(text):
    footer = b"tensorbank.pieces\x18" + bytes([len(text) % 128]) + text
    end = footer + len(footer).to_bytes(4, "little") + b"PAR1"
    assert PieceList.find(end, 4096) is None
