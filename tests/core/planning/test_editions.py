"""Two versions of one table in a statement: which rows, files and tensors each name means."""

from __future__ import annotations

import pytest

import tensorbank as tb
from support.handmade_index import NDVI, S2, make_table, part_of
from tensorbank import InvalidInputError, Modality, NotFoundError, Plan, TableSchema

N = 6


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A bank with a table of three parts, whose second version is tagged, and its rows."""
    bank = tb.create(tmp_path_factory.mktemp("bank"))
    table = make_table(bank, "t", parts=3, n=N, prefix="p")
    bank.table("t").at(2).tag("paper-v1")
    return bank, table


def ids(bank, sql):
    return sorted(bank.sql(sql).arrow()["sample_id"].to_pylist())


def right(table, n_parts):
    """The ids of the first parts, by the rows that were committed."""
    found = sorted(r["sample_id"] for r in table.samples if int(r["part"][-1]) < n_parts)
    assert len(found) == n_parts * N
    return found


@pytest.mark.parametrize(
    ("at", "n_parts"),
    [
        ("AT (VERSION => 1)", 1),
        ("at (version => 0)", 0),
        ("AT (VERSION => '2')", 2),
        ("AT (VERSION => 'paper-v1')", 2),
        ("AT (TIMESTAMP => '2999-01-01')", 3),
        ("AT (TIMESTAMP => TIMESTAMP '2999-01-01 12:00:00')", 3),
        ("AT (TIMESTAMP => DATE '2999-01-01')", 3),
    ],
)
def test_a_table_is_what_it_was(made, at, n_parts):
    bank, table = made
    assert ids(bank, f"SELECT sample_id FROM t {at}") == right(table, n_parts)
    assert ids(bank, f"SELECT x.sample_id FROM T x {at} WHERE x.lon < 999") == right(table, n_parts)
    tiles = bank.sql(f"SELECT DISTINCT sample_id FROM t.tiles {at}").arrow()
    assert sorted(tiles["sample_id"].to_pylist()) == right(table, n_parts)


def test_a_time_is_that_of_commits(made):
    bank, table = made
    history = bank.table("t").history()
    assert [info.version for info in history] == [3, 2, 1, 0]
    for info in history:
        at = f"{info.when.strftime('%F %T')}.{info.timestamp_ms % 1000:03d}"
        newest = max(other.version for other in history if other.timestamp_ms <= info.timestamp_ms)
        assert ids(bank, f"SELECT sample_id FROM t AT (TIMESTAMP => '{at}')") == right(table, newest)
    assert bank.at({"t": "2999-01-01"}).versions == {"t": 3}


def test_two_versions_stand_in_one_statement(made):
    bank, table = made
    added = "SELECT a.sample_id FROM t a ANTI JOIN t b AT (VERSION => 1) USING (sample_id)"
    assert ids(bank, added) == sorted({*right(table, 3)} - {*right(table, 1)})
    gone = "SELECT a.sample_id FROM t a AT (VERSION => 1) ANTI JOIN t b USING (sample_id)"
    assert ids(bank, gone) == []
    between = "FROM t AT (VERSION => 'paper-v1') EXCEPT FROM t AT (VERSION => 1)"
    assert ids(bank, f"SELECT sample_id FROM ({between})") == sorted({*right(table, 2)} - {*right(table, 1)})
    within = "SELECT sample_id FROM t WHERE sample_id IN (SELECT sample_id FROM t AT (VERSION => 1))"
    assert ids(bank, within) == right(table, 1)
    named = "WITH old AS (FROM t AT (VERSION => 1)) SELECT sample_id FROM old JOIN t USING (sample_id)"
    assert ids(bank, named) == right(table, 1)


def test_an_at_outweighs_the_version_that_the_bank_is_pinned_to(made):
    bank, table = made
    sql = "SELECT a.sample_id FROM t a2 AT (VERSION => 2) JOIN t a USING (sample_id)"
    assert ids(bank.at({"t": 1}), sql) == right(table, 1)
    assert ids(bank.at({"t": 1}), "SELECT sample_id FROM t AT (VERSION => 2)") == right(table, 2)


def test_a_plan_names_every_snapshot_and_keeps_them(made, tmp_path):
    bank, table = made
    plan = bank.sql(
        "SELECT a.sample_id, a.S2L2A FROM t a ANTI JOIN t b AT (VERSION => 1) USING (sample_id)"
    ).plan()
    assert sorted(plan.table["sample_id"].to_pylist()) == sorted({*right(table, 3)} - {*right(table, 1)})
    table_id = bank.catalog.files("t", "samples").table_id
    assert plan.source.snapshots == {"t": (table_id, 3), "t@1": (table_id, 1)}
    assert {(s.table, s.table_id, s.version) for s in plan.source.read_snapshots} == {
        ("t", table_id, 3),
        ("t", table_id, 1),
    }
    assert "t at version 3, t at version 1" in plan.explain()
    loaded = Plan.load(plan.save(tmp_path / "plan"))
    assert loaded == plan
    assert loaded.source == plan.source


def test_one_version_has_one_fingerprint_however_it_is_named(made):
    bank, _ = made
    sql = "SELECT sample_id, S2L2A FROM t AT ({})"
    tagged = bank.sql(sql.format("VERSION => 'paper-v1'")).plan()
    assert tagged.source.snapshots["t"][1] == 2
    assert tagged.fingerprint == bank.sql(sql.format("VERSION => 2")).plan().fingerprint
    assert tagged.fingerprint != bank.sql(sql.format("VERSION => 3")).plan().fingerprint


def test_a_handle_belongs_to_the_version_that_it_is_selected_from(made):
    bank, table = made
    plan = bank.sql(
        "SELECT a.sample_id, a.S2L2A, b.NDVI AS later FROM t a AT (VERSION => 1) JOIN t b USING (sample_id)"
    ).plan()
    rows = table.by_id()
    assert [h.name for h in plan.handles] == ["S2L2A", "later"]
    assert len(plan) == N
    for position, sample in enumerate(plan.table["sample_id"].to_pylist()):
        for handle, modality in (("S2L2A", "S2L2A"), ("later", "NDVI")):
            addresses, row = plan.addresses[handle], rows[sample][modality]
            assert addresses.present[position] == (row is not None)
            if row is not None:
                assert addresses.shard_keys[addresses.shard_of[position]] == row["ref"]["key"]


@pytest.mark.parametrize(
    ("sql", "error", "words"),
    [
        (
            "FROM t AT (VERSION => 'papr-v1')",
            NotFoundError,
            "no tag 'papr-v1'. There is only paper-v1|Did you mean 'paper-v1'",
        ),
        ("FROM t AT (VERSION => 9)", NotFoundError, "no version 9"),
        (
            "FROM t AT (TIMESTAMP => '2001-01-01')",
            NotFoundError,
            "had no version at 2001-01-01 .* its version 0 is of 2",
        ),
        ("FROM t AT (TIMESTAMP => 'yesterday')", InvalidInputError, "'yesterday' is no time"),
        ("FROM t AT (TIMESTAMP => now())", InvalidInputError, "a constant"),
        ("FROM t AT (VERSION => NULL)", InvalidInputError, "a constant"),
        ("FROM t AT (VERSION => -1)", InvalidInputError, "got -1"),
        ("FROM t AT (VERSION => 1.5)", InvalidInputError, "got 1.5"),
        ("FROM t AT (VERSION => 'a/b')", InvalidInputError, "cannot name a tag"),
        ("FROM tt AT (VERSION => 1)", InvalidInputError, "no table 'tt'. Did you mean 't'"),
        ("FROM t.tils AT (VERSION => 1)", InvalidInputError, "no table 't.tils'. Did you mean 'tiles'"),
        ("WITH c AS (FROM t) FROM c AT (VERSION => 1)", InvalidInputError, "'c' is no table of the bank"),
        ('FROM "t@1".samples', InvalidInputError, "no table 't@1.samples'"),
        ("PIVOT (FROM t AT (VERSION => 1)) ON split USING count(*)", InvalidInputError, "PIVOT"),
    ],
)
def test_what_names_no_version_is_refused_with_a_sentence(made, sql, error, words):
    with pytest.raises(error, match=words):
        made[0].sql(sql).arrow()


def test_a_registered_table_has_no_versions(made):
    import pyarrow as pa

    mine = made[0].at({})
    mine.register("mine", pa.table({"n": [1]}))
    with pytest.raises(InvalidInputError, match="'mine' is no table of the bank"):
        mine.sql("FROM mine AT (VERSION => 1)").arrow()


def test_a_statement_without_an_at_asks_for_no_tags(made, monkeypatch):
    bank, _ = made
    asked = []
    get = type(bank.catalog.store).get
    monkeypatch.setattr(
        type(bank.catalog.store), "get", lambda self, key, *a: asked.append(key) or get(self, key, *a)
    )
    bank.sql("SELECT S2L2A FROM t").plan()
    assert not [key for key in asked if "/tags/" in key]


def test_versions_of_different_schemas_keep_their_own_modalities(tmp_path):
    """A modality that one version has is no column of the other."""
    bank = tb.create(tmp_path)
    make_table(bank, "t", parts=1, n=3, schema=TableSchema((S2,)))
    make_table(bank, "u", parts=1, n=3, schema=TableSchema((S2, NDVI)))
    bank.catalog.commit("u", part_of("u", "more", 3, schema=TableSchema((S2, NDVI))))
    both = bank.sql(
        "SELECT S2L2A FROM t AT (VERSION => 1) UNION ALL SELECT S2L2A FROM u AT (VERSION => 1)"
    ).plan()
    assert len(both) == 6
    assert {(s.table, s.version) for s in both.source.read_snapshots} == {("t", 1), ("u", 1)}
    with pytest.raises(InvalidInputError, match="NDVI"):
        bank.sql("SELECT NDVI FROM t AT (VERSION => 1)").plan()
    assert isinstance(both.handles[0].modality, Modality)
