"""The difference of two versions, against the rows that the test committed itself."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

import tensorbank as tb
from support.handmade_index import SCHEMA, make_table, part_of
from tensorbank import TableSchema
from tensorbank.catalog import Change
from tensorbank.cli.app import main


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A bank whose table had a part added (3), samples deleted (4), and some of these added again elsewhere (5)."""
    bank = tb.create(tmp_path_factory.mktemp("bank"))
    rows = make_table(bank, "t", parts=2, n=8).samples
    late = part_of("t", "late", 8)
    bank.catalog.commit("t", late)
    bank.table("t").delete("part = 'part-0'")
    again = part_of("t", "again", 3, prefix="part-0")
    bank.catalog.commit("t", again)
    return bank, rows, late.samples.to_pylist(), again.samples.to_pylist()


def ids(rows) -> set[str]:
    return {row["sample_id"] for row in rows}


def test_samples_that_came_went_and_changed(made, tmp_path):
    bank, rows, late, again = made
    found = bank.table("t").diff(2, ids=tmp_path / "ids.parquet")
    old = {r["sample_id"]: r for r in rows if r["part"] == "part-0"}
    changed = {
        m.name: sum((old[r["sample_id"]][m.name] or r[m.name]) is not None for r in again) for m in SCHEMA
    }
    assert (found.a, found.b) == (2, 5)
    assert (found.n_added, found.n_removed, found.n_changed) == (8, 5, 3)
    assert found.changed == changed
    written = pq.read_table(tmp_path / "ids.parquet").to_pylist()
    by_change = {
        change: ids(r for r in written if r["change"] == change) for change in ("added", "removed", "changed")
    }
    assert by_change == {"added": ids(late), "removed": old.keys() - ids(again), "changed": ids(again)}
    assert {r["part_after"] for r in written if r["change"] == "changed"} == {"again"}
    one = next(r for r in written if r["change"] == "changed")
    assert set(one["modalities"].split(",")) == {
        m.name
        for m in SCHEMA
        if old[one["sample_id"]][m.name]
        or next(r for r in again if r["sample_id"] == one["sample_id"])[m.name]
    }


def test_the_difference_the_other_way_round(made, tmp_path):
    bank, *_ = made
    there, back = bank.table("t").diff(2, 4), bank.table("t").diff(4, 2, ids=tmp_path / "ids.csv")
    assert (there.n_added, there.n_removed, there.n_changed) == (back.n_removed, back.n_added, 0) == (8, 8, 0)
    assert [(m.modality, m.name) for m in there.statistics] == [(m.modality, m.name) for m in back.statistics]
    for one, other in zip(there.statistics, back.statistics, strict=True):
        assert one.before == pytest.approx(other.after)
        assert one.after == pytest.approx(other.before)
    assert len(csv.read_csv(tmp_path / "ids.csv")) == 16


def test_statistics_that_moved(made):
    bank, rows, late, _ = made
    moved = {(m.modality, m.name): m for m in bank.table("t").diff(3, 4).statistics}
    before, after = [*rows, *late], [r for r in (*rows, *late) if r["part"] != "part-0"]
    lows = [
        [r["S2L2A"]["B08"]["min"] for r in v if r["S2L2A"] and r["S2L2A"]["B08"]["valid"]]
        for v in (before, after)
    ]
    assert moved["S2L2A", "B08"].after["min"] == min(lows[1])
    assert moved["NDVI", "NDVI"].before["n_samples"] == sum(r["NDVI"] is not None for r in before)
    assert moved["NDVI", "NDVI"].after["n_samples"] == sum(r["NDVI"] is not None for r in after)
    assert moved["LULC", "water"].after["share"] == pytest.approx(
        sum(r["LULC"]["share"]["water"] for r in after if r["LULC"])
        / sum(r["LULC"] is not None for r in after)
    )


def test_a_version_does_not_differ_from_itself(made, capsys):
    bank, *_ = made
    found = bank.table("t").diff(5)
    assert found.is_empty
    assert not found.statistics
    assert bank.table("t").at(4).diff(4).is_empty
    assert not bank.table("t").diff(4, 5).is_empty


def test_modalities_and_columns_that_came_and_went(tmp_path):
    bank = tb.create(tmp_path / "bank")
    rows = make_table(bank, "t", parts=1, n=6).samples
    table = bank.table("t")
    table.add_columns(pa.table({"sample_id": sorted(ids(rows)), "score": [float(i) for i in range(6)]}))
    fewer = TableSchema(tuple(m for m in SCHEMA if m.name != "NDVI"))
    bank.catalog.publish("t", lambda head: Change("drop-modality", schema=fewer))
    found = table.diff(1)
    assert (found.columns_added, found.modalities_dropped) == (("score",), ("NDVI",))
    assert (found.n_added, found.n_removed, found.n_changed) == (0, 0, 0)
    back = table.diff(3, 1)
    assert (back.columns_dropped, back.modalities_added) == (("score",), ("NDVI",))
    table.add_columns(pa.table({"sample_id": sorted(ids(rows))[:2], "score": [7.0, 1.0]}), replace=True)
    assert table.diff(3).values_changed == {"score": 5}  # four samples have none any more


@pytest.mark.parametrize("arguments", [(99,), (0, 99), ("no-tag",), (-1,)])
def test_versions_that_are_none_are_refused(made, arguments):
    with pytest.raises((tb.NotFoundError, tb.InvalidInputError)):
        made[0].table("t").diff(*arguments)


def test_the_command_tells(made, capsys, tmp_path):
    bank, *_ = made
    assert main(["diff", bank.url, "t", "2", "5"]) == 0
    out = capsys.readouterr().out
    assert "8 samples added, 5 removed, 3 changed" in out.splitlines()[0]
    assert "modality\tband or class\tstatistic\tbefore\tafter" in out
    assert main(["diff", bank.url, "t", "2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["n_added"], told["b"]) == (8, 5)
    assert main(["diff", bank.url, "t", "2", "--ids", str(tmp_path / "ids.txt")]) == 2
    assert "end its name with .parquet or .csv" in capsys.readouterr().err
