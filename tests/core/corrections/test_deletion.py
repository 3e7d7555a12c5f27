"""Deletion by a condition, against the rows that the test committed itself."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest

import tensorbank as tb
from support.handmade_index import SCHEMA, make_table, part_of
from tensorbank.catalog import key_of
from tensorbank.cli.app import main
from tensorbank.corrections import deletion

EAST = "lon > 0"


@pytest.fixture
def made(tmp_path):
    """A bank of one table of three parts, and its rows."""
    bank = tb.create(tmp_path / "bank")
    return bank, make_table(bank, "t", parts=3, n=10)


def ids(bank: tb.Bank, level: str = "samples") -> list[str]:
    return sorted(bank.sql(f"SELECT sample_id FROM t.{level}").arrow()["sample_id"].to_pylist())


def west(made) -> list[dict]:
    return [row for row in made.samples if row["lon"] <= 0]


def test_rows_vanish_from_every_level_and_older_versions_keep_them(made):
    bank, rows = made
    pinned = bank.at({"t": 3})
    sql = "SELECT sample_id, S2L2A FROM t WHERE S2L2A IS NOT NULL"
    before = pinned.sql(sql).plan()
    done = bank.table("t").delete(EAST, reason="seen twice")
    left = sorted(row["sample_id"] for row in west(rows))
    assert (done.version, done.n_samples, done.n_left) == (4, 30 - len(left), len(left))
    assert 0 < len(left) < 30
    assert ids(bank) == left
    assert ids(bank, "tiles") == sorted(left * 2)
    after = tb.open(bank.url).at({"t": 3}).sql(sql).plan()
    assert after.fingerprint == before.fingerprint
    assert after.table.equals(before.table)
    entry = bank.table("t").history()[0]
    assert (entry.operation, entry.details["n_deleted"], entry.details["where"]) == (
        "delete",
        done.n_samples,
        EAST,
    )
    assert entry.details["reason"] == "seen twice"


def test_the_deleted_rows_are_written_as_the_format_says(made):
    bank, rows = made
    bank.table("t").delete("lon > 90")
    bank.table("t").delete("lon > 0")
    catalog = bank.catalog
    files = catalog.state(catalog.version("t"), "deleted").files.files
    written = [row for file in files for row in pq.read_table(catalog.path(file)).to_pylist()]
    wanted = {
        (key_of(r["split"], r["sample_id"]), key_of(r["split"], r["subset"], r["stem"]), r["part"])
        for r in rows.samples
        if r["lon"] > 0
    }
    assert {(r["key"], r["stem_key"], r["part"]) for r in written} == wanted
    assert len(written) == len(wanted)


def test_every_number_is_of_the_samples_that_are_left(made):
    bank, rows = made
    bank.table("t").delete(EAST)
    left = west(rows)
    snapshot, described = bank.table("t").snapshot(), bank.table("t").describe()
    refs = {m.name: [r[m.name]["ref"] for r in left if r[m.name]] for m in SCHEMA}
    assert snapshot.n_samples == len(left)
    assert snapshot.n_parts == len({r["part"] for r in left})
    assert snapshot.tensor_bytes == sum(len(refs[m.name]) * m.sample_bytes for m in SCHEMA)
    assert snapshot.stored_bytes == sum(ref["length"] for of_one in refs.values() for ref in of_one)
    bands = [r["S2L2A"]["B08"] for r in left if r["S2L2A"] and r["S2L2A"]["B08"]["valid"]]
    assert described["S2L2A"].n_samples == len(refs["S2L2A"])
    assert described["S2L2A"]["B08"].max == max(b["max"] for b in bands)
    assert described["S2L2A"]["B08"].mean == pytest.approx(sum(b["mean"] for b in bands) / len(bands))
    plan = bank.sql("SELECT NDVI FROM t").plan()
    levels = {level.level: level for level in plan.source.levels}
    assert (levels["samples"].considered, levels["samples"].kept) == (len(left), len(left))
    assert plan.source.scan_bytes == sum(ref["length"] for ref in refs["NDVI"])
    tiles = bank.sql("SELECT sample_id FROM t.tiles WHERE tile = 0").plan()
    assert {v.level: v.considered for v in tiles.source.levels}["tiles"] == 2 * len(left)


def test_deleting_again_deletes_nothing(made):
    bank, rows = made
    bank.table("t").delete(EAST)
    again = bank.table("t").delete(EAST)
    assert (again.version, again.n_samples, again.n_left) == (4, 0, len(west(rows)))
    assert bank.table("t").snapshot().version == 4
    assert bank.table("t").delete("lon > 0 AND lon < 0").n_samples == 0
    every = bank.table("t").delete("true")
    assert (every.n_samples, every.n_left) == (len(west(rows)), 0)
    assert ids(bank) == []
    assert bank.table("t").snapshot().stored_bytes == 0


def test_a_trial_changes_nothing(made):
    bank, rows = made
    tried = bank.table("t").delete(EAST, dry_run=True)
    assert (tried.version, tried.n_samples) == (3, 30 - len(west(rows)))
    assert len(ids(bank)) == 30


@pytest.mark.parametrize(
    "where",
    [
        *("lon >", "no_such_column > 1", "", "lon) FROM t --", "NDVI.mean > 'a'"),
        *("cloud_cover", "1", "sample_id", "NDVI", "NULL"),
    ],
)
def test_conditions_that_are_none_are_refused_before_anything_is_written(made, where):
    bank, _ = made
    before = sorted(info.key for info in bank.catalog.store.objects("t"))
    with pytest.raises(tb.InvalidInputError):
        bank.table("t").delete(where)
    assert sorted(info.key for info in bank.catalog.store.objects("t")) == before


def test_a_pinned_table_is_not_changed(made):
    with pytest.raises(tb.InvalidInputError, match="pinned to version 2"):
        made[0].table("t").at(2).delete("true")


def test_a_writer_who_was_quicker_has_its_samples_deleted_as_well(made, monkeypatch):
    bank, rows = made
    matching, late = deletion._matching, part_of("t", "late", 8)

    def slow(catalog, head, where, registered):
        found = matching(catalog, head, where, registered)
        if head.version == 3:
            tb.open(bank.url).catalog.commit("t", late)
        return found

    monkeypatch.setattr(deletion, "_matching", slow)
    done = bank.table("t").delete(EAST)
    every = rows.samples + late.samples.to_pylist()
    assert done.version == 5
    assert done.n_samples == sum(row["lon"] > 0 for row in every)
    assert ids(bank) == sorted(row["sample_id"] for row in every if row["lon"] <= 0)


def test_a_deleted_sample_can_be_added_again_by_another_part_only(made):
    bank, _ = made
    bank.table("t").delete("part = 'part-1'")
    with pytest.raises(tb.ConflictError) as refused:
        bank.catalog.commit("t", part_of("t", "part-1", 10))
    assert refused.value.kind == "lost-race"
    again = part_of("t", "again", 10, prefix="part-1")
    bank.catalog.commit("t", again)
    assert len(ids(bank)) == bank.table("t").snapshot().n_samples == 30
    assert bank.table("t").history()[0].operation == "ingest"
    assert set(bank.sql("SELECT part FROM t").arrow()["part"].to_pylist()) == {"part-0", "part-2", "again"}


def test_the_command_says_what_it_did(made, capsys):
    bank, rows = made
    n_east = 30 - len(west(rows))
    assert main(["delete", bank.url, "t", "--where", EAST, "--dry-run"]) == 0
    assert f"{n_east} samples of t at version 3 would be deleted" in capsys.readouterr().out
    assert main(["delete", bank.url, "t", "--where", EAST, "--json", "--reason", "clouds"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"version": 4, "n_samples": n_east, "n_left": 30 - n_east, "dry_run": False}
    assert main(["delete", bank.url, "t", "--where", EAST]) == 0
    assert "nothing was deleted" in capsys.readouterr().out
    assert main(["history", bank.url, "t"]) == 0
    newest = capsys.readouterr().out.splitlines()[1]
    assert "delete" in newest
    assert f"n deleted: {n_east}, where: {EAST}, reason: clouds" in newest
    assert main(["delete", bank.url, "t", "--where", "lon >"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
