"""Pixel predicates in SQL against brute force over the decoded pixels of a whole table."""

from __future__ import annotations

import operator
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tensorbank as tb
from tensorbank_indexer import IngestOptions, ingest, open_source

OPERATORS = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "=": operator.eq,
    "!=": operator.ne,
}
BANDS = {
    "S2L2A.B08": ("S2L2A", 7),
    "S2L2A.B02": ("S2L2A", 1),
    "NDVI": ("NDVI", 0),
    "S1RTC.vh": ("S1RTC", 1),
    "S2RGB.B03": ("S2RGB", 1),
    "LULC": ("LULC", 0),
    "cloud_mask": ("cloud_mask", 0),
}
CONSTANTS = {
    "S2L2A": st.sampled_from([-1, 0, 1, 300, 1000, 1500.5, 3000, 8000, 20000]),
    "NDVI": st.sampled_from([-1, -0.25, 0, 0.3, 0.5, 0.8, 0.95, 1]),
    "S1RTC": st.sampled_from([-40, -25, -20, -17.5, -10, 0]),
    "S2RGB": st.sampled_from([0, 10, 100, 128, 254, 255]),
    "LULC": st.integers(0, 10),
    "cloud_mask": st.integers(0, 7),
}


@pytest.fixture(scope="module")
def table(make_archives, tmp_path_factory):
    source, _ = make_archives("terramesh", "--samples", "14", "--per-tar", "14", "--subset", "both")
    bank = tb.create(tmp_path_factory.mktemp("bank"))
    ingest(open_source(str(source)), bank, "t", IngestOptions(n_workers=1, samples_per_shard=8))
    ((_, url),) = bank.table("t").parts().items()
    group = zarr.open_group(url.removeprefix("file://"), mode="r")
    pixels = {name: group[name][:].astype(np.float64) for name in {m for m, _ in BANDS.values()}}
    rows = {
        name: {
            r["sample_id"]: r["row"]
            for r in bank.sql(f"SELECT sample_id, {name}.ref.row AS row FROM t WHERE {name} IS NOT NULL")
            .arrow()
            .to_pylist()
        }
        for name in pixels
    }
    return bank, pixels, rows


def matching(values: np.ndarray, op: str, constant: float) -> np.ndarray:
    return OPERATORS[op](values, constant) & np.isfinite(values)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_query_selects_what_brute_force_selects(table, data):
    bank, pixels, rows = table
    target = data.draw(st.sampled_from(sorted(BANDS)))
    modality, band = BANDS[target]
    op = data.draw(st.sampled_from(sorted(OPERATORS)))
    constant = data.draw(CONSTANTS[modality])
    form = data.draw(st.sampled_from(["any", "all", "share", "not any"]))
    share_op, share = (
        data.draw(st.sampled_from([">", ">=", "<", "<="])),
        data.draw(st.sampled_from([0, 0.05, 0.3, 0.5, 1])),
    )
    sql = {
        "any": f"pixels_any({target}, '{op} {constant}')",
        "all": f"pixels_all({target}, '{op} {constant}')",
        "share": f"pixels_share({target}, '{op} {constant}') {share_op} {share}",
        "not any": f"NOT pixels_any({target}, '{op} {constant}')",
    }[form]
    expected = set()
    for sample, row in rows[modality].items():
        m = matching(pixels[modality][row][:, band], op, constant)
        answer = {
            "any": m.any(),
            "all": m.all(),
            "share": OPERATORS[share_op](m.sum() / m.size, share),
            "not any": not m.any(),
        }[form]
        if answer:
            expected.add(sample)
    source = data.draw(st.sampled_from(["t", "t AT (VERSION => 1)"]))
    found = bank.sql(f"SELECT sample_id FROM {source} WHERE {sql}").arrow()
    assert set(found["sample_id"].to_pylist()) == expected


def test_a_predicate_over_two_versions_is_asked_of_both(table):
    bank, pixels, rows = table
    both = "SELECT sample_id, NDVI FROM t AT (VERSION => 1) UNION ALL SELECT sample_id, NDVI FROM t"
    found = bank.sql(f"SELECT sample_id FROM ({both}) WHERE pixels_share(NDVI, '> 0.4') > 0.5").arrow()
    expected = [
        sample for sample, row in rows["NDVI"].items() if matching(pixels["NDVI"][row], ">", 0.4).mean() > 0.5
    ]
    assert expected
    assert sorted(found["sample_id"].to_pylist()) == sorted(expected * 2)


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(
    op=st.sampled_from(sorted(OPERATORS)),
    constant=st.sampled_from([-0.99, -0.3, 0, 0.2, 0.45, 0.8, 0.999]),
    share=st.sampled_from([0, 0.1, 0.5, 0.9]),
)
def test_normalised_differences_are_exact(table, op, constant, share):
    bank, pixels, rows = table
    sql = f"SELECT sample_id FROM t WHERE pixels_share(nd(S2L2A.B08, S2L2A.B02), '{op} {constant}') > {share}"
    expected = set()
    for sample, row in rows["S2L2A"].items():
        a, b = pixels["S2L2A"][row][:, 7], pixels["S2L2A"][row][:, 1]
        total = a + b
        nd = np.divide(a - b, total, out=np.full_like(a, np.nan), where=total != 0)
        if matching(nd, op, constant).mean() > share:
            expected.add(sample)
    assert set(bank.sql(sql).arrow()["sample_id"].to_pylist()) == expected


def test_shares_are_values_too(table):
    bank, pixels, rows = table
    sql = "SELECT t.sample_id, pixels_share(t.NDVI, '> 0.4') AS green, pixels_share('LULC', '= 2') AS trees FROM t ORDER BY green"
    found = bank.sql(sql).arrow().to_pylist()
    assert [r["green"] for r in found] == sorted(r["green"] for r in found)
    for r in found:
        assert r["green"] == matching(pixels["NDVI"][rows["NDVI"][r["sample_id"]]], ">", 0.4).mean()
        assert r["trees"] == pytest.approx(
            (pixels["LULC"][rows["LULC"][r["sample_id"]]] == 2).mean(), rel=1e-15
        )


def test_the_index_decides_what_it_can_and_the_plan_says_so(table):
    bank, _, _ = table
    extremes = bank.sql(
        "SELECT NDVI FROM t WHERE pixels_any(NDVI, '> 0.8') AND NOT pixels_all(S2L2A.B02, '< 2000')"
    ).plan()
    assert extremes.source.pixel_predicates == 2
    assert extremes.source.pixels_read == 0
    assert "all decided by the index" in extremes.explain()
    shares = bank.sql("SELECT NDVI FROM t WHERE pixels_share(S2L2A.B08, '> 2000') >= 0.5").plan()
    assert 0 < shares.source.pixels_read < 14
    assert f"{shares.source.pixels_read} by reading" in shares.explain()
    path_independent = bank.sql("select NDVI from t where pixels_share(S2L2A.B08, '> 2000')>=0.5").plan()
    assert shares.table == path_independent.table


def test_a_predicate_is_read_once_however_often_it_is_named(table):
    bank, _, _ = table
    once = "SELECT sample_id, NDVI FROM t WHERE pixels_share(S2L2A.B08, '> 2000') >= 0.5"
    twice = once.replace("sample_id", "sample_id, pixels_share(S2L2A.B08, '> 2000') >= 0.5 AS bright")
    assert bank.sql(twice).plan().source.pixels_read == bank.sql(once).plan().source.pixels_read


def test_what_the_index_leaves_open_stays_open_on_request(table):
    bank, _, _ = table
    sql = "SELECT sample_id, {} AS bright FROM t"
    exact = bank.sql(sql.format("pixels_share(S2L2A.B08, '> 2000') >= 0.5")).arrow().to_pylist()
    truth = {r["sample_id"]: r["bright"] for r in exact}
    open_query = bank.sql(
        "SELECT sample_id, S2L2A, pixels_share(S2L2A.B08, '> 2000', refine := 'index') >= 0.5 AS bright FROM t"
    )
    plan = open_query.plan()
    found = dict(zip(plan.table["sample_id"].to_pylist(), plan.table["bright"].to_pylist(), strict=True))
    undecided = [k for k, v in found.items() if v is None]
    assert undecided
    assert plan.source.pixels_undecided == len(undecided)
    assert plan.source.pixels_read == 0
    assert "left undecided (refine := 'index')" in plan.explain()
    assert all(found[k] == truth[k] for k in found if k not in undecided)


def test_tiles_decide_what_their_samples_statistics_do_not(table):
    bank, _, _ = table
    sql = "SELECT S2L2A FROM t WHERE pixels_share(nd(S2L2A.B08, S2L2A.B04), '> {}', refine := 'index') >= 0.1"
    plans = [bank.sql(sql.format(c)).plan() for c in (0.1, 0.3, 0.5, 0.7)]
    assert sum(p.source.pixels_by_tiles for p in plans) > 0
    decided = next(p for p in plans if p.source.pixels_by_tiles)
    assert f"{decided.source.pixels_by_tiles} by statistics of tiles" in decided.explain()


HIDING = {
    "subquery": "SELECT sample_id FROM (SELECT sample_id, S2L2A AS image FROM t) AS s WHERE {}",
    "common table": "WITH s AS (SELECT sample_id, S2L2A AS image FROM t) SELECT sample_id FROM s WHERE {}",
    "star": "SELECT sample_id FROM (SELECT *, S2L2A AS image FROM t) AS s WHERE {}",
    "join": "SELECT s.sample_id FROM (SELECT sample_id AS i, NDVI FROM t) AS o JOIN "
    "(SELECT sample_id, S2L2A AS image FROM t) AS s ON i = s.sample_id AND {}",
    "correlated": "SELECT sample_id FROM (SELECT sample_id, S2L2A AS image FROM t) AS s WHERE EXISTS "
    "(SELECT 1 FROM t AS o WHERE o.sample_id = s.sample_id AND {})",
    "qualify": "SELECT sample_id FROM (SELECT sample_id, S2L2A AS image FROM t) AS s "
    "QUALIFY {} AND row_number() OVER (PARTITION BY sample_id) = 1",
}


@pytest.mark.parametrize("hidden", HIDING)
def test_a_handle_is_followed_through_the_statement(table, hidden):
    bank, pixels, rows = table
    sql = HIDING[hidden].format("pixels_share(s.image.B08, '> 2000') >= 0.5")
    expected = {i for i, row in rows["S2L2A"].items() if (pixels["S2L2A"][row][:, 7] > 2000).mean() >= 0.5}
    assert 0 < len(expected) < len(rows["S2L2A"])
    assert set(bank.sql(sql).arrow()["sample_id"].to_pylist()) == expected


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_tiles_are_selected_as_brute_force_selects_them(table, data):
    bank, pixels, rows = table
    target = data.draw(st.sampled_from(sorted(BANDS)))
    modality, band = BANDS[target]
    op, constant = data.draw(st.sampled_from(sorted(OPERATORS))), data.draw(CONSTANTS[modality])
    form = data.draw(st.sampled_from(["any", "all", "share"]))
    sql = f"pixels_{form}({target}, '{op} {constant}')" + (" > 0.25" if form == "share" else "")
    found = bank.sql(f"SELECT sample_id, y0, y1, x0, x1, {sql} AS answer FROM t.tiles").arrow().to_pylist()
    assert len(found) == len(rows["S2L2A"]) * 16
    for r in found:
        if r["sample_id"] not in rows[modality]:
            assert r["answer"] is None
            continue
        row = rows[modality][r["sample_id"]]
        m = matching(pixels[modality][row][0, band, r["y0"] : r["y1"], r["x0"] : r["x1"]], op, constant)
        assert r["answer"] == {"any": m.any(), "all": m.all(), "share": m.mean() > 0.25}[form]


def test_plain_comparisons_skip_what_a_predicate_rules_out(table):
    bank, _, _ = table
    plan = bank.sql("SELECT S2L2A FROM t WHERE pixels_any(S2L2A.B08, '> 30000')").plan()
    levels = {level.level: level for level in plan.source.levels}
    assert len(plan) == 0
    assert levels["files"].kept == 0
    assert levels["files"].considered > 0


def test_a_sample_without_the_modality_neither_matches_nor_fails(table):
    bank, _, rows = table
    yes = bank.sql("SELECT count(*) AS n FROM t WHERE pixels_any(S1RTC.vv, '> -100')").arrow()["n"][0].as_py()
    no = (
        bank.sql("SELECT count(*) AS n FROM t WHERE NOT pixels_any(S1RTC.vv, '> -100')")
        .arrow()["n"][0]
        .as_py()
    )
    null = (
        bank.sql("SELECT count(*) AS n FROM t WHERE pixels_any(S1RTC.vv, '> -100') IS NULL")
        .arrow()["n"][0]
        .as_py()
    )
    assert (yes, no, null) == (len(rows["S1RTC"]), 0, 14 - len(rows["S1RTC"]))


@pytest.mark.parametrize(
    ("sql", "hint"),
    [
        ("pixels_any(S2L2A, '> 3')", "S2L2A.B01"),
        ("pixels_any(S2L2A.B88, '> 3')", "B08"),
        ("pixels_any(NDWI, '> 3')", "NDVI"),
        ("pixels_any(NDVI, 'green')", "'> 0.8'"),
        ("pixels_any(NDVI)", "pixels_any"),
        ("pixels_any(cloud_cover, '> 3')", "cloud_cover"),
        ("pixels_any(nd(S2L2A.B08, NDVI), '> 0')", "one modality"),
        ("pixels_any(NDVI, '> 0', refine := 'guess')", "refine := 'pixels', .* or 'index'"),
        ("pixels_any(NDVI, '> 0', sloppy := true)", "takes a band and a comparison"),
        ("pixels_any(S2L2A.B08.mean, '> 0')", "modality's band"),
    ],
)
def test_wrong_predicates_are_one_sentence(table, sql, hint):
    with pytest.raises((tb.InvalidInputError, tb.NotFoundError), match=hint) as caught:
        table[0].sql(f"SELECT sample_id FROM t WHERE {sql}").arrow()
    assert "\n" not in str(caught.value)


def test_damage_behind_a_predicate_is_named(table, tmp_path):
    bank, _, _ = table
    key = bank.sql("SELECT S2L2A.ref.key AS k FROM t ORDER BY k LIMIT 1").arrow()["k"][0].as_py()
    shard = Path(bank.url.removeprefix("file://")) / key
    sound = shard.read_bytes()
    try:
        shard.write_bytes(bytes(len(sound)))
        with pytest.raises(tb.IntegrityError, match="S2L2A"):
            bank.sql("SELECT sample_id FROM t WHERE pixels_share(S2L2A.B08, '> 2000') >= 0.5").arrow()
    finally:
        shard.write_bytes(sound)
