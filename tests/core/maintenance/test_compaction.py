"""Compaction: the same rows in fewer, sorted files, whoever else reads and writes meanwhile."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tensorbank as tb
from support.handmade_index import NDVI, S1, SCHEMA, part_of
from tensorbank.catalog import DELETED, Change, Commit, LevelChange, key_of, with_keys
from tensorbank.cli.app import main
from tensorbank.index_files import IndexFile
from tensorbank.layout import LEVELS
from tensorbank.maintenance import compact, dead_rows, merged_level, small_files
from tensorbank.maintenance.spilling import SpilledRows, spilled_rows
from tensorbank.schema import TableSchema


@pytest.fixture
def bank(tmp_path):
    return tb.create(tmp_path / "bank")


def commit_of(table: str, part: str, n: int, **options: Any) -> Commit:
    """Rows of a part whose tiles have the split of their samples, as those of an ingest have."""
    made = part_of(table, part, n, **options)
    splits = dict(zip(made.samples["sample_id"].to_pylist(), made.samples["split"].to_pylist(), strict=True))
    tiles = made.tiles.to_pylist()
    for row in tiles:
        row["split"] = splits[row["sample_id"]]
    rows = pa.Table.from_pylist(tiles, schema=made.tiles.schema)
    return Commit(part, made.samples, rows, made.shards)


def filled(bank, parts=4, n=10, table="t", schema=SCHEMA) -> None:
    bank.catalog.create(table, schema, single_writer=True)
    for number in range(parts):
        bank.catalog.commit(table, commit_of(table, f"part-{number}", n, schema=schema))


def delete(bank, ids, table="t") -> None:
    """Mark rows as deleted, as the operation does."""

    def make(head):
        rows = [
            {
                "key": key_of(r["split"], r["sample_id"]),
                "stem_key": key_of(r["split"], r["subset"], r["stem"]),
                "part": r["part"],
            }
            for r in rows_of(bank, "samples", table)
            if r["sample_id"] in ids
        ]
        schema = pa.schema([("key", pa.int64()), ("stem_key", pa.int64()), ("part", pa.string())])
        new = bank.catalog.write(table, DELETED, pa.Table.from_pylist(rows, schema=schema))
        return Change("delete", {DELETED: LevelChange(added=(new,))})

    bank.catalog.publish(table, make)


def rows_of(bank, level, table="t", version=None) -> list[dict]:
    """The rows of the files of a level, by pyarrow alone, file after file."""
    files = bank.catalog.files(table, level, version).files
    return [row for f in files for row in pq.read_table(bank.catalog.path(f)).to_pylist()]


def told(rows) -> Counter:
    return Counter(json.dumps(row, default=str, sort_keys=True) for row in rows)


def place(row) -> tuple:
    return (row["season"], row["hilbert"], row["key"])


def test_all_rows_are_in_one_sorted_file_a_level(bank):
    filled(bank)
    before = {level: told(rows_of(bank, level)) for level in LEVELS}
    pinned = bank.at({"t": 4})
    answers = pinned.sql("SELECT sample_id, S2L2A, NDVI.mean FROM t").plan()
    done = bank.table("t").compact()
    assert done.changed
    assert done.version == 5
    assert done.n_dropped == 0
    assert done.merged == {"samples": 4, "tiles": 4, "shards": 4}  # keys are joined by each commit
    assert {name: s.files_after for name, s in done.levels.items()} == dict.fromkeys((*LEVELS, "keys"), 1)
    for level in LEVELS:
        assert told(rows_of(bank, level)) == before[level], level
    samples = rows_of(bank, "samples")
    assert samples == sorted(samples, key=place)
    numbers = {row["key"]: i for i, row in enumerate(samples)}
    tiles = [(numbers[r["key"]], r["time_index"] or 0, r["tile"]) for r in rows_of(bank, "tiles")]
    assert tiles == sorted(tiles)
    shards = [(r["part"], r["shard"]) for r in rows_of(bank, "shards")]
    assert shards == sorted(shards)
    again = tb.open(bank.url).at({"t": 4}).sql("SELECT sample_id, S2L2A, NDVI.mean FROM t").plan()
    assert again.fingerprint == answers.fingerprint
    assert again.table.equals(answers.table)
    now = bank.sql("SELECT sample_id, S2L2A, NDVI.mean FROM t").plan()
    assert now.table.equals(answers.table)  # in the order of the bytes
    assert (
        bank.catalog.store.local_path / "t/index/samples/_delta_log" / f"{5:020}.checkpoint.parquet"
    ).exists()


def test_what_is_compact_is_left_alone(bank):
    filled(bank)
    bank.table("t").compact()
    objects = {o.key for o in bank.catalog.store.objects("t")}
    again = bank.table("t").compact()
    assert not again.changed
    assert again.version == 5
    assert {o.key for o in bank.catalog.store.objects("t")} == objects


def test_a_dry_run_writes_nothing(bank):
    filled(bank)
    objects = {o.key for o in bank.catalog.store.objects("t")}
    found = bank.table("t").compact(dry_run=True)
    assert found.changed
    assert found.version == 4
    assert found.merged["tiles"] == 4
    assert {o.key for o in bank.catalog.store.objects("t")} == objects


def test_history_says_what_was_merged(bank):
    filled(bank)
    bank.table("t").compact()
    newest = bank.table("t").history()[0]
    assert newest.operation == "compact"
    assert newest.who
    assert newest.details["merged"]["samples"] == [4, 1]
    assert newest.details["dropped_samples"] == 0


def test_deleted_rows_go_and_their_shards_are_rolled_up_again(bank):
    filled(bank)
    gone = {
        f"part-{p}-{i:04d}" for p in (1, 2) for i in (0, 1, 2, 3, 5, 9)
    }  # a whole shard, and some of others
    kept = {
        level: told(r for r in rows_of(bank, level) if r["sample_id"] not in gone)
        for level in ("samples", "tiles")
    }
    others = told(r for r in rows_of(bank, "shards") if r["part"] not in ("part-1", "part-2"))
    delete(bank, gone)
    answer = bank.sql("SELECT sample_id, NDVI.mean AS m FROM t ORDER BY sample_id").arrow()
    done = bank.table("t").compact()
    assert done.n_dropped == len(gone)
    for level, expected in kept.items():
        assert told(rows_of(bank, level)) == expected, level
    assert rows_of(bank, DELETED) == []
    assert all(band.quantiles is None for band in bank.table("t").describe()["S1GRD"].bands)
    assert bank.sql("SELECT sample_id, NDVI.mean AS m FROM t ORDER BY sample_id").arrow().equals(answer)
    alive = rows_of(bank, "samples")
    keys = sorted((r["key"], key_of(r["split"], r["subset"], r["stem"])) for r in alive)
    assert sorted((r["key"], r["stem_key"]) for r in rows_of(bank, "keys")) == keys
    shards = rows_of(bank, "shards")
    assert not others - told(shards)
    lost = [r for r in shards if r["part"] in ("part-1", "part-2")]
    assert {(r["part"], r["shard"]) for r in lost} == {(p, s) for p in ("part-1", "part-2") for s in (1, 2)}
    for shard in lost:
        mine = [
            r for r in alive if r["part"] == shard["part"] and int(r["sample_id"][-4:]) // 4 == shard["shard"]
        ]
        assert shard["n_samples"] == len(mine)
        assert shard["seasons"] == sorted({r["season"] for r in mine})
        assert (shard["min_lon"], shard["max_lat"]) == (
            min(r["lon"] for r in mine),
            max(r["lat"] for r in mine),
        )
        for modality in SCHEMA:
            check_roll_up(shard, mine, modality)


def check_roll_up(shard, samples, modality) -> None:
    found = [r[modality.name] for r in samples if r[modality.name] is not None]
    if not found:
        assert shard[modality.name] is None
        return
    rolled = shard[modality.name]
    assert rolled["n_samples"] == len(found)
    assert rolled["length"] == sum(f["ref"]["length"] for f in found)
    assert rolled["key"] == found[0]["ref"]["key"]
    if modality.categorical:
        waters = [f["share"]["water"] for f in found]
        assert rolled["count"] == 64 * len(found)
        assert rolled["share"]["water"] == pytest.approx(np.mean(waters))
        assert (rolled["min_share"]["water"], rolled["max_share"]["water"]) == (min(waters), max(waters))
        return
    for band in modality.band_names:
        of_samples = [f if len(modality.bands) == 1 else f[band] for f in found]
        of_shard = rolled if len(modality.bands) == 1 else rolled[band]
        valid = [s for s in of_samples if s["valid"]]
        assert of_shard["count"] == 64 * len(found)
        assert of_shard["valid"] == 64 * len(valid)
        assert of_shard["bins"] is None
        assert of_shard["bin_counts"] is None
        if not valid:
            assert of_shard["mean"] is None
            assert of_shard["min"] is None
            assert of_shard["m2"] is None
            continue
        mean = math.fsum(s["mean"] for s in valid) / len(valid)
        m2 = math.fsum(64 * (s["std"] ** 2 + (s["mean"] - mean) ** 2) for s in valid)
        assert of_shard["mean"] == pytest.approx(mean, rel=1e-12)
        assert of_shard["m2"] == pytest.approx(m2, rel=1e-9)
        assert (of_shard["min"], of_shard["max"]) == (
            min(s["min"] for s in valid),
            max(s["max"] for s in valid),
        )
        means = [s["mean"] for s in valid]
        assert (of_shard["min_mean"], of_shard["max_mean"]) == (min(means), max(means))


def test_rows_that_were_deleted_and_added_again_stay(bank):
    bank.catalog.create("t", SCHEMA, single_writer=True)
    bank.catalog.commit("t", commit_of("t", "part-0", 8, prefix="s"))
    delete(bank, {"s-0003"})
    bank.catalog.commit("t", commit_of("t", "part-1", 4, prefix="other"))
    delete(bank, {"other-0001"})
    new = commit_of("t", "part-2", 4, prefix="s")
    only = new.samples.filter(pa.compute.equal(new.samples["sample_id"], "s-0003"))
    bank.catalog.commit("t", Commit("part-2", only, new.tiles.slice(6, 2), new.shards))
    assert bank.table("t").compact().n_dropped == 2
    assert [r["part"] for r in rows_of(bank, "samples") if r["sample_id"] == "s-0003"] == ["part-2"]
    assert {r["part"] for r in rows_of(bank, "tiles") if r["sample_id"] == "s-0003"} == {"part-2"}
    key = key_of("val", "s-0003")
    assert [r["key"] for r in rows_of(bank, "keys")].count(key) == 1


def test_what_others_commit_meanwhile_stays(bank):
    filled(bank)
    late = commit_of("t", "late", 6)
    bank.catalog.commit("t", commit_of("t", "early", 3))
    begun = []

    def meanwhile(what, done, total):
        if not begun:
            begun.append(what)
            other = tb.open(bank.url)
            other.catalog.commit("t", late)
            delete(other, {"late-0002", "part-0-0001"})

    before = told(rows_of(bank, "samples")) + told(with_keys(late.samples).to_pylist())
    done = bank.table("t").compact(progress=meanwhile)
    assert done.version == 8
    assert done.n_dropped == 0
    assert done.levels["samples"].files_after == 2
    assert told(rows_of(bank, "samples")) == before
    ids = bank.sql("SELECT sample_id FROM t").arrow()["sample_id"].to_pylist()
    assert len(ids) == 47
    assert not {"late-0002", "part-0-0001"} & {*ids}
    assert bank.table("t").compact().n_dropped == 2


def test_two_at_once_leave_what_one_leaves(bank):
    filled(bank)
    before = told(rows_of(bank, "samples"))
    begun = []

    def meanwhile(what, done, total):
        if not begun:
            begun.append(what)
            assert tb.open(bank.url).table("t").compact().changed

    done = bank.table("t").compact(progress=meanwhile)
    assert not done.changed
    assert done.version == 5
    assert told(rows_of(bank, "samples")) == before


def test_others_who_replace_files_ever_again_are_named(bank):
    filled(bank, parts=2)

    def meanwhile(what, done, total):
        other = tb.open(bank.url)
        number = len(other.table("t").history())
        other.catalog.commit("t", commit_of("t", f"more-{number}", 2))
        compact(other.catalog, "t")
        other.catalog.commit("t", commit_of("t", f"even-more-{number}", 2))

    with pytest.raises(tb.ConflictError, match="compact again") as caught:
        bank.table("t").compact(progress=meanwhile)
    assert caught.value.kind == "lost-race"


@pytest.fixture
def most_open(monkeypatch):
    """A function that tells how many files of rows on their way were open at most."""
    counts = [0]
    begin = spilled_rows._stream
    close = SpilledRows._close

    def counted(*given: object, **named: object):
        counts.append(counts[-1] + 1)
        return begin(*given, **named)

    def all_closed(self):
        counts.append(counts[-1] - len(self._files))
        close(self)

    monkeypatch.setattr(spilled_rows, "_stream", counted)
    monkeypatch.setattr(SpilledRows, "_close", all_closed)
    return lambda: max(counts)


@pytest.mark.parametrize("n_open", [1 << 30, 12, 4])
def test_many_ranges_make_one_order(bank, monkeypatch, most_open, n_open):
    monkeypatch.setattr(
        spilled_rows.resource, "getrlimit", lambda _: (n_open + spilled_rows.SPARE_FILES, n_open)
    )
    for name, value in {
        "ROW_GROUP_ROWS": 16,
        "MIN_SAMPLES": 4,
        "RANGE_BYTES": 1,
        "GROUPS_PER_FILE": 2,
    }.items():
        monkeypatch.setattr(merged_level, name, value)
    filled(bank, parts=5, n=15)
    before = {level: told(rows_of(bank, level)) for level in LEVELS}
    done = bank.table("t").compact()
    assert 4 <= most_open() <= n_open
    assert done.levels["samples"].files_after == (2 if n_open == 4 else 3)  # 64, 11, or 32, 32, 11
    assert done.levels["tiles"].files_after == {4: 1, 12: 3}.get(n_open, 18)
    for level in LEVELS:
        assert told(rows_of(bank, level)) == before[level], level
    files = bank.catalog.files("t", "samples").files
    tables = [pq.read_table(bank.catalog.path(f)).to_pylist() for f in files]
    tables.sort(key=lambda rows: place(rows[0]))
    samples = [row for rows in tables for row in rows]
    assert samples == sorted(samples, key=place)
    sizes = [pq.read_metadata(bank.catalog.path(f)).row_group(0).num_rows for f in files]
    assert sorted(sizes) == [11, 16, 16][: len(files)]
    numbers = {row["key"]: i for i, row in enumerate(samples)}
    for file in bank.catalog.files("t", "tiles").files:
        rows = [numbers[k] for k in pq.read_table(bank.catalog.path(file))["key"].to_pylist()]
        assert rows == sorted(rows)
        assert rows[-1] - rows[0] < {4: 75, 12: 30}.get(n_open, 5)


def test_the_memory_pool_is_as_before_whatever_happens(bank):
    filled(bank, parts=2)
    before = pa.default_memory_pool().backend_name
    seen = []

    def interrupt(what, done, total):
        seen.append(pa.default_memory_pool().backend_name)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bank.table("t").compact(progress=interrupt)
    assert seen
    assert pa.default_memory_pool().backend_name == before
    bank.table("t").compact()
    assert pa.default_memory_pool().backend_name == before


def test_files_from_before_a_modality_get_nulls(bank):
    filled(bank, parts=2, schema=TableSchema((S1,)))
    bank.catalog.commit("t", commit_of("t", "wider", 5, schema=TableSchema((S1, NDVI))))
    assert bank.table("t").schema.names == ("S1GRD", "NDVI")
    before = bank.sql("SELECT sample_id, S1GRD.vv.mean AS a, NDVI.mean AS b FROM t ORDER BY 1").arrow()
    bank.table("t").compact()
    assert (
        bank.sql("SELECT sample_id, S1GRD.vv.mean AS a, NDVI.mean AS b FROM t ORDER BY 1")
        .arrow()
        .equals(before)
    )
    assert [r["NDVI"] for r in rows_of(bank, "samples") if r["part"] != "wider"] == [None] * 20


def test_a_column_that_was_added_is_merged_without_the_dead(bank):
    filled(bank, parts=2)
    rows = {r["sample_id"]: r["key"] for r in rows_of(bank, "samples")}
    schema = pa.schema([("key", pa.int64()), ("value", pa.float32())])
    files = [
        bank.catalog.write(
            "t", "columns/score", pa.Table.from_pylist([{"key": rows[i], "value": n}], schema=schema)
        )
        for n, i in enumerate(sorted(rows))
    ]
    change = Change(
        "add-columns",
        {"columns/score": LevelChange(tuple(files))},
        columns=("score",),
        column_types={"columns/score": schema},
    )
    bank.catalog.publish("t", lambda head: change)
    delete(bank, {"part-0-0000", "part-1-0003"})
    done = bank.table("t").compact()
    assert done.levels["columns/score"].files_after == 1
    expected = {
        rows[i]: float(n) for n, i in enumerate(sorted(rows)) if i not in ("part-0-0000", "part-1-0003")
    }
    assert {r["key"]: r["value"] for r in rows_of(bank, "columns/score")} == expected


def test_a_table_of_format_1_is_upgraded_first(tmp_path):
    import shutil
    from pathlib import Path

    shutil.copytree(Path(__file__).parents[2] / "support/bank_of_format_1", tmp_path / "old")
    bank = tb.open(str(tmp_path / "old"))
    (name,) = bank.tables()
    before = bank.sql(f"SELECT sample_id FROM {name}").arrow()["sample_id"].to_pylist()
    assert bank.table(name).snapshot().format == 1
    bank.table(name).compact()
    assert bank.table(name).snapshot().format == 2
    assert sorted(bank.sql(f"SELECT sample_id FROM {name}").arrow()["sample_id"].to_pylist()) == sorted(
        before
    )


def file_of(key: str, n_rows: int, n_bytes: int = 1000, part: str | None = None) -> IndexFile:
    return IndexFile(key, n_bytes, n_rows, part)


def test_full_files_are_left_alone_beside_a_small_one():
    full = [file_of(f"t/index/samples/{i}", 983_040) for i in range(10)]
    tiles = [file_of(f"t/index/tiles/{i}", 983_040) for i in range(120)]
    rest, new = file_of("t/index/samples/rest", 5000), file_of("t/index/samples/new", 10_000)
    files = {"samples": [*full, rest, new], "tiles": [*tiles, file_of("t/index/tiles/new", 120_000)]}
    chosen = small_files.choose(files, {})
    assert chosen.of("samples") == (rest, new)
    assert chosen.of("tiles") == ()
    assert small_files.choose(files, {"samples": frozenset({full[3].key})}).of("samples") == (
        full[3],
        rest,
        new,
    )


def test_of_keys_that_are_given_twice_one_is_left():
    rng = np.random.default_rng(3)
    for _ in range(50):
        pairs = rng.integers(0, 6, (40, 2))
        removed = pairs[rng.permutation(40)[: rng.integers(0, 20)]]
        left = dead_rows.without(pairs, removed)
        expected = Counter(map(tuple, pairs.tolist()))
        expected.subtract(map(tuple, removed.tolist()))
        assert Counter(map(tuple, left.tolist())) == +expected
        assert left.tolist() == sorted(left.tolist())


def test_the_command_says_what_it_did(bank, capsys):
    filled(bank)
    assert main(["compact", str(bank.url), "t", "--dry-run"]) == 0
    assert "4" in capsys.readouterr().out
    assert main(["compact", str(bank.url), "t", "--json"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert out["changed"]
    assert out["levels"]["samples"]["files_after"] == 1
    assert main(["compact", str(bank.url), "t"]) == 0
    assert "nothing to do" in capsys.readouterr().out
