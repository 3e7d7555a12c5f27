"""Copies of tables: the same samples under another name, whose tensors stay where they are."""

from __future__ import annotations

import json

import pytest

import tensorbank as tb
from support.handmade_index import SCHEMA, make_table, part_of
from tensorbank.catalog import copies
from tensorbank.cli.app import main

ALL = "SELECT * EXCLUDE (part), part FROM {}"
PLANNED = "SELECT sample_id, S2L2A, NDVI FROM {} WHERE S2L2A IS NOT NULL"


@pytest.fixture
def bank(tmp_path):
    """A bank of one table of two parts, of which some samples are deleted."""
    bank = tb.create(tmp_path / "bank")
    make_table(bank, "t", parts=2, n=8)
    bank.table("t").delete("sample_id = 'part-0-0003'")
    return bank


def rows(bank: tb.Bank, table: str) -> list[str]:
    return sorted(json.dumps(r, default=str) for r in bank.sql(ALL.format(table)).arrow().to_pylist())


def test_a_copy_has_the_same_samples_and_leads_to_the_same_bytes(bank):
    made = bank.copy("t", "c")
    assert bank.tables() == ["c", "t"]
    assert rows(bank, "c") == rows(bank, "t")
    assert len(rows(bank, "c")) == 15
    here, there = bank.sql(PLANNED.format("t")).plan(), bank.sql(PLANNED.format("c")).plan()
    assert there.table.equals(here.table)
    assert there.fingerprint != here.fingerprint
    assert repr(made.describe()) == repr(bank.table("t").describe())
    sizes = ("n_samples", "n_parts", "n_shards", "tensor_bytes", "stored_bytes")
    assert all(getattr(made.snapshot(), n) == getattr(bank.table("t").snapshot(), n) for n in sizes)
    (first,) = made.history()
    assert (first.version, first.operation, first.n_rows) == (0, "copy", 15)
    assert (first.details["source_table"], first.details["source_version"]) == ("t", 3)


def test_each_table_goes_its_own_way(bank):
    bank.copy("t", "old", version=1)
    bank.copy("t", "c")
    bank.table("c").delete("part = 'part-0'")
    bank.catalog.commit("t", part_of("t", "late", 4))
    bank.catalog.commit("c", part_of("c", "own", 4))
    counts = {name: bank.table(name).snapshot().n_samples for name in bank.tables()}
    assert counts == {"t": 19, "c": 12, "old": 8}
    both = "SELECT a.S2L2A FROM c AS a JOIN t AS b USING (sample_id) WHERE a.S2L2A IS NOT NULL"
    n_both = bank.sql(both.replace("a.S2L2A FROM", "count(*) AS n FROM")).arrow()["n"].to_pylist()
    assert [len(bank.sql(both).plan())] == n_both
    sql = "SELECT NDVI FROM c WHERE NDVI IS NOT NULL"
    keys = bank.sql(sql.replace("NDVI FROM", "NDVI.ref.key AS key FROM")).arrow()["key"].to_pylist()
    assert {key.split("/")[0] for key in keys} == {"t", "c"}
    assert len(bank.sql(sql).plan()) == len(keys)


def test_a_copy_that_is_there_is_not_made_again(bank):
    bank.copy("t", "c")
    keys = sorted(info.key for info in bank.catalog.store.objects("c"))
    bank.copy("t", "c")
    assert sorted(info.key for info in bank.catalog.store.objects("c")) == keys
    with pytest.raises(tb.InvalidInputError, match="has a table 'c' already"):
        bank.copy("t", "c", version=1)


@pytest.mark.parametrize("name", ["t", "T", "main", "a b", "select"])
def test_names_that_are_taken_or_none_are_refused(bank, name):
    keys = sorted(info.key for info in bank.catalog.store.objects(""))
    with pytest.raises(tb.InvalidInputError):
        bank.copy("t", name)
    assert sorted(info.key for info in bank.catalog.store.objects("")) == keys
    with pytest.raises(tb.NotFoundError):
        bank.copy("no_table", "c")
    with pytest.raises(tb.NotFoundError):
        bank.copy("t", "c", version=99)


def test_a_copy_that_was_stopped_is_seen_by_nobody_and_completed(bank, monkeypatch):
    append = copies.append_commit
    for n_commits in range(5):  # tiles, shards, keys, deleted, samples
        left = iter([True] * n_commits)

        def stopped(store, folder, version, actions, info, left=left):
            if not next(left, False):
                raise KeyboardInterrupt
            return append(store, folder, version, actions, info)

        monkeypatch.setattr(copies, "append_commit", stopped)
        with pytest.raises(KeyboardInterrupt):
            bank.copy("t", "c")
        monkeypatch.setattr(copies, "append_commit", append)
        assert tb.open(bank.url).tables() == ["t"]
        for info in bank.catalog.store.objects("c") if n_commits < 4 else ():
            bank.catalog.store.delete(info.key)
    bank.copy("t", "c")
    assert rows(bank, "c") == rows(bank, "t")


def test_of_two_that_make_one_table_one_is_refused(bank, monkeypatch):
    append = copies.append_commit

    def late(store, folder, version, actions, info):
        if folder == "c/index/samples":
            tb.open(bank.url).catalog.create("c", SCHEMA, single_writer=True)
            tb.open(bank.url).catalog.commit("c", part_of("c", "mine", 3))
        return append(store, folder, version, actions, info)

    monkeypatch.setattr(copies, "append_commit", late)
    with pytest.raises(tb.InvalidInputError, match="already"):
        bank.copy("t", "c")
    assert bank.table("c").snapshot().n_samples == 3


def test_the_command_copies(bank, capsys):
    assert main(["copy", bank.url, "t", "c", "--at", "1"]) == 0
    assert capsys.readouterr().out == "table c has 8 samples; its tensors are those of t\n"
    assert main(["copy", bank.url, "t", "c", "--at", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_samples"] == 8
    assert main(["copy", bank.url, "t", "c"]) == 2
