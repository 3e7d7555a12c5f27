"""Banks of the earlier format: read as they are, told apart, and upgraded by their first change."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import tensorbank as tb
from support.handmade_index import part_of
from tensorbank import TableSchema
from tensorbank.index_files.checksums import checksum_in_name
from tensorbank.layout import LEVELS

OLD = Path(__file__).parents[2] / "support" / "bank_of_format_1"
"""A bank that format 1 wrote: table ``old``, two parts of five samples, all pixels of sample ``i`` of part ``p`` ``10 p + i``."""


@pytest.fixture
def bank(tmp_path):
    shutil.copytree(OLD, tmp_path / "bank")
    return tb.open(tmp_path / "bank")


def pixels(bank, version=None) -> dict[str, float]:
    """The first pixel of every sample."""
    table = bank.table("old") if version is None else bank.table("old").at(version)
    ids = (bank if version is None else bank.at({"old": version})).sql("SELECT sample_id FROM old").arrow()
    return {i: float(table.read(i)["NDVI"][0, 0, 0, 0]) for i in ids["sample_id"].to_pylist()}


TRUTH = {f"part-{p}-{i:04d}": 10.0 * p + i for p in range(2) for i in range(5)}


def test_a_bank_of_format_1_is_read(bank):
    assert bank.catalog.version("old").pins is None
    assert bank.table("old").snapshot().format == 1
    assert pixels(bank) == TRUTH
    assert pixels(bank, 1) == {i: v for i, v in TRUTH.items() if i.startswith("part-0")}
    assert bank.sql("SELECT count(*) AS n FROM old.tiles").arrow()["n"].to_pylist() == [20]
    assert [h.part for h in bank.table("old").history()] == ["part-1", "part-0", None]
    known = bank.catalog.membership(bank.catalog.version("old"))
    from tensorbank.catalog import key_of

    there = np.array([key_of("val", "part-0-0000"), key_of("train", "part-0-0000")], np.int64)
    assert known.has_samples(there).tolist() == [True, False]


def test_the_first_change_upgrades_it(bank):
    before = bank.sql("SELECT * FROM old ORDER BY sample_id").arrow()
    bank.catalog.commit(
        "old", part_of("old", "part-2", 3, schema=TableSchema(tuple(bank.table("old").schema)))
    )
    version = bank.catalog.version("old")
    assert set(version.pins) == {"tiles", "shards", "keys"}
    assert bank.table("old").snapshot().format == 2
    assert [h.operation for h in bank.table("old").history()][:2] == ["ingest", "upgrade"]
    for level in (*LEVELS, "keys"):
        for file in bank.catalog.files("old", level).files:
            assert checksum_in_name(file.key) is not None, file.key
    assert pixels(bank, 3) == TRUTH
    after = bank.at({"old": 3}).sql("SELECT * EXCLUDE key FROM old ORDER BY sample_id").arrow()
    assert (
        after.to_pylist() == before.drop_columns([c for c in before.column_names if c == "key"]).to_pylist()
    )
    assert bank.sql("SELECT count(*) AS n FROM old").arrow()["n"].to_pylist() == [13]
    assert pixels(bank, 2) == TRUTH, "older versions are read as they were"


def test_what_another_program_makes_of_tiles_changes_nothing_for_a_snapshot(tmp_path):
    import deltalake

    from support.handmade_index import make_table

    bank = tb.create(tmp_path)
    make_table(bank, "t", parts=3, n=6)
    sql = "SELECT sample_id, tile, part FROM t.tiles ORDER BY ALL"
    rows, plan = bank.sql(sql).arrow(), bank.sql("SELECT S2L2A FROM t").plan().fingerprint
    tiles = deltalake.DeltaTable(str(tmp_path / "t/index/tiles"))
    tiles.optimize.compact()
    tiles.delete("tile = 1")
    assert tiles.to_pyarrow_table().num_rows == rows.num_rows // 2
    fresh = tb.open(tmp_path)
    assert fresh.sql(sql).arrow().equals(rows)
    assert fresh.sql("SELECT S2L2A FROM t").plan().fingerprint == plan
    fresh.catalog.commit("t", part_of("t", "later", 2))
    assert fresh.sql("SELECT count(*) AS n FROM t.tiles").arrow()["n"].to_pylist() == [rows.num_rows + 4]
    assert fresh.at({"t": 3}).sql(sql).arrow().equals(rows)
