"""A session finds the tables that a statement mentions: what is asked of the store, and when."""

from __future__ import annotations

import threading

import pytest

import tensorbank as tb
from support.handmade_index import make_table
from tensorbank.catalog.catalog import Catalog

TIMEOUT_S = 30


@pytest.fixture
def folder(tmp_path):
    bank = tb.create(tmp_path / "bank")
    make_table(bank, "a", n=6, prefix="p")
    return tmp_path / "bank"


def test_a_table_is_opened_while_the_bank_is_listed(folder, monkeypatch):
    """The listing ends only when all levels have been asked for: in a row, they would wait for each other for ever."""
    asked = {level: threading.Event() for level in ("samples", "shards")}
    listing, read = Catalog.among, Catalog._read

    def slow_listing(self, names):
        for level, event in asked.items():
            assert event.wait(TIMEOUT_S), f"{level} is asked for after the listing"
        return listing(self, names)

    def noted(self, table, level, version, owner=""):
        asked[level].set()
        return read(self, table, level, version, owner)

    monkeypatch.setattr(Catalog, "among", slow_listing)
    monkeypatch.setattr(Catalog, "_read", noted)
    assert len(tb.open(folder).sql("SELECT S2L2A FROM a").plan()) == 12


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) AS n FROM A",
        "SELECT count(*) AS n FROM a.samples",
        "WITH b AS (SELECT * FROM a) SELECT count(*) AS n FROM b",
        "WITH a AS (SELECT * FROM a) SELECT count(*) AS n FROM a",
    ],
    ids=["other case", "a level", "a common table", "a common table of the same name"],
)
def test_names_mean_what_sql_says(folder, sql):
    assert tb.open(folder).sql(sql).arrow()["n"].to_pylist() == [12]


def test_names_of_common_tables_are_not_looked_for(folder, monkeypatch):
    """A guess that fails costs requests, so names that the statement itself defines are none."""
    read, names = Catalog._read, set()

    def noted(self, table, level, version, owner=""):
        names.add(table)
        return read(self, table, level, version, owner)

    monkeypatch.setattr(Catalog, "_read", noted)
    tb.open(folder).sql("WITH b AS (SELECT * FROM a) SELECT count(*) AS n FROM b").arrow()
    assert names == {"a"}
