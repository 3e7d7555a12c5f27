"""Errors of DuckDB told apart: mistakes in a statement, and damaged index files, named even where DuckDB names none."""

from __future__ import annotations

import random

import duckdb
import pytest

import tensorbank as tb
from support.handmade_index import make_table
from tensorbank import IntegrityError, InvalidInputError
from tensorbank.sql.diagnostics import translate

READ_ALL = "SELECT max(hash(x)) FROM {} AS x"


@pytest.fixture
def index_file(tmp_path):
    """Make table ``a`` of one part; gives its bank and the file of its samples."""
    bank = tb.create(tmp_path / "bank")
    make_table(bank, "a", parts=1, n=30)
    (file,) = bank.catalog.files("a", "samples").files
    return bank, tmp_path / "bank" / file.key


def damaged(path, n: int) -> list[tuple[bytes, duckdb.Error]]:
    """Find contents of a file, one bit of a page flipped in each, of which DuckDB complains without naming the file."""
    sound = path.read_bytes()
    footer = int.from_bytes(sound[-8:-4], "little")
    draws, found = random.Random(1), []
    for _ in range(300):
        content = bytearray(sound)
        bit = draws.randrange(8 * 4, 8 * (len(sound) - 8 - footer))
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        with duckdb.connect() as con:
            try:
                con.execute(READ_ALL.format("read_parquet(?)"), [str(path)]).fetchall()
            except duckdb.Error as error:
                if str(path) not in str(error):
                    found.append((bytes(content), error))
        if len(found) == n:
            break
    path.write_bytes(sound)
    return found


def test_a_damaged_page_is_told_by_its_file(index_file):
    bank, path = index_file
    found = damaged(path, 6)
    assert len(found) == 6
    for content, error in found:
        path.write_bytes(content)
        with pytest.raises(IntegrityError, match=path.name):
            tb.open(bank.catalog.store.url).sql(READ_ALL.format("a")).arrow()
        told = translate(error, lambda: ["a"], [str(path)])
        assert isinstance(told, IntegrityError), error
        assert path.name in str(told)


def test_a_mistake_in_the_statement_reads_no_page(index_file):
    bank, path = index_file
    ((content, _),) = damaged(path, 1)
    path.write_bytes(content)
    for error in (duckdb.OutOfRangeException("Overflow"), duckdb.InvalidInputException("no level 99")):
        told = translate(error, lambda: ["a"], [str(path)])
        assert isinstance(told, InvalidInputError)
        assert told.kind == "sql"
    path.write_bytes(content[:100])
    told = translate(duckdb.OutOfRangeException("Overflow"), lambda: ["a"], [str(path)])
    assert isinstance(told, IntegrityError), "a footer is quickly looked at"
    assert bank.catalog.tables() == ["a"]


def test_a_statement_that_is_nested_too_deeply_is_a_mistake(index_file):
    bank, _ = index_file
    with pytest.raises(InvalidInputError) as caught:
        bank.sql(f"SELECT {'(' * 900}1{')' * 900} AS x FROM a WHERE {'NOT ' * 3000}true").plan()
    assert "\n" not in str(caught.value)
    assert isinstance(translate(RecursionError(), list, []), InvalidInputError)
