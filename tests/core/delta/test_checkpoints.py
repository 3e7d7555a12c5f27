"""Checkpoints of logs: a version gets one, however often it is asked for."""

from __future__ import annotations

import deltalake
import pyarrow as pa
import pytest

import tensorbank as tb
from support.handmade_index import make_table

LEVELS = ("samples", "tiles", "shards", "keys")


@pytest.fixture
def bank(tmp_path):
    bank = tb.create(tmp_path / "bank", cache=tmp_path / "cache")
    make_table(bank, "t", parts=2, n=5)
    return bank


def test_a_version_that_has_a_checkpoint_keeps_it(bank, tmp_path):
    folder = tmp_path / "bank/t/index"
    for cache in ("first", "second", "third"):  # each is a writer that knows nothing but the store
        tb.open(tmp_path / "bank", cache=tmp_path / cache).catalog.checkpoint("t")
        found = [len(list((folder / level / "_delta_log").glob("*.checkpoint.parquet"))) for level in LEVELS]
        assert found == [1, 1, 1, 1]
    assert [deltalake.DeltaTable(str(folder / level)).version() for level in LEVELS] == [2, 2, 2, 2]


def test_a_level_that_stays_as_it_was_does_not_stop_a_compaction(bank):
    table = bank.table("t")
    ids = bank.sql("SELECT sample_id FROM t ORDER BY sample_id").arrow()["sample_id"].to_pylist()
    table.add_columns(pa.table({"sample_id": ids, "score": [1.0] * len(ids)}))
    assert table.compact().changed
    make_table(bank, "t", parts=4, n=5)  # two more
    assert table.compact().changed
    (row,) = bank.sql("SELECT count(*) AS n, sum(score) AS total FROM t").arrow().to_pylist()
    assert row == {"n": 20, "total": 10.0}
