"""The collection of garbage: what nobody needs goes, and nothing else, wherever it ends and whoever writes meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import tensorbank as tb
from support.handmade_index import SCHEMA, part_of
from tensorbank import IntegrityError, NotFoundError
from tensorbank.catalog import Change, Commit, LevelChange, publishing
from tensorbank.cli.app import main
from tensorbank.delta import append_commit, commit_actions
from tensorbank.layout import LEVELS
from tensorbank.removal import collect, collection
from tensorbank.retention import Lease, lease_key
from tensorbank.retention.owners import this_process
from tensorbank.storage import PROBE, Store

AT_ONCE = timedelta(0)


def put_tensors(bank, commit: Commit) -> None:
    """Store an object for each shard of a part, and the documents and report of an ingest."""
    store = bank.catalog.store
    for row in commit.shards.to_pylist():
        for modality in SCHEMA:
            if row[modality.name]:
                store.put(row[modality.name]["key"], f"pixels of {row[modality.name]['key']}".encode())
    folder = f"t/tensors/{commit.part}"
    for modality in SCHEMA:
        store.put(f"{folder}/{modality.name}/zarr.json", b"{}")
    store.put(f"{folder}/zarr.json", b"{}")
    store.put(f"{folder}.ingest.json", b"{}")


def grow(bank, part: str, n: int = 6, table: str = "t") -> Commit:
    commit = part_of(table, part, n)
    put_tensors(bank, commit)
    bank.catalog.create(table, SCHEMA, single_writer=True)
    bank.catalog.commit(table, commit)
    return commit


def drop_part(bank, part: str) -> None:
    """Publish a version without a part."""

    def make(head):
        changes = {}
        for level in LEVELS:
            files = bank.catalog.state(head, level).files.files
            changes[level] = LevelChange(removed=tuple(f for f in files if f.part == part))
        return Change("drop", changes)

    bank.catalog.publish("t", make)


def grown(folder) -> tb.Bank:
    """A table with a part that only older versions have: versions 1 to 4, the last one without ``old``."""
    bank = tb.create(folder)
    for part in ("old", "one", "two"):
        grow(bank, part)
    drop_part(bank, "old")
    return bank


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return grown(tmp_path_factory.mktemp("made") / "bank")


@pytest.fixture
def bank(made, tmp_path):
    shutil.copytree(made.catalog.store.local_path, tmp_path / "bank")
    return tb.open(tmp_path / "bank")


def keys(bank) -> set[str]:
    return {o.key for o in bank.catalog.store.objects()}


def of_part(bank, part: str) -> set[str]:
    return {k for k in keys(bank) if k.startswith((f"t/tensors/{part}/", f"t/tensors/{part}."))}


def ids(bank, sql: str = "SELECT sample_id FROM t") -> list[str]:
    return sorted(bank.sql(sql).arrow()["sample_id"].to_pylist())


def needed_by(bank) -> set[str]:
    """The objects that the newest version needs, by pyarrow alone: index files, their shards, and the documents beside these."""
    head = bank.catalog.version("t")
    found = {f.key for level in ("samples", *head.pins) for f in bank.catalog.state(head, level).files.files}
    for file in bank.catalog.state(head, "shards").files.files:
        for row in pq.read_table(bank.catalog.path(file)).to_pylist():
            found |= {row[m.name]["key"] for m in SCHEMA if row[m.name]}
            part = f"t/tensors/{row['part']}"
            found |= {
                f"{part}/zarr.json",
                f"{part}.ingest.json",
                *(f"{part}/{m.name}/zarr.json" for m in SCHEMA),
            }
    return found


def test_nothing_goes_within_the_grace_period(bank):
    before = keys(bank)
    found = bank.gc(dry_run=False)
    assert (found.n_objects, found.expired) == (0, {"t": ()})
    assert keys(bank) == before


def test_a_dry_run_says_what_a_collection_removes(bank):
    before, expected = keys(bank), ids(bank)
    told = bank.gc(older_than=AT_ONCE)
    assert told.dry_run
    assert keys(bank) == before
    assert told.expired == {"t": (0, 1, 2, 3)}
    done = bank.gc(older_than=AT_ONCE, dry_run=False)
    assert done.kinds == told.kinds
    after = keys(bank)
    assert len(before - after) == done.n_objects
    assert of_part(bank, "old") == set()
    left = {k for k in after if "/_delta_log/" not in k}
    assert {k for k in left if not k.startswith("t/expired/")} == needed_by(bank)
    assert len(left - needed_by(bank)) == 1
    assert ids(tb.open(bank.url)) == expected
    assert bank.gc(older_than=AT_ONCE).n_objects == 0


def test_an_expired_version_says_who_removed_it(bank):
    bank.gc(older_than=AT_ONCE, dry_run=False)
    opened = tb.open(bank.url)
    with pytest.raises(
        NotFoundError, match=r"version 2 of .* was removed by `tensorbank gc`.* begins with version 4"
    ) as caught:
        ids(opened.at({"t": 2}))
    assert caught.value.kind == "unknown-snapshot"
    assert [h.version for h in opened.table("t").history()] == [4]
    grow(opened, "three")
    assert [h.version for h in opened.table("t").history()] == [5, 4]
    assert len(ids(opened)) == 18


def test_versions_that_were_the_newest_lately_stay(bank):
    log = sorted((bank.catalog.store.local_path / "t/index/samples/_delta_log").glob("*.json"))
    assert len(log) == 5
    of_version_3 = committed_ms(log[3])
    for behind_ms in (0, 3_600_000):  # of the store's clock, and then of that of who committed
        for version, path in enumerate(log):
            written_s = of_version_3 / 1000 + (version - 3) * 60 - behind_ms / 1000
            os.utime(path, (written_s, written_s))
        week_after = datetime.fromtimestamp(of_version_3 / 1000, UTC) + timedelta(days=7)
        found = collect(bank.catalog, now=week_after + timedelta(milliseconds=1))
        assert found.expired == {"t": (0, 1, 2)}
        assert set(found.kept["t"]) == {3}
        found = collect(bank.catalog, now=week_after - timedelta(milliseconds=1))
        assert found.expired == {"t": (0, 1)}


def committed_ms(commit: Path) -> int:
    lines = map(json.loads, commit.read_text().splitlines())
    return next(line["commitInfo"]["timestamp"] for line in lines if "commitInfo" in line)


@pytest.mark.parametrize("clock", ["1 h behind", "1970"])
def test_a_version_stays_its_time_whatever_time_its_successor_was_committed_at(bank, clock, monkeypatch):
    wrong_s = {"1 h behind": time.time() - 3600, "1970": 0.0}[clock]
    with monkeypatch.context() as patched:
        patched.setattr(publishing.time, "time", lambda: wrong_s)
        grow(bank, "three")
    log = bank.catalog.store.local_path / "t/index/samples/_delta_log"
    assert committed_ms(log / f"{5:020}.json") == int(wrong_s * 1000)
    found = bank.gc(older_than=timedelta(minutes=30), dry_run=False)
    assert "t" in found.kept
    assert found.kept["t"][4] == "it was the newest lately"


class Ahead(datetime):
    """The clock of a machine that is an hour ahead."""

    @classmethod
    def now(cls, tz=None) -> datetime:
        return datetime.now(tz) + timedelta(hours=1)


def test_a_collector_whose_clock_is_ahead_removes_no_more_for_that(bank, monkeypatch):
    """An ingest under way, and a reader whose lease is renewed; by the collector's clock both are an hour old."""
    store = bank.catalog.store
    under_way = part_of("t", "under-way", 6)
    put_tensors(bank, under_way)
    now = datetime.now(UTC)
    table_id = bank.catalog.version("t").table_id
    lease = Lease("0" * 32, table_id, (2,), now, now + timedelta(minutes=15), this_process())
    store.put(lease_key("t", lease.id), lease.to_bytes())
    before = keys(bank)
    monkeypatch.setattr(collection, "datetime", Ahead)
    found = bank.gc(older_than=timedelta(minutes=30), dry_run=False)
    assert found.n_objects == 0
    assert keys(bank) == before
    assert bank.gc(older_than=AT_ONCE, dry_run=False).n_objects > 0
    assert not of_part(bank, "under-way")


def test_tags_and_leases_keep_versions_with_all_they_need(bank):
    expected = ids(bank.at({"t": 1}))
    bank.table("t").at(1).tag("paper")
    table_id = bank.catalog.version("t").table_id
    now = datetime.now(UTC)
    lease = Lease("0" * 32, table_id, (2,), now, now + timedelta(hours=1), this_process())
    bank.catalog.store.put(lease_key("t", lease.id), lease.to_bytes())
    found = bank.gc(older_than=AT_ONCE, dry_run=False)
    assert found.expired == {"t": (0, 3)}
    assert "tag paper" in found.kept["t"][1]
    assert "lease of" in found.kept["t"][2]
    assert of_part(bank, "old")
    opened = tb.open(bank.url)
    assert ids(opened.at({"t": "paper"})) == expected
    assert len(ids(opened.at({"t": 2}))) == 12
    opened.table("t").untag("paper")
    opened.catalog.store.delete(lease_key("t", lease.id))
    opened.gc(older_than=AT_ONCE, dry_run=False)
    assert of_part(bank, "old") == set()


def test_a_damaged_tag_keeps_everything(bank):
    bank.table("t").at(1).tag("paper")
    (path,) = bank.catalog.store.local_path.glob("t/tags/*")
    path.write_bytes(path.read_bytes()[:-9])
    found = bank.gc(older_than=AT_ONCE, dry_run=False)
    assert found.expired == {"t": ()}
    assert "paper" in found.damaged[0]
    assert len(ids(tb.open(bank.url).at({"t": 1}))) == 6


def test_what_a_killed_ingest_left_goes_when_it_is_old(bank):
    left = part_of("t", "left", 4)
    put_tensors(bank, left)
    bank.catalog.store.put("t/tensors/left.progress/0.arrow", b"rows")
    bank.gc(older_than=timedelta(hours=1), dry_run=False)
    assert len(of_part(bank, "left")) > 6
    done = bank.gc(older_than=AT_ONCE, dry_run=False)
    assert done.kinds["unfinished ingests"].n_objects == 1
    assert of_part(bank, "left") == set()
    assert not (bank.catalog.store.local_path / "t/tensors/left").exists()


def test_what_another_table_refers_to_stays(bank):
    copied = part_of("t", "old", 6)
    bank.catalog.create("other", SCHEMA, single_writer=True)
    bank.catalog.commit("other", copied)  # its keys lead to the folder of t
    kept = of_part(bank, "old")
    found = bank.gc("t", older_than=AT_ONCE, dry_run=False)
    assert found.kinds["tensors"].n_objects == 0
    assert of_part(bank, "old") == kept
    assert set(found.expired) == {"t"}
    assert [h.version for h in tb.open(bank.url).table("other").history()] == [1, 0]


def test_tensors_that_only_samples_name_stay(bank):
    def make(head):
        files = bank.catalog.state(head, "shards").files.files
        return Change("forget", {"shards": LevelChange(removed=tuple(files))})

    bank.catalog.publish("t", make)
    kept = of_part(bank, "one")
    bank.gc(older_than=AT_ONCE, dry_run=False)
    assert of_part(bank, "one") == kept
    assert of_part(bank, "old") == set()


def test_what_is_not_ours_is_told_and_left(bank):
    store = bank.catalog.store
    foreign = {
        "notes.txt",
        "t/README",
        "t/tensors/one/mine.bin",
        "t/index/samples/mine.parquet",
        "t/exports/a",
        "tables.json",
    }
    for key in foreign:
        store.put(key, b"mine")
    found = bank.gc(older_than=AT_ONCE, dry_run=False)
    assert set(found.foreign) == foreign
    assert found.n_foreign == len(foreign)
    assert foreign <= keys(bank)


def test_a_part_that_is_committed_meanwhile_stays(bank):
    late = part_of("t", "late", 4)
    put_tensors(bank, late)
    other = tb.open(bank.url)
    begun = []

    def meanwhile(what, done, total):
        if not begun:
            begun.append(what)
            other.catalog.commit("t", late)

    bank.gc(older_than=AT_ONCE, dry_run=False, progress=meanwhile)
    assert len(of_part(bank, "late")) > 6
    assert len(ids(tb.open(bank.url))) == 16


def test_versions_of_a_level_that_no_snapshot_has_lose_their_files(bank):
    catalog = bank.catalog
    new = catalog.write("t", "tiles", part_of("t", "lost", 3).tiles)
    state = catalog.newest("t", "tiles")
    append_commit(
        catalog.store,
        "t/index/tiles",
        state.version + 1,
        commit_actions("t/index/tiles", LevelChange((new,)), {}),
        {},
    )
    done = bank.gc(older_than=AT_ONCE, dry_run=False)
    assert new.key not in keys(bank)
    assert done.kinds["index files"].n_objects > 1
    opened = tb.open(bank.url)
    grow(opened, "three")
    assert len(ids(opened, "SELECT DISTINCT sample_id FROM t.tiles")) == 18


def test_a_damaged_log_ends_all_before_anything_goes(bank):
    grow(bank, "part", table="u")
    log = bank.catalog.store.local_path / f"u/index/shards/_delta_log/{1:020}.json"
    log.write_bytes(log.read_bytes().replace(b"add", b"odd", 1))
    before = keys(bank)
    with pytest.raises(IntegrityError, match=r"shards/_delta_log"):
        tb.open(bank.url).gc("t", older_than=AT_ONCE, dry_run=False)
    assert keys(bank) == before


def test_a_collection_that_is_ended_anywhere_is_completed_by_the_next(made, tmp_path, monkeypatch):
    expected = ids(made)
    first = tmp_path / "whole"
    shutil.copytree(made.catalog.store.local_path, first)
    whole = tb.open(first)
    n = whole.gc(older_than=AT_ONCE, dry_run=False).n_objects
    left = keys(whole)
    delete = Store.delete
    monkeypatch.setattr("tensorbank.removal.collection.N_THREADS", 1)
    assert n > 5
    for at in range(0, n, 5):
        folder = tmp_path / f"ended-{at}"
        shutil.copytree(made.catalog.store.local_path, folder)
        count = iter(range(n))

        def ended(store, key, at=at, count=count):
            if not key.startswith(PROBE) and next(count) == at:
                raise tb.StorageError("the end")
            delete(store, key)

        with monkeypatch.context() as patched:
            patched.setattr(Store, "delete", ended)
            with pytest.raises(tb.StorageError, match="the end"):
                tb.open(folder).gc(older_than=AT_ONCE, dry_run=False)
        assert ids(tb.open(folder)) == expected
        again = tb.open(folder)
        again.gc(older_than=AT_ONCE, dry_run=False)
        assert keys(again) == left, at
        shutil.rmtree(folder)


def test_compaction_and_collection_leave_one_file_a_level(bank):
    expected = bank.sql("SELECT sample_id, S2L2A FROM t").plan().table
    bank.table("t").compact()
    bank.gc(older_than=AT_ONCE, dry_run=False)
    index = [k for k in keys(bank) if k.startswith("t/index/") and "/_delta_log/" not in k]
    assert len(index) == 4
    assert tb.open(bank.url).sql("SELECT sample_id, S2L2A FROM t").plan().table.equals(expected)


@pytest.mark.parametrize("level", ["samples", "tiles", "keys"])
def test_lifetimes_are_what_each_version_has(bank, level):
    """By delta-rs, version after version."""
    bank.table("t").compact()
    catalog = bank.catalog
    for _ in range(2):
        known = catalog.lifetimes("t", level)
        assert known.first <= known.last
        for number in range(known.first, known.last + 1):
            state = catalog._read("t", level, number)[0]
            assert known.needed([number]) == {f.key for f in state.files.files}
            if level == "samples":
                version = catalog.version("t", number)
                said = known.transactions_at(number)
                assert {
                    k.removeprefix("tensorbank.pin."): v for k, v in said.items() if ".pin." in k
                } == version.pins
        bank.gc(older_than=AT_ONCE, dry_run=False)
        grow(bank, "later")
        catalog = tb.open(bank.url).catalog


def test_the_command_lists_and_removes(bank, capsys):
    bank.table("t").at(1).tag("paper")
    assert main(["gc", bank.url, "--older-than", "0s"]) == 0
    out = capsys.readouterr().out
    assert "would be removed" in out
    assert "t at version 1 stays: tag paper" in out
    assert main(["gc", bank.url, "t", "--older-than", "0s", "--delete", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["expired"] == {"t": [0, 2, 3]}
    assert found["n_objects"] > 0
    assert main(["gc", bank.url, "--older-than", "soon"]) == 2
    assert "such as 36h or 7d" in capsys.readouterr().err
    assert main(["gc", bank.url, "nothere"]) == 2


def ended_gc(bank, at: int, monkeypatch) -> None:
    """Collect garbage up to the n-th removal."""
    delete, count = Store.delete, iter(range(10_000))

    def ended(store, key):
        if not key.startswith(PROBE) and next(count) == at:
            raise tb.StorageError("the end")
        delete(store, key)

    with monkeypatch.context() as patched:
        patched.setattr(Store, "delete", ended)
        with pytest.raises(tb.StorageError, match="the end"):
            bank.gc(older_than=AT_ONCE, dry_run=False)


def how_it_reads(bank, version: int) -> str:
    try:
        return f"{len(ids(bank.at({'t': version})))} samples"
    except tb.TensorBankError as error:
        return error.kind


@pytest.mark.parametrize("at", [0, 3, 9, 20])
def test_a_version_of_which_a_collection_has_left_half_says_that_it_has_expired(bank, at, monkeypatch):
    writer = tb.open(bank.url)
    for version in range(5):
        ids(writer.at({"t": version}))  # whatever it knows of them
    ended_gc(tb.open(bank.url), at, monkeypatch)
    for opened in (writer, tb.open(bank.url)):
        table = opened.table("t")
        for refused in (
            lambda table=table: table.restore(2),
            lambda table=table: table.at(2).tag("kept"),
            lambda opened=opened: opened.copy("t", "u", version=2),
        ):
            with pytest.raises(
                NotFoundError, match=r"gc` has removed|was removed by `tensorbank gc"
            ) as caught:
                refused()
            assert caught.value.kind == "unknown-snapshot"
        assert table.tags() == []
        assert opened.tables() == ["t"]
        assert len(ids(opened)) == 12
    assert how_it_reads(tb.open(bank.url), 2) in ("12 samples", "unknown-snapshot")


def test_a_version_that_is_restored_meanwhile_stays(bank, monkeypatch):
    """The collection has not said yet that it goes, and sees then that somebody brings it back."""
    mark = collection.mark_expired

    def slow(store, names, table_id, versions):
        monkeypatch.setattr(collection, "mark_expired", mark)
        tb.open(bank.url).table("t").restore(2)
        mark(store, names, table_id, versions)

    monkeypatch.setattr(collection, "mark_expired", slow)
    bank.gc(older_than=AT_ONCE, dry_run=False)
    assert len(ids(tb.open(bank.url))) == 12
    assert needed_by(bank) <= keys(bank)


def test_probes_of_the_store_that_a_killed_writer_left_go(bank):
    store = bank.catalog.store
    probe = f"{PROBE}{uuid.uuid4()}"
    store.put(probe, b"first 0")
    assert bank.gc(older_than=timedelta(hours=1), dry_run=False).n_objects == 0
    found = bank.gc(older_than=AT_ONCE, dry_run=False)
    assert found.kinds["tests of the store"].n_objects == 1
    assert probe not in keys(bank)
    assert probe not in found.foreign


def test_a_lease_protects_its_version_after_its_table_got_another_name(bank):
    now = datetime.now(UTC)
    lease = Lease(
        "reader",
        bank.catalog.version("t").table_id,
        (2,),
        now,
        now + timedelta(hours=1),
        this_process(),
    )
    bank.catalog.store.put(lease_key("t", "reader"), lease.to_bytes())
    before = ids(bank.at({"t": 2}))
    bank.rename("t", "u")
    bank.gc(older_than=AT_ONCE, dry_run=False)
    fresh = tb.open(bank.url)
    assert (
        sorted(fresh.at({"u": 2}).sql("SELECT sample_id FROM u").arrow()["sample_id"].to_pylist()) == before
    )
    assert of_part(bank, "old")
    collect(fresh.catalog, older_than=AT_ONCE, dry_run=False, now=now + timedelta(hours=2))
    assert not of_part(bank, "old")
    assert not bank.catalog.store.exists(lease_key("t", "reader"))
