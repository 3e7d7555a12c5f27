"""Changes as they are published: what a commit says of files that it adds and removes."""

from __future__ import annotations

import pyarrow.parquet as pq

import tensorbank as tb
from support import second_reader
from support.handmade_index import make_table


def test_a_file_that_is_written_anew_with_the_same_rows_stays(tmp_path):
    """One of two files has deleted rows only: what is left of both is the other one, byte by byte."""
    bank = tb.create(tmp_path / "bank", cache=tmp_path / "cache")
    make_table(bank, "t", parts=2, n=3)
    table = bank.table("t")
    table.compact()
    (file,) = bank.catalog.files("t", "samples").files
    ids = sorted(row["sample_id"] for row in pq.read_table(tmp_path / "bank" / file.key).to_pylist())
    make_table(bank, "t", parts=3, n=3)
    assert table.delete("part = 'part-2'").n_samples == 3
    assert table.compact().changed
    for reader in (bank, tb.open(tmp_path / "bank", cache=tmp_path / "other")):
        assert reader.catalog.files("t", "samples").files[0].key == file.key
        assert sorted(reader.sql("SELECT sample_id FROM t").arrow()["sample_id"].to_pylist()) == ids
    snapshot = second_reader.Snapshot(tmp_path / "bank", "t")
    assert sorted(row["sample_id"] for row in snapshot.samples) == ids
