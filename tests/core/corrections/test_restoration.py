"""The restoration of earlier versions, against what readers of these versions saw."""

from __future__ import annotations

import json

import pytest

import tensorbank as tb
from support.handmade_index import SCHEMA, make_table, part_of
from tensorbank import TableSchema
from tensorbank.catalog import Change
from tensorbank.cli.app import main


@pytest.fixture
def bank(tmp_path):
    """A bank of one table of two parts, versions 1 and 2; its shards are there, and hold nothing."""
    bank = tb.create(tmp_path / "bank")
    for row in make_table(bank, "t", parts=2, n=8).samples:
        for modality in filter(row.get, SCHEMA.names):
            bank.catalog.store.put(row[modality]["ref"]["key"], b"pixels")
    return bank


def content(bank: tb.Bank, version: int | None = None) -> list:
    """All that a version says: rows of each level, sizes, statistics."""
    at = bank if version is None else tb.open(bank.url).at({"t": version})
    levels = [at.sql(f"SELECT * FROM t.{level}").arrow() for level in ("samples", "tiles", "shards")]
    rows = [sorted(json.dumps(r, default=str) for r in level.to_pylist()) for level in levels]
    snapshot = at.table("t").snapshot()
    sizes = [snapshot.n_samples, snapshot.stored_bytes, snapshot.n_parts, snapshot.n_shards]
    return [
        *rows,
        [level.schema for level in levels],
        sizes,
        at.table("t").schema,
        repr(at.table("t").describe()),
    ]


def test_a_version_comes_back_as_it_was(bank):
    before = content(bank, 1)
    bank.table("t").delete("lat > 0", reason="first")
    deleted = content(bank, 3)
    done = bank.table("t").restore(1)
    assert (done.version, done.restored, done.changed) == (4, 1, True)
    assert content(bank) == before
    assert content(bank, 3) == deleted
    bank.table("t").at(3).tag("with-gaps")
    assert bank.table("t").restore("with-gaps").version == 5
    assert content(bank) == deleted
    entry = bank.table("t").history()[0]
    assert entry.operation == "restore"
    assert entry.details["restored_version"] == 3
    assert (entry.details["n_samples_before"], entry.details["n_samples_after"]) == (8, deleted[4][0])


def test_work_goes_on_after_it(bank):
    bank.table("t").delete("part = 'part-0'")
    bank.table("t").restore(1)
    bank.catalog.commit("t", part_of("t", "part-1", 8))
    bank.catalog.commit("t", part_of("t", "part-2", 8))
    assert bank.table("t").delete("part = 'part-1'").n_samples == 8
    parts = bank.sql("SELECT part, count(*) AS n FROM t GROUP BY part").arrow().to_pylist()
    assert sorted((r["part"], r["n"]) for r in parts) == [("part-0", 8), ("part-2", 8)]
    assert (
        bank.catalog.membership(bank.catalog.version("t"))
        ._has(bank.sql("SELECT key FROM t").arrow()["key"].to_numpy(), 0)
        .all()
    )


def test_what_is_there_already_is_not_written_again(bank):
    assert bank.table("t").restore(2) == tb.open(bank.url).table("t").restore(2)
    assert bank.table("t").snapshot().version == 2
    bank.table("t").restore(1)
    assert not bank.table("t").restore(1).changed
    assert bank.table("t").snapshot().version == 3


def test_a_modality_that_was_dropped_comes_back(bank):
    before = content(bank, 2)
    fewer = TableSchema(tuple(m for m in SCHEMA if m.name != "NDVI"))
    bank.catalog.publish("t", lambda head: Change("drop-modality", schema=fewer))
    assert "NDVI" not in bank.table("t").schema.names
    bank.table("t").restore(2)
    assert content(bank) == before
    bank.table("t").restore(3)
    assert "NDVI" not in bank.table("t").schema.names


def test_modalities_come_back_to_their_places(bank):
    before = content(bank, 2)
    moved = TableSchema((*SCHEMA.modalities[1:], SCHEMA.modalities[0]))
    bank.catalog.publish("t", lambda head: Change("drop-modality", schema=TableSchema(SCHEMA.modalities[1:])))
    bank.catalog.publish("t", lambda head: Change("add-modality", schema=moved))
    assert bank.table("t").schema.names == moved.names
    assert bank.table("t").restore(2).changed
    assert bank.table("t").schema.names == SCHEMA.names
    assert content(bank) == before
    assert not bank.table("t").restore(2).changed


def test_a_version_whose_files_are_gone_is_refused_before_anything_is_written(bank):
    catalog, store = bank.catalog, bank.catalog.store
    bank.table("t").restore(1)
    store.delete("t/tensors/part-1/S2L2A/c/0/0/0/0/0")
    with pytest.raises(tb.NotFoundError, match=r"part-1/S2L2A/c/0/0/0/0/0 is gone") as refused:
        bank.table("t").restore(2)
    assert refused.value.kind == "missing-file"
    assert bank.table("t").snapshot().version == 3
    (file,) = {f.key for f in catalog.version("t", 2).samples.files} - {
        f.key for f in catalog.version("t").samples.files
    }
    store.delete(file)
    keys = sorted(info.key for info in store.objects("t"))
    with pytest.raises(tb.NotFoundError, match="cannot be restored"):
        tb.open(bank.url).table("t").restore(2)
    assert sorted(info.key for info in store.objects("t")) == keys


@pytest.mark.parametrize("version", [9, "no-tag", "2001-01-01", -1, 1.5])
def test_versions_that_are_none_are_refused(bank, version):
    with pytest.raises((tb.NotFoundError, tb.InvalidInputError)):
        bank.table("t").restore(version)


def test_the_command_restores(bank, capsys):
    bank.table("t").delete("true")
    assert main(["restore", bank.url, "t", "2"]) == 0
    assert capsys.readouterr().out == "version 4 of t holds what version 2 held\n"
    assert main(["restore", bank.url, "t", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"version": 4, "restored": 2, "changed": False}
    assert main(["restore", bank.url, "t", "7"]) == 2
