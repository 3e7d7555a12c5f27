"""A session finds the tables that a statement mentions: what is asked of the store, and when."""

from __future__ import annotations

import threading
import uuid
from collections import defaultdict
from contextlib import contextmanager

import pytest

import tensorbank as tb
from support.handmade_index import make_table, part_of
from tensorbank.catalog.catalog import Catalog
from tensorbank.planning import planner
from tensorbank.planning.logs_ahead import spelled
from tensorbank.sql import database
from tensorbank.storage import Store

TIMEOUT_S = 30
SOON_S = 2.0


@pytest.fixture
def folder(tmp_path):
    bank = tb.create(tmp_path / "bank")
    make_table(bank, "a", n=6, prefix="p")
    return tmp_path / "bank"


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


@pytest.fixture
def opened(s3_server):
    """A function that opens a bank with a table ``a`` in a bucket, as a process that knows nothing of it does."""
    url = f"{s3_server.url}/{uuid.uuid4().hex}"
    keys = {name: getattr(s3_server, name) for name in ("endpoint", "access_key", "secret_key")}
    make_table(tb.create(url, **keys), "a", n=6, prefix="p")
    return lambda cache: tb.open(url, cache=cache, **keys)


@pytest.fixture
def begun(monkeypatch):
    """The logs that were begun to be read ahead, with an event for each, set as soon as it is read."""
    found = defaultdict(threading.Event)
    ahead = Catalog.ahead

    def noted(self, table, level):
        log = ahead(self, table, level)
        found[table, level].set()
        return log

    monkeypatch.setattr(Catalog, "ahead", noted)
    return found


def test_logs_are_read_while_the_statement_waits_to_be_parsed(opened, tmp_path, monkeypatch, begun):
    """The instance that parses it comes only when the logs are there: in a row, they would wait for ever."""

    @contextmanager
    def late():
        for level in ("samples", "shards"):
            assert begun["a", level].wait(TIMEOUT_S), f"{level} is read after the statement is parsed"
        with database() as db:
            yield db

    monkeypatch.setattr(planner, "database", late)
    bank = opened(tmp_path / "cache")
    assert len(bank.sql("SELECT S2L2A FROM a").plan()) == 12
    begun.clear()
    monkeypatch.setattr(planner, "database", database)
    assert len(bank.sql("SELECT S2L2A FROM a").plan()) == 12
    assert not begun, "a table that was read before needs nothing ahead"


def test_what_was_read_ahead_is_not_asked_for_again(opened, tmp_path, monkeypatch):
    """Each log is listed once, and the bank, which has a table of that name, is not."""
    listed = []
    objects, folders = Store.objects, Store.folders

    def noted_objects(self, key, *rest: object, **named: object):
        listed.append(key)
        return objects(self, key, *rest, **named)

    def noted_folders(self, *rest: object, **named: object):
        listed.append("")
        return folders(self, *rest, **named)

    monkeypatch.setattr(Store, "objects", noted_objects)
    monkeypatch.setattr(Store, "folders", noted_folders)
    assert len(opened(tmp_path / "cache").sql("SELECT S2L2A FROM a").plan()) == 12
    assert sorted(listed) == [f"a/index/{level}/_delta_log" for level in ("samples", "shards")]


@pytest.mark.parametrize("is_late", [True, False], ids=["read before a commit", "nothing read"])
def test_a_log_that_was_read_ahead_counts_only_if_the_table_pins_it(opened, tmp_path, monkeypatch, is_late):
    """The log of shards is read, then a commit comes, and then the log of samples is read."""
    ahead, read = Catalog.ahead, threading.Event()

    def noted(self, table, level):
        if level == "samples":
            assert read.wait(TIMEOUT_S)
            opened(tmp_path / "other").catalog.commit("a", part_of("a", "late", 4, prefix="late"))
            return ahead(self, table, level)
        found = ahead(self, table, level) if is_late else None
        read.set()
        return found

    monkeypatch.setattr(Catalog, "ahead", noted)
    sql = "SELECT sample_id, S2L2A FROM a"
    plan = opened(tmp_path / "cache").sql(sql).plan()
    monkeypatch.setattr(Catalog, "ahead", ahead)
    assert len(plan) == 16
    known = opened(tmp_path / "another").sql(sql).plan()
    assert (plan.fingerprint, plan.source) == (known.fingerprint, known.source)


def test_a_name_that_only_looks_like_a_table_changes_no_answer(opened, tmp_path, begun):
    bank = opened(tmp_path / "cache")
    sql = "SELECT count(*) FILTER (extract(year FROM S2_time) > 0) AS n, 'x FROM nothing' AS t FROM a"
    assert bank.sql(sql).arrow().num_rows == 1
    assert {table for table, _ in begun} == {"S2_time", "nothing", "a"}
    with pytest.raises(tb.TensorBankError, match="no table 'b'") as raised:
        bank.sql("SELECT * FROM b").arrow()
    assert raised.value.kind == "unknown-table"


def test_what_was_read_in_vain_is_over_with_the_statement(opened, tmp_path, monkeypatch):
    """A process may fork then, and a lock that a thread held would stay locked in the child."""
    ahead, asked, over = Catalog.ahead, threading.Event(), threading.Event()

    def slow_in_vain(self, table, level):
        if table != "nothing":
            return ahead(self, table, level)
        asked.set()
        over.wait(SOON_S)  # which nobody sets: the statement is through long before
        over.set()
        return None

    @contextmanager
    def once_asked():
        assert asked.wait(TIMEOUT_S)
        with database() as db:
            yield db

    monkeypatch.setattr(Catalog, "ahead", slow_in_vain)
    monkeypatch.setattr(planner, "database", once_asked)
    opened(tmp_path / "cache").sql("SELECT 'x FROM nothing' AS t FROM a").arrow()
    assert over.is_set()


def test_a_store_out_of_reach_is_not_asked_again_by_other_ways(opened, tmp_path, monkeypatch):
    """It was asked for as long as is allowed when the first answer is an error."""

    def away(self, *rest: object, **named: object):
        raise tb.StorageError("away", kind="unreachable")

    def again(self, *rest: object, **named: object):
        raise AssertionError("the bank is listed")

    monkeypatch.setattr(Store, "objects", away)
    monkeypatch.setattr(Store, "folders", again)
    with pytest.raises(tb.StorageError, match="away"):
        opened(tmp_path / "cache").sql("SELECT S2L2A FROM a").plan()


def test_a_table_that_is_pinned_is_not_read_as_it_is_now(opened, tmp_path, begun):
    bank = opened(tmp_path / "cache").at({"a": 1})
    begun.clear()
    bank.sql("SELECT S2L2A FROM a").plan()
    assert not begun


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT * FROM a", {"a": set()}),
        ('select x from "a" JOIN b.tiles AS t USING (key)', {"a": set(), "b": {"tiles"}}),
        ("SELECT * FROM a.samples, c", {"a": {"samples"}}),
        ("WITH b AS (SELECT * FROM a), c AS NOT MATERIALIZED (SELECT 1) SELECT * FROM b, c", {"a": set()}),
        ("SELECT * FROM range(3)", {}),
        ("SELECT * FROM (SELECT * FROM a) JOIN a.shards ON true", {"a": {"shards"}}),
        ("SELECT 1", {}),
        (" UNION ".join(f"SELECT * FROM t{i}" for i in range(99)), {f"t{i}": set() for i in range(4)}),
    ],
)
def test_names_that_look_like_tables(sql, expected):
    assert spelled(sql) == expected


def test_names_of_common_tables_are_not_looked_for(folder, monkeypatch):
    """A guess that fails costs requests, so names that the statement itself defines are none."""
    read, names = Catalog._read, set()

    def noted(self, table, level, version, owner="", ahead=None):
        names.add(table)
        return read(self, table, level, version, owner, ahead)

    monkeypatch.setattr(Catalog, "_read", noted)
    tb.open(folder).sql("WITH b AS (SELECT * FROM a) SELECT count(*) AS n FROM b").arrow()
    assert names == {"a"}
