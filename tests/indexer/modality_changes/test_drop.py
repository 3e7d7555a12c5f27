"""A modality that is dropped is gone, for those who look now, and never comes back by its name."""

from __future__ import annotations

import pytest

from support.tiny_source import TinySource, pixels
from tensorbank.errors import InvalidInputError, NotFoundError
from tensorbank.verification import verify
from tensorbank_indexer import add_modality, ingest, replace_modality

DEM = [pixels(i, "DEM") for i in range(8)]


def test_a_dropped_modality_is_gone_and_an_earlier_version_has_it(bank, stored, same):
    version = bank.table("t").snapshot().version
    before = bank.at({"t": version}).sql("SELECT sample_id, DEM FROM t").plan()
    done = bank.table("t").drop_modality("DEM")
    assert done.added
    table = bank.table("t")
    assert table.schema.names == ("S2L2A",)
    same(stored(table, "S2L2A"), [pixels(i, "S2L2A") for i in range(8)])
    assert bank.sql("SELECT DISTINCT modalities FROM t").arrow()["modalities"].to_pylist() == [["S2L2A"]]
    for level in ("t", "t.tiles", "t.shards"):
        assert "DEM" not in bank.sql(f"SELECT * FROM {level}").arrow().column_names
    with pytest.raises((InvalidInputError, NotFoundError)):
        bank.sql("SELECT DEM FROM t").plan()
    same(stored(table.at(version), "DEM"), DEM)
    assert (
        bank.at({"t": version}).sql("SELECT sample_id, DEM FROM t").plan().fingerprint == before.fingerprint
    )
    assert verify(bank, "t").findings == []
    assert (table.history()[0].operation, table.history()[0].details) == (
        "drop-modality",
        {"modality": "DEM"},
    )


def test_a_modality_of_the_same_name_has_nothing_of_the_old_one(bank, options, stored, same):
    bank.table("t").drop_modality("DEM")
    add_modality(TinySource(3, edition=2), bank, "t", "DEM", options)
    same(stored(bank.table("t"), "DEM"), [*(pixels(i, "DEM", 2) for i in range(3)), *[None] * 5])
    counts = bank.sql("SELECT sum(DEM.n_samples) AS n FROM t.shards").arrow()["n"].to_pylist()
    assert counts == [3]
    tiles = bank.sql("SELECT count(DEM) AS n FROM t.tiles").arrow()["n"].to_pylist()
    assert tiles == [12]
    assert verify(bank, "t").findings == []


def test_dropping_twice_says_so_and_an_unknown_name_is_refused(bank):
    version = bank.table("t").drop_modality("DEM").version
    again = bank.table("t").drop_modality("DEM")
    assert (again.added, again.version) == (False, version)
    with pytest.raises(NotFoundError, match="S2L2A"):
        bank.table("t").drop_modality("S2L2B")


def test_the_last_modality_cannot_be_dropped(bank):
    bank.table("t").drop_modality("DEM")
    with pytest.raises(InvalidInputError, match="only modality"):
        bank.table("t").drop_modality("S2L2A")


def test_samples_without_another_modality_stay_and_have_no_place(bank, options):
    ingest(TinySource(1, 8, modalities=("DEM",)), bank, "t", options)
    bank.table("t").drop_modality("DEM")
    assert bank.table("t").snapshot().n_samples == 9
    report = replace_modality(TinySource(9, edition=2, modalities=("S2L2A",)), bank, "t", "S2L2A", options)
    assert (report.n_given, report.n_without) == (8, 1)
    assert verify(bank, "t").findings == []
