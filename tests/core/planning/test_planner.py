"""The planner against brute force over rows that the test made itself, and what it refuses."""

from __future__ import annotations

import datetime as dt
import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import tensorbank as tb
from support.handmade_index import LULC, NDVI, S1, S2, MadeTable, make_table, part_of
from tensorbank import Band, IntegrityError, InvalidInputError, NotFoundError, Plan, TableSchema
from tensorbank.plans import StoreAddress
from tensorbank.sql import instances
from tensorbank.sql.instances import Database


@dataclass
class Made:
    bank: tb.Bank
    a: MadeTable
    b: MadeTable
    folder: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Tables ``a`` (2 parts of 30) and ``b`` (the same sample ids, other numbers)."""
    folder = tmp_path_factory.mktemp("bank")
    bank = tb.create(folder)
    return Made(
        bank, make_table(bank, "a", n=30, prefix="p"), make_table(bank, "b", n=30, prefix="p"), folder
    )


def number(row: dict, *path: str) -> float | None:
    """A leaf of a nested row, None where anything on the way is missing."""
    value = row
    for name in path:
        if value is None:
            return None
        value = value.get(name)
    return value


def over(value: float | None, limit: float) -> bool:
    """Compare as SQL's ``>`` does: never true of NULL."""
    return value is not None and value > limit


def expected_runs(ref: dict, blocks: list[int]) -> list[tuple[int, int]]:
    """Return (start, length) of the maximal runs of some blocks, computed block by block."""
    edges = [ref["offset"]]
    for n in ref["block_bytes"]:
        edges.append(edges[-1] + n)
    runs: list[list[int]] = []
    for block in sorted(blocks):
        if runs and runs[-1][1] == block:
            runs[-1][1] += 1
        else:
            runs.append([block, block + 1])
    return [(edges[first], edges[last] - edges[first]) for first, last in runs]


def delivered(plan: Plan, handle: str) -> list[tuple[str, list[tuple[int, int]]] | None]:
    """Return what a plan says to read of a handle: (key, runs), None where the sample lacks it."""
    a = plan.addresses[handle]
    return [
        None if k < 0 else (a.shard_keys[k], list(zip(s.tolist(), n.tolist(), strict=True)))
        for k, s, n in zip(a.shard_of, a.starts, a.lengths, strict=True)
    ]


def whole(row: dict, modality: str) -> tuple[str, list[tuple[int, int]]] | None:
    """Return all bytes of a modality of a sample."""
    if row[modality] is None:
        return None
    ref = row[modality]["ref"]
    return ref["key"], [(ref["offset"], sum(ref["block_bytes"]))]


# ---------------------------------------------------------------- brute force

CASES = {
    "mean": ("S2L2A.B08.mean > 20", lambda r: over(number(r, "S2L2A", "B08", "mean"), 20)),
    "band without pixels": (
        "S2L2A IS NOT NULL AND S2L2A.B04.mean IS NULL",
        lambda r: r["S2L2A"] is not None and number(r, "S2L2A", "B04", "mean") is None,
    ),
    "single band": ("NDVI.max > 50", lambda r: over(number(r, "NDVI", "max"), 50)),
    "share": ("LULC.share.trees > 0.5", lambda r: over(number(r, "LULC", "share", "trees"), 0.5)),
    "missing": ("S1GRD IS NULL", lambda r: r["S1GRD"] is None),
    "clouds": (
        "cloud_cover < 0.3 AND season = 'summer'",
        lambda r: r["cloud_cover"] is not None and r["cloud_cover"] < 0.3 and r["season"] == "summer",
    ),
    "not clouds": (
        "NOT (cloud_cover < 0.3)",
        lambda r: r["cloud_cover"] is not None and not r["cloud_cover"] < 0.3,
    ),
    "box": (
        "within_bbox(lon, lat, -90, -20, 60, 50)",
        lambda r: -90 <= r["lon"] <= 60 and -20 <= r["lat"] <= 50,
    ),
    "box over the date line": (
        "within_bbox(lon, lat, 120, -80, -120, 80)",
        lambda r: (r["lon"] >= 120 or r["lon"] <= -120) and -80 <= r["lat"] <= 80,
    ),
    "has modality": (
        "list_contains(modalities, 'NDVI') AND split = 'val'",
        lambda r: "NDVI" in r["modalities"] and r["split"] == "val",
    ),
    "two bands": (
        "S1GRD.vv.mean > S1GRD.vh.mean",
        lambda r: (
            None not in (number(r, "S1GRD", "vv", "mean"), number(r, "S1GRD", "vh", "mean"))
            and r["S1GRD"]["vv"]["mean"] > r["S1GRD"]["vh"]["mean"]
        ),
    ),
    "everything": ("true", lambda _: True),
    "nothing": ("cloud_cover > 2", lambda _: False),
}


@pytest.mark.parametrize(("where", "predicate"), CASES.values(), ids=CASES)
def test_a_filter_keeps_what_brute_force_keeps(made, where, predicate):
    plan = made.bank.sql(f"SELECT S2L2A, NDVI, sample_id, cloud_cover FROM a WHERE {where}").plan()
    kept = {r["sample_id"]: r for r in made.a.samples if predicate(r)}
    ids = plan.table["sample_id"].to_pylist()
    assert sorted(ids) == sorted(kept)
    assert delivered(plan, "S2L2A") == [whole(kept[i], "S2L2A") for i in ids]
    assert delivered(plan, "NDVI") == [whole(kept[i], "NDVI") for i in ids]
    assert plan.table["cloud_cover"].to_pylist() == [kept[i]["cloud_cover"] for i in ids]
    assert plan.metadata_columns == ("sample_id", "cloud_cover")
    present = [kept[i] for i in ids]
    n_bytes = sum(whole(r, m)[1][0][1] for r in present for m in ("S2L2A", "NDVI") if r[m] is not None)
    n_blocks = sum(10 for r in present if r["S2L2A"]) + sum(1 for r in present if r["NDVI"])
    assert (plan.read_bytes, plan.n_blocks) == (n_bytes, n_blocks)
    everything = [r[m]["ref"] for r in made.a.samples for m in ("S2L2A", "NDVI") if r[m] is not None]
    assert plan.source.scan_bytes == sum(r["length"] for r in everything)
    assert plan.source.scan_blocks == sum(len(r["block_bytes"]) for r in everything)


def test_a_join_takes_each_tensor_from_its_own_table(made):
    plan = made.bank.sql(
        "SELECT a.S2L2A, b.S1GRD, a.sample_id, b.NDVI.mean AS ndvi FROM a JOIN b USING (sample_id) "
        "WHERE a.season = 'winter' AND b.S1GRD.vv.max > 30 ORDER BY sample_id"
    ).plan()
    theirs = made.b.by_id()
    expected = sorted(
        r["sample_id"]
        for r in made.a.samples
        if r["season"] == "winter" and over(number(theirs[r["sample_id"]], "S1GRD", "vv", "max"), 30)
    )
    assert expected
    assert plan.table["sample_id"].to_pylist() == expected
    ours = made.a.by_id()
    assert delivered(plan, "S2L2A") == [whole(ours[i], "S2L2A") for i in expected]
    assert delivered(plan, "S1GRD") == [whole(theirs[i], "S1GRD") for i in expected]
    assert {k.split("/")[0] for k in plan.addresses["S1GRD"].shard_keys} == {"b"}
    assert {k.split("/")[0] for k in plan.addresses["S2L2A"].shard_keys} == {"a"}
    assert plan.table["ndvi"].to_pylist() == [number(theirs[i], "NDVI", "mean") for i in expected]
    assert set(plan.source.snapshots) == {"a", "b"}


def test_a_window_keeps_the_clearest_of_each_cell(made):
    plan = made.bank.sql(
        "WITH clear AS (SELECT * FROM a WHERE cloud_cover IS NOT NULL) SELECT NDVI, sample_id FROM clear "
        "QUALIFY row_number() OVER (PARTITION BY cell_id ORDER BY cloud_cover, sample_id) <= 2"
    ).plan()
    cells: dict[str, list] = {}
    for r in made.a.samples:
        if r["cloud_cover"] is not None:
            cells.setdefault(r["cell_id"], []).append((r["cloud_cover"], r["sample_id"]))
    expected = sorted(i for cell in cells.values() for _, i in sorted(cell)[:2])
    assert sorted(plan.table["sample_id"].to_pylist()) == expected


def test_aggregates_of_statistics(made):
    rows = made.bank.sql(
        "SELECT season, count(*) AS n, max(S2L2A.B02.max) AS top FROM a GROUP BY season ORDER BY season"
    ).arrow()
    for row in rows.to_pylist():
        mine = [r for r in made.a.samples if r["season"] == row["season"]]
        tops = [t for r in mine if (t := number(r, "S2L2A", "B02", "max")) is not None]
        assert (row["n"], row["top"]) == (len(mine), max(tops))
    assert sum(rows["n"].to_pylist()) == 60


def test_a_seeded_sample_is_the_same_again(made):
    for clause in (
        "USING SAMPLE reservoir(7 ROWS) REPEATABLE (3)",
        "USING SAMPLE 30% (bernoulli, 5)",
        "TABLESAMPLE reservoir(7 ROWS) REPEATABLE (3)",
    ):
        plans = [made.bank.sql(f"SELECT NDVI, sample_id FROM a {clause}").plan() for _ in range(3)]
        assert plans[0] == plans[1] == plans[2]
        assert 0 < len(plans[0]) < 60
        assert set(plans[0].table["sample_id"].to_pylist()) < set(made.a.by_id())


def test_order_by_and_limit_are_kept(made):
    ids = [r["sample_id"] for r in sorted(made.a.samples, key=lambda r: -r["hilbert"])]
    plan = made.bank.sql("SELECT S2L2A, sample_id FROM a ORDER BY hilbert DESC").plan()
    assert plan.table["sample_id"].to_pylist() == ids
    assert delivered(plan, "S2L2A") == [whole(made.a.by_id()[i], "S2L2A") for i in ids]
    plan = made.bank.sql("SELECT S2L2A, sample_id FROM a ORDER BY hilbert DESC LIMIT 7 OFFSET 3").plan()
    assert plan.table["sample_id"].to_pylist() == ids[3:10]
    rows = made.bank.sql("SELECT sample_id FROM a ORDER BY hilbert DESC LIMIT 5").arrow()
    assert rows["sample_id"].to_pylist() == ids[:5]


def test_without_order_by_samples_come_in_the_order_of_their_bytes(made):
    for sql in (
        "SELECT S2L2A, sample_id FROM a",
        "SELECT S2L2A, sample_id FROM (SELECT * FROM a ORDER BY hilbert)",
    ):
        plan = made.bank.sql(sql).plan()
        refs = {r["sample_id"]: r["S2L2A"]["ref"] for r in made.a.samples if r["S2L2A"]}
        expected = sorted(refs, key=lambda i: (refs[i]["key"], refs[i]["offset"]))
        lacking = sorted(set(made.a.by_id()) - set(refs))
        assert plan.table["sample_id"].to_pylist() == expected + lacking


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT x.S1GRD, x.sample_id, y.sample_id AS other FROM a x LEFT JOIN b y USING (cell_id)",
        "SELECT NDVI, sample_id, season FROM a",
        "SELECT y.NDVI, x.sample_id FROM b x JOIN a y ON x.cell_id = y.cell_id AND x.season = y.season",
    ],
)
def test_the_order_does_not_depend_on_the_number_of_threads(made, monkeypatch, sql):
    plans, used, numbers = [], [], [1, 2, 8]

    class WithThreads(Database):
        def __init__(self) -> None:
            super().__init__()
            self.con.execute(f"SET threads = {numbers[len(plans)]}")

        def clear(self) -> None:
            used.extend(self.con.execute("SELECT current_setting('threads')").fetchall())
            self.use_up()
            super().clear()

    monkeypatch.setattr(instances, "Database", WithThreads)
    monkeypatch.setattr(instances, "_IDLE", instances._Idle())
    for _ in numbers:
        plans.append(made.bank.sql(sql).plan())
    assert [n for (n,) in used] == numbers
    assert len(plans[0]) >= 60
    assert plans[0] == plans[1] == plans[2]


# ---------------------------------------------------------------- bands and addresses


@pytest.mark.parametrize(
    "names",
    [
        ["B02"],
        ["B11"],
        ["B04", "B03"],
        ["B11", "B02"],
        ["B02", "B04", "B11"],
        ["b08", "b03", "b02"],
        ["B11", "B08", "B04", "B03", "B02"],
        ["B02", "B03", "B04", "B08", "B11"],
    ],
    ids=",".join,
)
def test_chosen_bands_are_the_right_bytes(made, names):
    plan = made.bank.sql(f"SELECT bands(S2L2A, {names}), sample_id FROM a").plan()
    (handle,) = plan.handles
    chosen = [[b.lower() for b in S2.band_names].index(n.lower()) for n in names]
    assert (handle.name, handle.bands) == ("S2L2A", tuple(chosen))
    blocks = [t * 5 + b for t in range(2) for b in chosen]
    rows = made.a.by_id()
    expected = []
    for i in plan.table["sample_id"].to_pylist():
        ref = number(rows[i], "S2L2A", "ref")
        expected.append(None if ref is None else (ref["key"], expected_runs(ref, blocks)))
    assert delivered(plan, "S2L2A") == expected
    assert {runs is None for runs in expected} == {True, False}
    assert {handle.slot(b) for b in blocks} == {(t, i) for t in range(2) for i in range(len(names))}
    assert handle.shape == (2, len(names), 8, 8)


def test_one_modality_may_be_selected_twice_under_two_names(made):
    plan = made.bank.sql(
        "SELECT bands(S2L2A, ['B04']) AS red, bands(S2L2A, ['B08']) AS nir, S2L2A AS everything FROM a"
    ).plan()
    assert [(h.name, h.bands) for h in plan.handles] == [
        ("red", (2,)),
        ("nir", (3,)),
        ("everything", (0, 1, 2, 3, 4)),
    ]
    red, everything = plan.addresses["red"], plan.addresses["everything"]
    assert (red.shard_of == everything.shard_of).all()
    ref_of = {
        (r["S2L2A"]["ref"]["key"], r["S2L2A"]["ref"]["offset"]): r["S2L2A"]["ref"]
        for r in made.a.samples
        if r["S2L2A"]
    }
    for k, start, got in zip(everything.shard_of, everything.starts[:, 0], red.starts, strict=True):
        if k >= 0:
            ref = ref_of[everything.shard_keys[k], int(start)]
            assert got.tolist() == [start for start, _ in expected_runs(ref, [2, 7])]
    assert (everything.shard_of >= 0).sum() == len(ref_of) > 0


def test_missing_modalities_have_no_address(made):
    plan = made.bank.sql("SELECT S1GRD, bands(S2L2A, ['B08', 'B02']) AS s2, sample_id FROM a").plan()
    rows = made.a.by_id()
    for handle, modality in (("S1GRD", "S1GRD"), ("s2", "S2L2A")):
        a = plan.addresses[handle]
        lacks = np.array([rows[i][modality] is None for i in plan.table["sample_id"].to_pylist()])
        assert lacks.any()
        assert ((a.shard_of < 0) == lacks).all()
        assert (a.lengths[lacks] == 0).all()
        assert (a.lengths[~lacks] > 0).all()


def test_a_handle_that_no_sample_has(made):
    plan = made.bank.sql("SELECT S1GRD, sample_id FROM a WHERE S1GRD IS NULL").plan()
    assert len(plan) == sum(r["S1GRD"] is None for r in made.a.samples) > 0
    assert plan.handles[0].modality == S1
    assert (plan.n_blocks, plan.read_bytes, plan.tensor_bytes) == (0, 0, 0)
    assert set(delivered(plan, "S1GRD")) == {None}


def test_an_empty_result(made):
    plan = made.bank.sql("SELECT S2L2A, bands(S1GRD, ['vh']), sample_id FROM a WHERE false").plan()
    assert (len(plan), plan.n_blocks, plan.read_bytes) == (0, 0, 0)
    assert [h.modality.name for h in plan.handles] == ["S2L2A", "S1GRD"]
    assert plan.addresses["S2L2A"].starts.shape[0] == 0
    assert "No sample matches" in plan.explain()
    assert made.bank.sql("SELECT S2L2A FROM a WHERE false").arrow().num_rows == 0


@pytest.mark.parametrize("where", ["false", "S1GRD IS NULL"])
@pytest.mark.parametrize("column", ["bands(S1GRD, ['vh'])", "bands(x.S1GRD, ['vh']) AS S1GRD"])
def test_bands_of_no_tensor_at_all(made, where, column):
    plan = made.bank.sql(f"SELECT {column}, sample_id FROM a x WHERE {where}").plan()
    (handle,) = plan.handles
    assert (handle.name, handle.modality) == ("S1GRD", S1)
    if len(plan) or " AS " not in column:
        assert handle.bands == (1,)
    assert plan.n_blocks == 0


def test_a_table_of_the_main_schema(made):
    assert made.bank.sql("SELECT count(*) AS n FROM main.a").arrow()["n"].to_pylist() == [60]


def test_rows_show_the_address_of_a_tensor(made):
    rows = made.bank.sql("SELECT sample_id, S2L2A FROM a").arrow().to_pylist()
    mine = made.a.by_id()
    assert len(rows) == 60
    assert sum(row["S2L2A"] is not None for row in rows) > 30
    for row in rows:
        ref = number(mine[row["sample_id"]], "S2L2A", "ref")
        assert row["S2L2A"] == (None if ref is None else {k: ref[k] for k in ("key", "offset", "length")})
    assert {row["S2L2A"] is None for row in rows} == {True, False}


# ---------------------------------------------------------------- what is refused


def refused(bank, sql: str, pattern: str, error: type[Exception] = InvalidInputError):
    """The error of planning some SQL: one sentence that matches."""
    with pytest.raises(error, match=pattern) as caught:
        bank.sql(sql).plan()
    text = str(caught.value)
    assert "\n" not in text
    assert "STRUCT(" not in text
    assert len(text) < 500
    return caught.value


@pytest.mark.parametrize(
    ("sql", "pattern"),
    [
        ("SELECT S2L2A, S2L2A FROM a", "two columns named 'S2L2A'"),
        ("SELECT sample_id, sample_id FROM a", "two columns named 'sample_id'"),
        ("SELECT a.*, b.* FROM a JOIN b USING (sample_id)", "two columns named"),
        ("SELECT S2L2A, bands(S2L2A, ['B04']) FROM a", "two selected tensors are named S2L2A"),
        ('SELECT S2L2A, 1 AS "S2L2A.key" FROM a', "cannot be named 'S2L2A.key'"),
        ("SELECT avg(S2L2A) FROM a", r"take a statistic of it, such as S2L2A\."),
        ("SELECT season, sum(NDVI) AS s FROM a GROUP BY season", r"such as NDVI\.mean"),
        ("SELECT [S2L2A] AS l FROM a", "'l' holds tensors inside"),
        ("SELECT {'x': NDVI} AS packed FROM a", "'packed' holds tensors inside"),
        (
            "SELECT CASE WHEN lon > 0 THEN S2L2A ELSE S1GRD END AS x FROM a",
            "mixes the modalities S1GRD, S2L2A",
        ),
        ("SELECT S2L2A AS x FROM a UNION ALL SELECT S1GRD FROM a", "mixes the modalities S1GRD, S2L2A"),
        ("SELECT bands(S2L2A, []) FROM a", "distinct band names"),
        ("SELECT bands(S2L2A, ['B04', 'B04']) FROM a", "distinct band names"),
        (
            "SELECT bands(S2L2A, CASE WHEN lon > 0 THEN ['B04'] ELSE ['B08'] END) AS x FROM a",
            "differ from row to row",
        ),
        ("SELECT S2L2B FROM a", "no column 'S2L2B'.*'S2L2A'"),
        ("SELECT cloud_kover FROM a", "no column 'cloud_kover'.*'cloud_cover'"),
        ("SELECT S2L2A.B9.mean AS m FROM a", "no band 'B9'"),
        ("SELECT S2L2A.B08.maen AS m FROM a", "no statistic 'maen'.*'mean'"),
        ("SELECT 1 FROM aa", "no table 'aa'.*'a'"),
        ("SELECT nosuchfunction(lon) AS f FROM a", "nosuchfunction"),
        ("SELECT S2L2A FROM a WHERE S2L2A.B08.mean > 'x'", "'x'"),
        ("SELEC S2L2A FROM a", 'near "SELEC"'),
        ("SELECT S2L2A FROM a WHERE", "syntax error"),
        ("SELECT 'open FROM a", "unterminated"),
    ],
)
def test_mistakes_are_named(made, sql, pattern):
    refused(made.bank, sql, pattern)


@pytest.mark.parametrize("sql", ["SELECT parquet FROM a", "SELECT * FROM a WHERE 'parquet'::INT = 1"])
def test_a_mistake_in_the_sql_is_no_damage_of_the_index(made, sql):
    assert refused(made.bank, sql, "parquet").kind == "sql"


def test_an_unknown_band_has_a_kind_of_its_own(made):
    error = refused(made.bank, "SELECT bands(S2L2A, ['B8']) FROM a", "no band 'B8'.*'B08'", NotFoundError)
    assert error.kind == "unknown-band"
    assert refused(made.bank, "SELECT 1 AS one FROM nope", "Choose from a, b").kind == "unknown-table"


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO a VALUES (1)",
        "UPDATE a SET lon = 0",
        "DELETE FROM a",
        "DROP TABLE a",
        "CREATE TABLE x AS SELECT * FROM a",
        "COPY (SELECT 1) TO '{folder}/stolen'",
        "ATTACH '{folder}/x.db'",
        "SET threads = 1",
        "PRAGMA version",
        "INSTALL httpfs",
        "EXPORT DATABASE '{folder}/stolen'",
        "SELECT 1 AS one; SELECT 2 AS two",
        "SELECT 1 AS one; DROP TABLE a",
        "",
        "  -- nothing but a comment",
        ";",
    ],
)
def test_only_one_select(made, tmp_path, sql):
    for ask in ("plan", "arrow"):
        with pytest.raises(InvalidInputError, match="one SELECT statement"):
            getattr(made.bank.sql(sql.format(folder=tmp_path)), ask)()
    assert list(tmp_path.iterdir()) == []
    assert made.bank.sql("SELECT count(*) AS n FROM a").arrow()["n"].to_pylist() == [60]


def test_one_column_of_two_tables_is_one_modality_or_none(tmp_path):
    """The types of both columns are equal, what their bytes mean is not."""
    bank = tb.create(tmp_path)
    make_table(bank, "a", parts=1, n=6, schema=TableSchema((S2,)))
    make_table(bank, "same", parts=1, n=6, schema=TableSchema((S2,)))
    for name, other in {
        "dtype": replace(S2, dtype="float32"),
        "size": replace(S2, height=16, width=16),
        "dates": replace(S2, n_times=1),
    }.items():
        make_table(bank, name, parts=1, n=6, schema=TableSchema((other,)))
        refused(bank, f"SELECT S2L2A FROM a UNION ALL SELECT S2L2A FROM {name}", f"S2L2A of a and of {name}")
    plan = bank.sql("SELECT S2L2A FROM a UNION ALL SELECT S2L2A FROM same").plan()
    assert len(plan) == 12
    assert {k.split("/")[0] for k in plan.addresses["S2L2A"].shard_keys} == {"a", "same"}


# ---------------------------------------------------------------- fingerprints and files

SQL = "SELECT S2L2A, sample_id FROM a WHERE cloud_cover < 0.5"
SAME = [
    SQL + ";",
    "  " + SQL + "\n",
    SQL + "; -- that was it",
    SQL + " /* a comment; with a semicolon */ ; ;",
    "select S2L2A, sample_id\n from a -- from a\n where\tcloud_cover < 0.5",
    "SELECT S2L2A, sample_id FROM a WHERE (cloud_cover < 0.5)",
]
OTHER = [
    "SELECT S2L2A, sample_id FROM a WHERE cloud_cover < 0.6",
    "SELECT S2L2A, sample_id FROM a WHERE cloud_cover <= 0.5",
    "SELECT sample_id, S2L2A FROM a WHERE cloud_cover < 0.5",
    "SELECT bands(S2L2A, ['B04']), sample_id FROM a WHERE cloud_cover < 0.5",
    "SELECT S2L2A, sample_id FROM b WHERE cloud_cover < 0.5",
    "SELECT S2L2A, sample_id FROM a WHERE cloud_cover < 0.5 ORDER BY sample_id",
    "SELECT S2L2A AS x, sample_id FROM a WHERE cloud_cover < 0.5",
]


def test_fingerprints_are_of_what_is_asked_not_of_how_it_is_written(made):
    plan = made.bank.sql(SQL).plan()
    assert len(plan.fingerprint) == 32
    for sql in SAME:
        other = made.bank.sql(sql).plan()
        assert other.fingerprint == plan.fingerprint, sql
        assert other.table.equals(plan.table)
    fingerprints = {made.bank.sql(sql).plan().fingerprint for sql in OTHER}
    assert len(fingerprints | {plan.fingerprint}) == len(OTHER) + 1


def test_a_semicolon_in_a_string_is_no_end(made):
    rows = made.bank.sql("SELECT 'é; -- not the end' AS s FROM a LIMIT 1 ; -- the end é").arrow()
    assert rows["s"].to_pylist() == ["é; -- not the end"]


def test_fingerprints_are_of_one_snapshot(tmp_path):
    bank = tb.create(tmp_path)
    make_table(bank, "a", parts=2, n=5)
    make_table(bank, "b", parts=1, n=5)
    now = bank.sql(SQL).plan()
    assert bank.at({"a": 2}).sql(SQL).plan().fingerprint == now.fingerprint
    assert bank.at({"a": 1}).sql(SQL).plan().fingerprint != now.fingerprint
    bank.catalog.commit("b", part_of("b", "later", 3))
    assert bank.sql(SQL).plan().fingerprint == now.fingerprint, "the query does not read b"
    bank.catalog.commit("a", part_of("a", "later", 3))
    assert bank.sql(SQL).plan().fingerprint != now.fingerprint
    assert bank.at({"a": 2}).sql(SQL).plan() == now, "a committed snapshot never changes"


@pytest.mark.parametrize(
    "sql",
    [
        SQL,
        "SELECT bands(S2L2A, ['B11', 'B02']), S1GRD, LULC, sample_id, modalities, cloud_cover FROM a ORDER BY hilbert",
        "SELECT S2L2A, sample_id FROM a WHERE false",
        "SELECT season, count(*) AS n FROM a GROUP BY season ORDER BY season",
    ],
)
def test_a_saved_plan_is_the_plan(made, tmp_path, sql):
    plan = made.bank.sql(sql).plan()
    loaded = Plan.load(plan.save(tmp_path / "a.plan"))
    for other in (loaded, pickle.loads(pickle.dumps(plan)), pickle.loads(pickle.dumps(loaded))):
        assert (other.fingerprint, other.source, other.handles) == (
            plan.fingerprint,
            plan.source,
            plan.handles,
        )
        assert other.table.to_pylist() == plan.table.to_pylist()
        assert other.metadata_columns == plan.metadata_columns
        assert other.explain() == plan.explain()
        for name in plan.addresses:
            assert delivered(other, name) == delivered(plan, name)


def test_a_saved_plan_has_no_credentials(made, tmp_path):
    options = tb.StorageOptions("http://host:1", "access-key", "hush-hush", "token-token", "eu-1")
    plan = made.bank.sql(SQL).plan()
    plan = replace(plan, origin=StoreAddress(plan.bank, options))
    path = plan.save(tmp_path / "a.plan")
    content = path.read_bytes()
    assert not [s for s in (b"access-key", b"hush-hush", b"token-token") if s in content]
    loaded = Plan.load(path, access_key="access-key", secret_key="again")
    again = tb.StorageOptions("http://host:1", "access-key", "again", region="eu-1")
    assert loaded.origin == StoreAddress(plan.bank, again)


def test_files_that_are_no_plans(made, tmp_path):
    (tmp_path / "text").write_text("SELECT")
    (tmp_path / "empty").touch()
    table = pa.table({"a": [1]})
    with pa.OSFile(str(tmp_path / "arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    whole_plan = made.bank.sql(SQL).plan().save(tmp_path / "whole").read_bytes()
    (tmp_path / "cut").write_bytes(whole_plan[: len(whole_plan) // 2])
    for name in ("text", "empty", "arrow", "cut"):
        with pytest.raises(tb.FormatError, match=f"{name} is not a saved plan"):
            Plan.load(tmp_path / name)
    with pytest.raises(NotFoundError, match="no saved plan"):
        Plan.load(tmp_path / "none")


# ---------------------------------------------------------------- many at once, and damage


def test_eight_threads_of_plans(made):
    expected = {}
    for i in range(50):
        limit = i / 50
        kept = [r["sample_id"] for r in made.a.samples if over(r["cloud_cover"], limit)]
        expected[f"SELECT NDVI, sample_id FROM a WHERE cloud_cover > {limit}"] = sorted(kept)
    queries = list(expected)

    def work(thread: int) -> list[str]:
        wrong = []
        for sql in queries[thread::8]:
            ids = made.bank.sql(sql).plan().table["sample_id"].to_pylist()
            if sorted(ids) != expected[sql]:
                wrong.append(sql)
        return wrong

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [[]] * 8


@pytest.mark.parametrize("level", ["samples", "shards", "tiles"])
def test_a_damaged_index_file_is_named(tmp_path, level):
    bank = tb.create(tmp_path)
    make_table(bank, "a", parts=2, n=5)
    (victim, _) = bank.catalog.files("a", level).files
    path = tmp_path / victim.key
    whole_file = path.read_bytes()
    sql = f"SELECT count(*) AS n, max(part) AS p FROM a.{level}"
    footer = int.from_bytes(whole_file[-8:-4], "little")
    damages = {
        "magic": whole_file[:-4] + b"XXXX",
        "length": whole_file[:-8] + b"\xff\xff\xff\x7f" + whole_file[-4:],
        "footer": whole_file[: -8 - footer]
        + bytes(b ^ 0xFF for b in whole_file[-8 - footer : -8])
        + whole_file[-8:],
        "cut": whole_file[: len(whole_file) // 2],
        "empty": b"",
    }
    for what, content in damages.items():
        path.write_bytes(content)
        with pytest.raises(IntegrityError) as caught:
            bank.sql(sql).arrow()
        assert path.name in str(caught.value), (what, str(caught.value))
        assert "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(IntegrityError) as caught:
        bank.sql(sql).arrow()
    assert path.name in str(caught.value)
    path.write_bytes(whole_file)
    assert bank.sql(sql).arrow().num_rows == 1


def test_nan_never_reaches_the_index():
    """A band whose pixels are all NaN has NULL statistics; NaN would make answers depend on the layout."""
    from tensorbank_indexer.measures import measure
    from tensorbank_indexer.rows import StoredModality, StoredSample
    from tensorbank_indexer.rows.samples import sample_rows

    pixels = np.full((1, 2, 8, 8), np.nan, np.float32)
    pixels[0, 1] = 3
    measured = StoredModality({"key": "k"}, {}, (), None, measure(pixels, S1, 2))
    sample = StoredSample(0, {"sample_id": "s"}, {"S1GRD": measured})
    table = sample_rows([sample], TableSchema((S1,)))
    row = table.to_pylist()[0]["S1GRD"]
    assert (row["vv"]["count"], row["vv"]["valid"]) == (64, 0)
    assert {row["vv"][n] for n in ("min", "max", "mean", "std", "p02", "p50", "p98")} == {None}
    assert (row["vh"]["valid"], row["vh"]["min"], row["vh"]["mean"], row["vh"]["std"]) == (64, 3, 3, 0)


def test_times_and_places_travel_in_the_plan(tmp_path):
    bank = tb.create(tmp_path)
    bank.catalog.create("a", TableSchema((NDVI, LULC)))
    commit = part_of("a", "p", 3, schema=TableSchema((NDVI, LULC)), missing=0)
    rows = commit.samples.to_pylist()
    when = dt.datetime(2021, 6, 1, 12, tzinfo=dt.UTC)
    for row in rows:
        row["S2_time"] = when
        row["footprint"] = b"\x01\x02"
    bank.catalog.commit(
        "a", replace(commit, samples=pa.Table.from_pylist(rows, schema=commit.samples.schema))
    )
    plan = bank.sql("SELECT NDVI, S2_time, footprint, modalities FROM a").plan()
    assert plan.table["S2_time"].to_pylist() == [when] * 3
    assert plan.table["modalities"].to_pylist() == [["NDVI", "LULC"]] * 3
    assert json.dumps(Plan.load(plan.save(tmp_path / "x")).table["footprint"].to_pylist(), default=str)


def test_a_band_name_that_needs_quotes(tmp_path):
    bank = tb.create(tmp_path)
    odd = tb.Modality("odd", "int16", (Band("b 1"), Band("select")), 1, 8, 8)
    make_table(bank, "a", parts=1, n=4, schema=TableSchema((odd,)))
    plan = bank.sql("""SELECT bands(odd, ['select']) FROM a WHERE odd."b 1".count = 64""").plan()
    assert plan.handles[0].bands == (1,)
