"""A file behind range reads reads and seeks as one in memory does."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorbank.errors import NotFoundError
from tensorbank_indexer import SourceFiles
from tensorbank_indexer.containers.range_file import RangeFile

DATA = bytes(range(100))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(-1, 130)),
        st.tuples(st.just("seek"), st.tuples(st.integers(0, 130), st.just(io.SEEK_SET))),
        st.tuples(st.just("seek"), st.tuples(st.integers(0, 30), st.just(io.SEEK_CUR))),
        st.tuples(st.just("seek"), st.tuples(st.integers(-100, 30), st.just(io.SEEK_END))),
    ),
    max_size=8,
)


@given(STEPS)
def test_it_reads_as_a_file_in_memory_does(steps):
    ours, theirs = RangeFile(lambda start, end: DATA[start:end], len(DATA), "a"), io.BytesIO(DATA)
    for step, argument in steps:
        if step == "read":
            assert ours.read(argument) == theirs.read(argument)
        else:
            assert ours.seek(*argument) == theirs.seek(*argument)
        assert ours.tell() == theirs.tell()
    assert ours.read() == theirs.read()


def test_a_position_before_the_start_is_refused():
    with pytest.raises(ValueError, match=r"byte -1 of a\.parquet"):
        RangeFile(lambda start, end: DATA[start:end], len(DATA), "a.parquet").seek(-101, io.SEEK_END)


def test_source_files_open_by_their_path(tmp_path):
    (tmp_path / "one").write_bytes(DATA)
    files = SourceFiles(str(tmp_path))
    assert files.open("one").read() == files.open("one", 100).read() == DATA
    with pytest.raises(NotFoundError):
        files.open("two")
