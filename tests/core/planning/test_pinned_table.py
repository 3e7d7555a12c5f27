"""A session finds the tables that a statement mentions: what is asked of the store, and when."""

from __future__ import annotations

import threading
import uuid

import pytest

import tensorbank as tb
from support.handmade_index import make_table, part_of
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

    def noted(self, table, level, version, owner="", ahead=None):
        asked[level].set()
        return read(self, table, level, version, owner, ahead)

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

    def noted(self, table, level, version, owner="", ahead=None):
        names.add(table)
        return read(self, table, level, version, owner, ahead)

    monkeypatch.setattr(Catalog, "_read", noted)
    tb.open(folder).sql("WITH b AS (SELECT * FROM a) SELECT count(*) AS n FROM b").arrow()
    assert names == {"a"}


@pytest.fixture
def opened(s3_server):
    """A function that opens a bank with a table ``a`` in a bucket, as a process that knows nothing of it does."""
    url = f"{s3_server.url}/{uuid.uuid4().hex}"
    keys = {name: getattr(s3_server, name) for name in ("endpoint", "access_key", "secret_key")}
    make_table(tb.create(url, **keys), "a", n=6, prefix="p")
    return lambda cache: tb.open(url, cache=cache, **keys)


def test_logs_of_other_levels_are_read_before_it_is_known_what_the_table_pins(opened, tmp_path, monkeypatch):
    """The version of the table is found only when the log of shards is there: in a row, it would wait for ever."""
    read_ahead = threading.Event()
    ahead, version = Catalog.ahead, Catalog.version

    def noted(self, table, level):
        found = ahead(self, table, level)
        read_ahead.set()
        return found

    def late(self, table, version_=None):
        assert read_ahead.wait(TIMEOUT_S), "shards are read after samples"
        return version(self, table, version_)

    monkeypatch.setattr(Catalog, "ahead", noted)
    monkeypatch.setattr(Catalog, "version", late)
    bank = opened(tmp_path / "cache")
    assert len(bank.sql("SELECT S2L2A FROM a").plan()) == 12
    read_ahead.clear()
    monkeypatch.setattr(Catalog, "version", version)
    assert len(bank.sql("SELECT S2L2A FROM a").plan()) == 12
    assert not read_ahead.is_set(), "a table that was read before needs nothing ahead"


@pytest.mark.parametrize("is_late", [True, False], ids=["read before a commit", "nothing read"])
def test_a_log_that_was_read_ahead_counts_only_if_the_table_pins_it(opened, tmp_path, monkeypatch, is_late):
    ahead, version = Catalog.ahead, Catalog.version
    read_ahead = threading.Event()

    def noted(self, table, level):
        found = ahead(self, table, level) if is_late else None
        read_ahead.set()
        return found

    def after_a_commit(self, table, version_=None):
        assert read_ahead.wait(TIMEOUT_S)
        monkeypatch.setattr(Catalog, "version", version)
        opened(tmp_path / "other").catalog.commit("a", part_of("a", "late", 4, prefix="late"))
        return version(self, table, version_)

    monkeypatch.setattr(Catalog, "ahead", noted)
    monkeypatch.setattr(Catalog, "version", after_a_commit)
    sql = "SELECT sample_id, S2L2A FROM a"
    plan = opened(tmp_path / "cache").sql(sql).plan()
    assert len(plan) == 16
    known = opened(tmp_path / "another").sql(sql).plan()
    assert (plan.fingerprint, plan.source) == (known.fingerprint, known.source)
