"""The modality of a column, where two modalities have columns of one type: right, or refused; never the other one."""

from __future__ import annotations

from dataclasses import replace

import pytest

import tensorbank as tb
from support.handmade_index import NDVI, S2, make_table
from tensorbank import InvalidInputError, TableSchema
from tensorbank.layout import modality_of_key
from tensorbank.planning import planner

EARLY, LATE = replace(S2, name="early"), replace(S2, name="late", dtype="uint16")
ONCE = replace(NDVI, name="once")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Make ``a``, whose ``early`` and ``late`` differ in name and dtype alone, and ``b``, which has them in another order."""
    bank = tb.create(tmp_path_factory.mktemp("origins"))
    a = make_table(bank, "a", parts=1, n=12, schema=TableSchema((EARLY, LATE, ONCE)))
    make_table(bank, "b", parts=1, n=12, schema=TableSchema((LATE, EARLY, ONCE)))
    return bank, a


def modalities(plan) -> dict[str, str]:
    return {handle.name: handle.modality.name for handle in plan.handles}


FOLLOWED = {
    "column": ("SELECT late AS x FROM a", "late"),
    "qualified": ("SELECT q.late AS x FROM a AS q", "late"),
    "common table": ("WITH c AS (SELECT late AS y FROM a) SELECT y AS x FROM c", "late"),
    "two common tables": (
        "WITH c AS (SELECT early AS late, late AS early FROM a), d AS (SELECT * FROM c) SELECT early AS x FROM d",
        "late",
    ),
    "names of a common table": ("WITH a AS (SELECT late AS early FROM a) SELECT early AS x FROM a", "late"),
    "subquery": ("SELECT early AS x FROM (SELECT late AS early, early AS late FROM a)", "late"),
    "star": ("SELECT * FROM (SELECT late AS x FROM a)", "late"),
    "star without": ("SELECT early AS x FROM (SELECT * EXCLUDE (early), late AS early FROM a)", "late"),
    "star replaced": ("SELECT early AS x FROM (SELECT * REPLACE (late AS early) FROM a)", None),
    "join": ("SELECT b.late AS x FROM a JOIN b USING (sample_id)", "late"),
    "join of renamed": (
        "SELECT q.x FROM a JOIN (SELECT sample_id, late AS x FROM a) q USING (sample_id)",
        "late",
    ),
    "union": ("SELECT early AS x FROM a WHERE lon > 0 UNION ALL SELECT early FROM b", "early"),
    "union by name": (
        "SELECT late AS x, 1 AS k FROM a UNION ALL BY NAME SELECT 1 AS k, late AS x FROM b",
        "late",
    ),
    "union of stars": ("SELECT late AS x FROM (SELECT * FROM a UNION ALL SELECT * FROM a)", "late"),
    "union with nothing": ("SELECT late AS x FROM a UNION ALL SELECT NULL", "late"),
    "case": ("SELECT CASE WHEN lon < 100 THEN late END AS x FROM a", "late"),
    "coalesce": ("SELECT coalesce(a.late, b.late) AS x FROM a JOIN b USING (sample_id)", "late"),
    "if": ("SELECT if(lon > 0, late, late) AS x FROM a", "late"),
    "element of a list": ("SELECT list_value(late)[1] AS x FROM a", None),
    "value of a subquery": ("SELECT (SELECT late FROM a ORDER BY lon LIMIT 1) AS x", "late"),
    "chosen bands": ("SELECT x FROM (SELECT bands(late, ['B08', 'B02']) AS x FROM a)", "late"),
}


@pytest.mark.parametrize(("sql", "right"), FOLLOWED.values(), ids=FOLLOWED)
def test_a_modality_is_that_of_the_rows(made, sql, right):
    bank, _ = made
    plan = bank.sql(sql).plan()
    assert len(plan)
    assert modalities(plan) == {"x": right or "late"}
    assert {modality_of_key(key) for key in plan.addresses["x"].shard_keys} == {right or "late"}


@pytest.mark.parametrize(("sql", "right"), FOLLOWED.values(), ids=FOLLOWED)
def test_a_modality_without_a_row_is_that_of_the_statement_or_refused(made, sql, right):
    bank, _ = made
    empty = f"SELECT * FROM ({sql}) WHERE false"
    if right is None:
        with pytest.raises(InvalidInputError, match="the modality of column 'x' is unknown"):
            bank.sql(empty).plan()
    else:
        plan = bank.sql(empty).plan()
        assert modalities(plan) == {"x": right}
        assert len(plan) == 0


MIXED = {
    "case": "SELECT CASE WHEN lon > 0 THEN early ELSE late END AS x FROM a",
    "coalesce": "SELECT coalesce(CASE WHEN lon > 0 THEN early END, late) AS x FROM a",
    "union": "SELECT early AS x FROM a UNION ALL SELECT late FROM a",
    "union of other columns": "SELECT early AS x, late AS y FROM a UNION ALL SELECT late, early FROM b",
    "if": "SELECT if(lon > 0, early, late) AS x FROM a",
}


@pytest.mark.parametrize("where", ["", " WHERE false"], ids=["rows", "no rows"])
@pytest.mark.parametrize("sql", MIXED.values(), ids=MIXED)
def test_two_modalities_in_one_column_are_refused(made, sql, where):
    bank, _ = made
    with pytest.raises(InvalidInputError, match="mixes the modalities early, late"):
        bank.sql(f"SELECT x FROM ({sql}){where}").plan()


def test_chosen_bands_are_kept_where_no_row_has_them(made):
    bank, _ = made
    (handle,) = (
        bank.sql("SELECT x FROM (SELECT bands(late, ['B08', 'B02']) AS x FROM a) WHERE false").plan().handles
    )
    assert (handle.modality, handle.bands) == (LATE, (3, 0))


def test_an_unnamed_expression_beside_a_star_is_found_by_its_place(made):
    bank, _ = made
    plan = bank.sql(
        "SELECT bands(late, ['B02']), q.*, bands(once, ['NDVI']) FROM (SELECT early FROM a) q, a WHERE false"
    ).plan()
    assert modalities(plan) == {"late": "late", "early": "early", "once": "once"}


def test_a_pixel_predicate_of_a_column_of_two_modalities_is_refused(made):
    bank, _ = made
    both = "(SELECT early AS x FROM a UNION ALL SELECT late FROM a)"
    with pytest.raises(InvalidInputError, match="pixel predicates take a modality's band"):
        bank.sql(f"SELECT x FROM {both} WHERE pixels_any(x.B02, '> 3', refine := 'index')").plan()
    two = "(SELECT * FROM a UNION ALL SELECT * FROM b)"
    with pytest.raises(InvalidInputError):
        bank.sql(f"SELECT early FROM {two} WHERE pixels_any(early.B02, '> 3', refine := 'index')").plan()


def test_statistics_are_of_the_modality_that_a_column_holds(made):
    bank, a = made
    found = bank.sql("SELECT early AS x, late AS early FROM a").statistics("early")
    assert found.modality == "late"
    present = [r["late"]["B02"]["valid"] for r in a.samples if r["late"] is not None]
    assert sum(present) > 0
    assert found.n_samples == len(present)
    with pytest.raises(InvalidInputError, match="comes from early, late; select the modality itself"):
        bank.sql(MIXED["union"]).statistics("x")


def test_every_statement_is_parsed_once(made, monkeypatch):
    bank, _ = made
    texts = []
    tree = planner.Parser.tree
    monkeypatch.setattr(planner.Parser, "tree", lambda parser, sql: texts.append(sql) or tree(parser, sql))
    sql = "SELECT late FROM a WHERE lon > 0"
    bank.sql(sql).plan()
    assert texts == [sql]
