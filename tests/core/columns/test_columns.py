"""Columns that are added to a table, as SQL, plans and older snapshots see them."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

import tensorbank as tb
from support.handmade_index import SCHEMA, make_table, part_of
from tensorbank import Band, InvalidInputError, Modality, NotFoundError, TableSchema
from tensorbank.catalog import key_of
from tensorbank.cli import main


@pytest.fixture
def bank(tmp_path):
    bank = tb.create(tmp_path / "bank")
    make_table(bank, "t", parts=2, n=8)
    return bank


@pytest.fixture
def ids(bank) -> list[str]:
    return sorted(bank.sql("SELECT sample_id FROM t").arrow()["sample_id"].to_pylist())


def values(bank, column="score", where="TRUE", version=None) -> dict[str, object]:
    opened = bank if version is None else bank.at({"t": version})
    rows = opened.sql(f"SELECT sample_id, {column} AS v FROM t WHERE {where}").arrow()
    return dict(zip(rows["sample_id"].to_pylist(), rows["v"].to_pylist(), strict=True))


def given(ids, numbers, name="score") -> pa.Table:
    return pa.table({"sample_id": ids, name: numbers})


def test_values_are_columns_of_sql_from_then_on(bank, ids):
    rng = np.random.default_rng(1)
    truth = dict(zip(ids, rng.normal(size=len(ids)).tolist(), strict=True))
    shuffled = rng.permutation(ids).tolist()
    done = bank.table("t").add_columns(given(shuffled, [truth[i] for i in shuffled]))
    assert (done.version, done.n_values) == (3, {"score": 16})
    assert values(bank) == truth
    assert values(bank, where="score > 0.5") == {i: v for i, v in truth.items() if v > 0.5}
    assert (
        list(bank.sql("SELECT sample_id FROM t ORDER BY score DESC LIMIT 3").arrow()["sample_id"].to_pylist())
        == (sorted(truth, key=truth.__getitem__, reverse=True)[:3])
    )
    assert "score" in bank.sql("SELECT * FROM t").arrow().column_names
    assert "score" in bank.sql("DESCRIBE t").arrow()["column_name"].to_pylist()
    plan = bank.sql("SELECT S2L2A, score FROM t WHERE score > 0 AND S2L2A IS NOT NULL").plan()
    there = bank.sql("SELECT sample_id FROM t WHERE S2L2A IS NOT NULL").arrow()["sample_id"].to_pylist()
    assert sorted(plan.table["score"].to_pylist()) == sorted(truth[i] for i in there if truth[i] > 0)
    assert len(plan) > 0
    assert bank.table("t").columns == ("score",)


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM t",
        "SELECT t FROM t",
        "FROM t",
        "SELECT x.* EXCLUDE part FROM t x",
        "SELECT COLUMNS('sco.*') FROM t",
        'SELECT "SCORE" FROM t',
        "WITH a AS (SELECT * FROM t) SELECT max(score) FROM a",
        "SUMMARIZE t",
        "SELECT sample_id FROM t WHERE (SELECT max(score) FROM t) = 5 AND sample_id IS NULL",
        "SELECT count(*) FROM t NATURAL JOIN (SELECT 1::DOUBLE AS score)",
        "SELECT sample_id FROM t QUALIFY row_number() OVER (ORDER BY score) = 1",
        "SELECT sum(s.score) FROM t.samples s",
    ],
)
def test_every_way_of_meaning_a_column_is_answered_as_from_a_plain_table(bank, ids, text):
    """The truth is DuckDB's own answer of a table that has the column."""
    import duckdb

    bank.table("t").add_columns(given(ids, [float(i) for i in range(16)]))
    whole = bank.sql("SELECT sample_id, part, split, score FROM t").arrow()
    others = [
        c for c in bank.sql("SELECT * FROM t LIMIT 0").arrow().column_names if c not in whole.column_names
    ]
    con = duckdb.connect()
    con.register("plain", whole)
    con.execute("CREATE SCHEMA t")
    con.execute("CREATE TABLE t.samples AS SELECT * FROM plain")
    con.execute("CREATE VIEW main.t AS SELECT * FROM t.samples")
    mine, theirs = bank.sql(text).arrow(), con.sql(text).to_arrow_table()
    assert mine.num_rows == theirs.num_rows or text == "SUMMARIZE t"
    shared = [c for c in theirs.column_names if c in mine.column_names and c not in others]
    assert shared
    if text not in ("SUMMARIZE t", "SELECT t FROM t"):
        key = [(c, "ascending") for c in shared]
        assert mine.select(shared).sort_by(key).to_pylist() == theirs.select(shared).sort_by(key).to_pylist()
    else:
        assert "score" in str(mine.to_pylist())


def test_a_statement_that_names_no_added_column_reads_none(bank, ids, monkeypatch):
    bank.table("t").add_columns(given(ids, [1.0] * 16))
    asked = []
    state = bank.catalog.state
    monkeypatch.setattr(
        bank.catalog, "state", lambda v, level, ahead=None: asked.append(level) or state(v, level, ahead)
    )
    assert bank.sql("SELECT count(*) AS n FROM t WHERE lon < 500").arrow()["n"].to_pylist() == [16]
    assert asked
    assert "columns/score" not in asked
    assert bank.sql("SELECT score FROM t").arrow().num_rows == 16
    assert "columns/score" in asked


def test_types_come_back(bank, ids):
    moment = datetime(2026, 3, 1, 12, 30, 0, 123456, tzinfo=UTC)
    data = pa.table(
        {
            "sample_id": ids,
            "flag": [i % 2 == 0 for i in range(16)],
            "label": pa.array([f"class {i % 3}" for i in range(16)]).dictionary_encode(),
            "count8": pa.array(range(240, 256), pa.uint8()),
            "half": pa.array(np.arange(16, dtype=np.float16)),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(np.arange(48, dtype=np.float32)), 3),
            "seen": [moment] * 16,
            "day": [date(2026, 3, 1)] * 16,
            "empty": pa.nulls(16, pa.string()),
        }
    )
    bank.table("t").add_columns(data)
    row = bank.sql(f"SELECT * FROM t WHERE sample_id = '{ids[3]}'").arrow().to_pylist()[0]
    assert (row["flag"], row["label"], row["count8"], row["half"]) == (False, "class 0", 243, 3.0)
    assert (row["vector"], row["seen"], row["day"], row["empty"]) == (
        [9.0, 10.0, 11.0],
        moment,
        date(2026, 3, 1),
        None,
    )
    assert bank.sql("SELECT empty FROM t").arrow().schema.field("empty").type == pa.string()


def test_an_update_replaces_some_values_in_a_new_snapshot(bank, ids):
    table = bank.table("t")
    table.add_columns(given(ids[:10], [float(i) for i in range(10)]))
    plan = bank.sql("SELECT S2L2A, score FROM t").plan()
    before = values(bank)
    assert [v for v in before.values() if v is not None]
    assert list(before.values()).count(None) == 6
    done = table.update_columns(given([ids[0], ids[12], ids[1]], [50.0, 51.0, float("nan")]))
    assert (done.version, done.n_values, done.n_nan) == (4, {"score": 10}, 1)
    assert values(bank) == before | {ids[0]: 50.0, ids[12]: 51.0, ids[1]: None}
    assert values(bank, version=3) == before
    assert set(values(bank, column="sample_id", version=2)) == set(ids)
    again = bank.at({"t": 3}).sql("SELECT S2L2A, score FROM t").plan()
    assert again.fingerprint == plan.fingerprint
    assert bank.sql("SELECT S2L2A, score FROM t").plan().fingerprint != plan.fingerprint
    table.add_columns(given(ids[:2], [7.0, 8.0]), replace=True)
    assert values(bank) == dict.fromkeys(ids) | {ids[0]: 7.0, ids[1]: 8.0}
    assert [h.operation for h in table.history()[:3]] == ["replace-columns", "update-columns", "add-columns"]
    assert table.history()[0].details["columns"] == ["score"]


def test_what_does_not_fit_is_refused_by_name_and_nothing_is_written(bank, ids, tmp_path):
    table = bank.table("t")
    table.add_columns(given(ids, [1] * 16))
    files = sorted(p for p in (tmp_path / "bank").rglob("*"))
    cases = {
        "no sample 'nobody', 'none'; unknown='ignore'": given(["nobody", "none"], [1, 2], "a"),
        "'part-0-0001' is given twice": given([ids[1], ids[1]], [1, 2], "a"),
        "an added column 'score' already": given(ids, [1] * 16),
        "an added column 'score' already ": given(ids, [1] * 16, "Score"),
        "a column 'cloud_cover' already": given(ids, [1] * 16, "CLOUD_COVER"),
        "a modality 'NDVI'": given(ids, [1] * 16, "ndvi"),
        "is a word of SQL": given(ids, [1] * 16, "select"),
        "cannot name a column": given(ids, [1] * 16, "a b"),
        "holds infinities": given(ids[:1], [math.inf], "a"),
        "which an index cannot hold": pa.table({"sample_id": ids[:1], "a": [{"b": 1}]}),
        "no column 'sample_id' to match": pa.table({"id": ids, "a": [1] * 16}),
        "no column of values": pa.table({"sample_id": ids}),
        "sample_id of the given rows is int64": pa.table({"sample_id": range(16), "a": [1] * 16}),
        "split of the given rows is double": given(ids, [1] * 16, "a").append_column(
            "split", pa.array([0.5] * 16)
        ),
    }
    for message, rows in cases.items():
        with pytest.raises(InvalidInputError, match=message.strip().replace("(", r"\(")):
            table.add_columns(rows)
    with pytest.raises(NotFoundError, match=r"no added column 'scores' to update\. Did you mean 'score'"):
        table.update_columns(given(ids, [1] * 16, "scores"))
    with pytest.raises(InvalidInputError, match="holds int64, and the given values are double"):
        table.update_columns(given(ids, [1.5] * 16))
    with pytest.raises(NotFoundError, match=r"no added column 'scor'\. Did you mean 'score'"):
        table.drop_columns(["scor"])
    assert sorted(p for p in (tmp_path / "bank").rglob("*")) == files
    assert table.add_columns(given(["nobody", ids[0]], [1, 2], "a"), unknown="ignore").n_unknown == 1
    later = Modality("a", "float32", (Band("a"),), 1, 8, 8)
    more = part_of("t", "p9", 2, schema=TableSchema((*SCHEMA, later)))
    with pytest.raises(InvalidInputError, match="added column 'a', so that no modality"):
        bank.catalog.commit("t", more)


def test_ids_of_a_file_keep_their_zeros(tmp_path):
    bank = tb.create(tmp_path / "bank")
    bank.catalog.create("t", SCHEMA)
    commit = part_of("t", "p", 2)
    named = [
        {**row, "sample_id": name}
        for row, name in zip(commit.samples.to_pylist(), ("0012", "12"), strict=True)
    ]
    bank.catalog.commit("t", tb_commit(commit, pa.Table.from_pylist(named, schema=commit.samples.schema)))
    (tmp_path / "scores.csv").write_text("sample_id,score\n0012,1.5\n12,2.5\n")
    bank.table("t").add_columns(tmp_path / "scores.csv")
    rows = bank.sql("SELECT sample_id, score FROM t ORDER BY score").arrow().to_pylist()
    assert rows == [{"sample_id": "0012", "score": 1.5}, {"sample_id": "12", "score": 2.5}]


def test_ids_of_several_splits_take_the_split(tmp_path):
    bank = tb.create(tmp_path)
    bank.catalog.create("t", SCHEMA)
    commit = part_of("t", "p", 2)
    twice = [
        {**row, "sample_id": "same", "split": split}
        for row, split in zip(commit.samples.to_pylist(), ("train", "val"), strict=True)
    ]
    samples = pa.Table.from_pylist(twice, schema=commit.samples.schema)
    bank.catalog.commit("t", tb_commit(commit, samples))
    table = bank.table("t")
    with pytest.raises(InvalidInputError, match=r"given twice|in several splits; give the column split"):
        table.add_columns(given(["same"], [1.0]))
    table.add_columns(
        pa.table({"sample_id": ["same", "same"], "split": ["val", "train"], "score": [1.0, 2.0]})
    )
    rows = bank.sql("SELECT split, score FROM t ORDER BY split").arrow().to_pylist()
    assert rows == [{"split": "train", "score": 2.0}, {"split": "val", "score": 1.0}]
    table.add_columns(pa.table({"key": [key_of("val", "same")], "other": [3]}), on="key")
    assert bank.sql("SELECT other FROM t ORDER BY split").arrow()["other"].to_pylist() == [None, 3]


def tb_commit(commit, samples):
    from tensorbank.catalog import Commit

    return Commit(commit.part, samples, commit.tiles, commit.shards)


def test_columns_survive_what_comes_later_and_go_when_dropped(bank, ids):
    table = bank.table("t")
    table.add_columns(given(ids, [2.0] * 16))
    bank.catalog.commit("t", part_of("t", "part-9", 3))
    assert sorted(values(bank).values(), key=str) == [2.0] * 16 + [None] * 3
    assert table.drop_columns(["score"]) == 5
    assert table.columns == ()
    with pytest.raises(InvalidInputError, match="there is no column 'score'"):
        values(bank)
    assert set(values(bank, version=4).values()) == {2.0, None}
    table.add_columns(given(ids[:1], ["text"]))  # another type, and no value of the dropped one
    assert values(bank) == dict.fromkeys(values(bank)) | {ids[0]: "text"}


def test_two_writers_at_once_lose_nothing(bank, ids):
    bank.table("t").add_columns(given(ids, [0.0] * 16))
    halves = [(ids[:8], 1.0), (ids[8:], 2.0)]

    def update(half):
        return tb.open(bank.url).table("t").update_columns(given(half[0], [half[1]] * 8))

    with ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(update, half) for half in halves]
        jobs.append(pool.submit(tb.open(bank.url).catalog.commit, "t", part_of("t", "p9", 2)))
        for job in jobs:
            job.result(60)
    assert {i: v for i, v in values(bank).items() if i in ids} == dict.fromkeys(ids[:8], 1.0) | dict.fromkeys(
        ids[8:], 2.0
    )
    assert len(values(bank)) == 18


def test_the_commands(bank, ids, tmp_path, capsys):
    path = tmp_path / "scores.csv"
    pyarrow.csv.write_csv(given(ids, [float(i) for i in range(16)]), path)
    assert main(["add-columns", bank.url, "t", str(path)]) == 0
    assert "16 values of score" in capsys.readouterr().out
    assert main(["add-columns", bank.url, "t", str(path)]) == 2
    assert "already" in capsys.readouterr().err
    assert main(["add-columns", bank.url, "t", str(path), "--update", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_values"] == {"score": 16}
    assert main(["add-columns", bank.url, "t", str(path), "--update", "--replace"]) == 2
    capsys.readouterr()
    assert main(["drop-columns", bank.url, "t", "score"]) == 0
    assert "no score any more" in capsys.readouterr().out


def test_what_was_said_of_a_deleted_sample_is_not_said_of_one_that_comes_under_its_id(bank, ids):
    """Nor after another update; a sample that stayed keeps its value, and a version from before has all of them."""
    table = bank.table("t")
    table.add_columns(given(ids, [float(i) for i in range(16)]).append_column("note", pa.array(ids)))
    before, notes = values(bank), values(bank, "note")
    gone = {i for i in ids if i.startswith("part-0")}
    assert table.delete("part = 'part-0'").n_samples == len(gone) == 8
    table.update_columns(given(ids[-1:], [0.5]))
    kept = {i: v for i, v in before.items() if i not in gone} | {ids[-1]: 0.5}
    assert values(bank) == kept
    bank.catalog.commit("t", part_of("t", "part-9", 8, prefix="part-0"))
    assert values(bank) == kept | dict.fromkeys(gone)
    assert values(bank, "note") == notes | dict.fromkeys(gone)
    table.update_columns(given([min(gone)], [7.0]))
    assert values(bank) == kept | dict.fromkeys(gone) | {min(gone): 7.0}
    table.restore(3)
    assert (values(bank), values(bank, "note")) == (before, notes)
