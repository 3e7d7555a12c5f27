"""Renaming of tables: one name or the other leads to all samples at every moment."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import timedelta

import pytest

import tensorbank as tb
from support.handmade_index import SCHEMA, make_table, part_of
from tensorbank.catalog import renaming
from tensorbank.cli.app import main
from tensorbank.storage import Store


@pytest.fixture
def bank(tmp_path):
    """A bank of one table of two parts, of which some samples are deleted, with a tag."""
    bank = tb.create(tmp_path / "bank")
    make_table(bank, "t", parts=2, n=8)
    bank.table("t").delete("sample_id = 'part-0-0003'")
    bank.table("t").at(2).tag("whole")
    return bank


def rows(bank: tb.Bank, table: str) -> list[str]:
    return sorted(json.dumps(r, default=str) for r in bank.sql(f"SELECT * FROM {table}").arrow().to_pylist())


def test_a_renamed_table_is_all_there_under_its_new_name(bank):
    before, history = rows(bank, "t"), bank.table("t").history()
    older = tb.open(bank.url).at({"t": 1}).table("t").snapshot()
    named = bank.rename("t", "u")
    fresh = tb.open(bank.url)
    assert fresh.tables() == ["u"]
    assert rows(fresh, "u") == before
    assert named.history()[1:] == history
    newest = named.history()[0]
    assert (newest.operation, newest.details["renamed_from"]) == ("rename", "t")
    assert fresh.table("u").at("whole").snapshot().n_samples == 16
    assert fresh.table("u").at(1).snapshot().n_samples == older.n_samples
    for opened in (bank, fresh):
        with pytest.raises(tb.NotFoundError, match="was renamed to u"):
            opened.table("t").snapshot()
    with pytest.raises(tb.InvalidInputError, match="u had before"):
        bank.catalog.create("t", SCHEMA, single_writer=True)
    fresh.catalog.commit("u", part_of("u", "late", 4))
    assert fresh.table("u").snapshot().n_samples == 19
    assert len(fresh.sql("SELECT NDVI FROM u WHERE NDVI IS NOT NULL").plan())


def test_a_table_gets_back_a_name_that_it_had(bank):
    before = rows(bank, "t")
    fresh = tb.open(bank.url)
    fresh.rename("t", "u")
    fresh.rename("u", "v")
    make_table(bank, "other", parts=1, n=2)
    with pytest.raises(tb.InvalidInputError, match="u had before"):
        bank.rename("other", "t")
    tb.open(bank.url).rename("v", "t")
    for opened in (bank, fresh, tb.open(bank.url)):
        assert opened.tables() == ["other", "t"]
        assert rows(opened, "t") == before
        for name, now in (("u", "v"), ("v", "t")):
            with pytest.raises(tb.NotFoundError, match=f"{name} was renamed to {now}"):
                opened.table(name).snapshot()
    assert bank.table("t").at("whole").snapshot().n_samples == 16
    bank.catalog.commit("t", part_of("t", "late", 4))
    bank.rename("t", "u")
    assert tb.open(bank.url).table("u").snapshot().n_samples == 19


def test_a_tag_keeps_its_version_when_garbage_is_collected_before_and_after(bank):
    bank.gc(older_than=timedelta(0), dry_run=False)
    bank.rename("t", "u")
    tb.open(bank.url).gc(older_than=timedelta(0), dry_run=False)
    assert tb.open(bank.url).table("u").at("whole").snapshot().n_samples == 16


def test_names_that_are_taken_or_none_are_refused(bank):
    make_table(bank, "other", parts=1, n=2)
    keys = sorted(info.key for info in bank.catalog.store.objects(""))
    for name in ("other", "T", "t", "main", "a b"):
        with pytest.raises(tb.InvalidInputError):
            bank.rename("t", name)
    with pytest.raises(tb.NotFoundError):
        bank.rename("no_table", "u")
    assert sorted(info.key for info in bank.catalog.store.objects("")) == keys


@pytest.mark.parametrize("names", ["tu", "tut"])
def test_wherever_it_is_stopped_one_name_has_all_samples_and_a_second_call_completes_it(
    tmp_path, monkeypatch, names
):
    *_, old, new = names
    put, create, delete = (getattr(Store, name) for name in ("put", "claim", "delete"))
    left = 0

    def counted(real):
        def call(self, key, data=None):
            nonlocal left
            if not left:
                raise KeyboardInterrupt
            left -= 1
            return real(self, key) if data is None else real(self, key, data)

        return call

    for n in range(0, 60, 3):
        bank = tb.create(tmp_path / f"bank{n}")
        make_table(bank, "t", parts=1, n=2)
        wanted = rows(bank, "t")
        if old == "u":
            bank.rename("t", "u")
        left = n
        with monkeypatch.context() as patched:
            for name, real in (("put", put), ("claim", create), ("delete", delete)):
                patched.setattr(Store, name, counted(real))
            try:
                bank.rename(old, new)
                done = True
            except KeyboardInterrupt:
                done = False
        readable = []
        for name in ("t", "u"):
            with suppress(tb.NotFoundError, tb.InvalidInputError):
                readable.append(rows(tb.open(bank.url), name))
        assert readable
        assert all(found == wanted for found in readable)
        again = tb.open(bank.url)
        if done:
            assert again.tables() == [new]
            break
        again.rename(old, new)
        assert tb.open(bank.url).tables() == [new]
        assert rows(tb.open(bank.url), new) == wanted
    else:
        pytest.fail("it never ended")


def test_a_writer_who_was_quicker_loses_nothing(bank, monkeypatch):
    say, late = renaming._say, part_of("t", "late", 4)

    def slow(catalog, head, new):
        if head.version == 3:
            tb.open(bank.url).catalog.commit("t", late)
        say(catalog, head, new)

    monkeypatch.setattr(renaming, "_say", slow)
    bank.rename("t", "u")
    assert tb.open(bank.url).table("u").snapshot().n_samples == 19


def test_of_two_renamings_one_wins(bank, monkeypatch):
    say = renaming._say

    def slow(catalog, head, new):
        monkeypatch.setattr(renaming, "_say", say)
        tb.open(bank.url).rename("t", "first")
        say(catalog, head, new)

    monkeypatch.setattr(renaming, "_say", slow)
    with pytest.raises(tb.TensorBankError):
        bank.rename("t", "second")
    assert len(rows(tb.open(bank.url), "first")) == 15


def test_the_command_renames(bank, capsys):
    assert main(["rename", bank.url, "t", "u"]) == 0
    assert capsys.readouterr().out == "t is u now, at version 4\n"
    assert main(["show", bank.url, "t"]) == 2
    assert "was renamed to u" in capsys.readouterr().err
