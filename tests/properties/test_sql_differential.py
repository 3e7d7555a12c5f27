"""Any statement gives what plain DuckDB gives over the whole index, though most of the index is not looked at."""

from __future__ import annotations

import sys
from collections import Counter
from datetime import date
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from differential.bed import make_bed
from differential.check import compare
from differential.grammar import Statement, statement

sys.path.pop(0)

N_STATEMENTS = 300
FIRST = date.today().toordinal() * 10_000
"""Other statements every day; a failure names the number of its own."""


@pytest.fixture(scope="module")
def bed(tmp_path_factory):
    with make_bed(tmp_path_factory.mktemp("differential") / "bank") as made:
        yield made


@pytest.fixture(scope="module")
def old_bed(tmp_path_factory):
    with make_bed(tmp_path_factory.mktemp("differential") / "old", seed=6, old=True) as made:
        yield made


def test_generated_statements_are_answered_as_by_plain_duckdb(bed):
    shapes: Counter[str] = Counter()
    outcomes, wrong = [], []
    for number in range(FIRST, FIRST + N_STATEMENTS):
        asked = statement(bed, number)
        outcome = compare(bed, asked)
        shapes.update(asked.shape)
        outcomes.append(outcome)
        if outcome.wrong is not None:
            wrong.append(f"statement {number}: {outcome.wrong}\n{asked.ours}")
    assert not wrong, "\n\n".join(wrong)
    assert sum(o.pruned for o in outcomes) > N_STATEMENTS * 0.15
    assert sum(o.n_rows > 0 for o in outcomes) > N_STATEMENTS * 0.4
    assert sum(o.refused for o in outcomes) < N_STATEMENTS * 0.05
    joins = {"LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "SEMI JOIN", "ANTI JOIN", "POSITIONAL JOIN", "lateral"}
    assert joins <= set(shapes)
    assert {"not", "odd", "pixels", "set", "qualify", "limit", "not between", "with"} <= set(shapes)


OLD = {
    "beyond": "SELECT sample_id FROM tm WHERE lon > 100",
    "up to": "SELECT sample_id FROM tm WHERE cloud_cover <= 1",
    "below": "SELECT sample_id FROM tm WHERE cloud_cover < 0.1",
    "not below": "SELECT sample_id FROM tm WHERE NOT lat < 50",
    "mean": "SELECT sample_id, S1GRD.vv.max AS high FROM tm WHERE S1GRD.vv.mean > -15",
    "tiles": "SELECT sample_id, tile FROM tm.tiles WHERE lon >= 170",
    "extremes": "SELECT max(lon) AS a, max(cloud_cover) AS b, count(lat) AS c FROM tm",
    "order": "SELECT sample_id, cloud_cover FROM tm ORDER BY cloud_cover DESC, sample_id LIMIT 5",
    "shards": "SELECT part, shard FROM tm.shards WHERE max_cloud_cover > 0.9",
    "new columns": "SELECT count(*) AS n FROM {{(SELECT * FROM tm.shards WHERE min_lon IS NULL)||tm.shards}} AS q",
    "box": "SELECT sample_id FROM tm WHERE within_bbox(lon, lat, 100, -90, 180, 90)",
    "any pixel": "SELECT sample_id FROM tm WHERE {{pixels_any(tm.S1GRD.vv, '< -20')||px(12, 'tm/' || tm.sample_id)}}",
    "all pixels": "SELECT sample_id FROM tm WHERE {{pixels_all(tm.S1GRD.vh, '< -10')||px(14, 'tm/' || tm.sample_id)}}",
    "not all pixels": (
        "SELECT sample_id FROM tm WHERE NOT {{pixels_all(tm.S1GRD.vh, '>= -25')||px(15, 'tm/' || tm.sample_id)}}"
    ),
}


@pytest.mark.parametrize("text", OLD.values(), ids=OLD)
def test_nan_in_an_old_bank_is_a_missing_number(old_bed, text):
    outcome = compare(old_bed, Statement(text, frozenset()))
    assert outcome.wrong is None
    assert outcome.n_rows > 0


def test_statements_over_an_old_bank_are_answered_as_if_nan_were_null(old_bed):
    asked = [statement(old_bed, number) for number in range(FIRST + 5000, FIRST + 5060)]
    outcomes = [compare(old_bed, a) for a in asked]
    wrong = [f"{o.wrong}\n{a.ours}" for o, a in zip(outcomes, asked, strict=True) if o.wrong is not None]
    assert not wrong, "\n\n".join(wrong)
    assert sum(o.n_rows > 0 for o in outcomes) > 20


PRUNED = {
    # every form of a condition that is understood
    "greater": "SELECT sample_id FROM tm WHERE lon > 150",
    "less": "SELECT sample_id FROM tm WHERE NDVI.mean < -0.2",
    "mirrored": "SELECT sample_id FROM tm WHERE -170 >= lon",
    "equal": "SELECT sample_id FROM tm WHERE season = 'summer'",
    "not equal": "SELECT sample_id FROM tm WHERE part != 'part-0'",
    "and": "SELECT sample_id FROM tm WHERE season = 'summer' AND lon > 100 AND stem LIKE '%1%'",
    "or": "SELECT sample_id FROM tm WHERE part = 'part-1' OR part = 'part-3'",
    "not": "SELECT sample_id FROM tm WHERE NOT lon < 170",
    "not and": "SELECT sample_id FROM tm WHERE NOT (part < 'part-3' AND season = 'autumn') AND lon > 160",
    "not or": "SELECT sample_id FROM tm WHERE NOT (part > 'part-1' OR season = 'spring')",
    "between": "SELECT sample_id FROM tm WHERE hilbert BETWEEN 9007199254741000 AND 9007199254741010",
    "not between": "SELECT sample_id FROM tm WHERE part NOT BETWEEN 'part-1' AND 'part-4'",
    "in": "SELECT sample_id FROM tm WHERE part IN ('part-2', 'part-5')",
    "box": "SELECT sample_id FROM tm WHERE within_bbox(lon, lat, -175, -90, -160, 90)",
    "box across the date line": "SELECT sample_id FROM tm WHERE within_bbox(lon, lat, 178, -90, -178, 90)",
    "not equal of a box": "SELECT sample_id FROM tm WHERE NOT (bbox.west > -170)",
    "time": "SELECT sample_id FROM tm WHERE S2_time >= '2020-11-20T00:00:00+00:00'",
    "time without a zone": "SELECT sample_id FROM tm WHERE S2_time < '2020-02-10 12:00:00'",
    "time by a cast": "SELECT sample_id FROM tm WHERE S2_time > TIMESTAMPTZ '2020-12-01'",
    "date": "SELECT sample_id FROM tm WHERE S2_time < DATE '2020-02-01'",
    "brackets": "SELECT sample_id FROM tm WHERE S2L2A['B08'].max > 5900",
    "share of a class": "SELECT sample_id FROM tm WHERE LULC.share.water > 0.9",
    "tiles": "SELECT sample_id, tile FROM tm.tiles WHERE NDVI.max < -0.3",
    "case of letters": 'SELECT SAMPLE_ID FROM TM WHERE "Lon" > 150 AND ndvi.MEAN > 0',
    "pixels": "SELECT sample_id FROM tm WHERE {{pixels_any(tm.S2L2A.B08, '>= 5000')||px(3, 'tm/' || tm.sample_id)}}",
    # joins
    "inner": "SELECT x.sample_id FROM tm AS x JOIN sw AS y USING (sample_id) WHERE x.lon > 150 AND y.lon < 0",
    "on of an inner join": "SELECT x.sample_id FROM tm AS x JOIN sw AS y ON x.sample_id = y.sample_id AND x.lon > 150",
    "cross": "SELECT x.sample_id, rank FROM tm AS x, pick WHERE x.lon > 175",
    "left": "SELECT x.sample_id FROM tm AS x LEFT JOIN sw AS y ON x.sample_id = y.sample_id WHERE x.lon > 150",
    "right of a left join": (
        "SELECT x.sample_id FROM tm AS x LEFT JOIN sw AS y ON x.sample_id = y.sample_id WHERE y.lon > 150"
    ),
    "on of a left join": (
        "SELECT x.sample_id, y.sample_id AS s FROM tm AS x LEFT JOIN sw AS y"
        " ON x.sample_id = y.sample_id AND y.lon > 170"
    ),
    "full": "SELECT x.sample_id FROM tm AS x FULL JOIN sw AS y ON x.sample_id = y.sample_id WHERE x.lon > 150",
    "semi": "SELECT sample_id FROM tm AS x SEMI JOIN sw AS y ON x.sample_id = y.sample_id WHERE lon > 100",
    "on of a semi join": "SELECT sample_id FROM tm AS x SEMI JOIN sw AS y ON x.sample_id = y.sample_id AND y.part = 'part-1'",
    "anti": "SELECT sample_id FROM tm AS x ANTI JOIN sw AS y ON x.sample_id = y.sample_id WHERE lon > 100",
    "on of an anti join": "SELECT sample_id FROM tm AS x ANTI JOIN sw AS y ON x.sample_id = y.sample_id AND y.part = 'part-1'",
    "left of an asof join": (
        "SELECT x.sample_id, y.sample_id AS s FROM tm AS x ASOF JOIN sw AS y ON x.S2_time >= y.S2_time WHERE x.lon > 150"
    ),
    "shared name of two tables": (
        "SELECT sample_id FROM tm JOIN tm.tiles USING (sample_id, part) WHERE part = 'part-2' AND tile = 1"
    ),
    "lateral": (
        "SELECT x.sample_id, y.sample_id AS s FROM tm AS x, LATERAL"
        " (SELECT * FROM sw AS i WHERE i.sample_id = x.sample_id AND i.lon < -100) AS y WHERE x.lon > 0"
    ),
    "subquery": "SELECT sample_id FROM tm WHERE sample_id IN (SELECT sample_id FROM sw WHERE sw.lon > 120)",
    "correlated": (
        "SELECT sample_id FROM tm WHERE EXISTS (SELECT 1 FROM sw WHERE sw.sample_id = tm.sample_id AND sw.lon > 120)"
    ),
    "window": "SELECT sample_id FROM tm WHERE lon > 120 QUALIFY row_number() OVER (PARTITION BY season ORDER BY sample_id) = 1",
    "group": "SELECT season, count(*) AS n FROM tm WHERE lon > 120 GROUP BY season HAVING count(*) > 1",
    "set": "SELECT sample_id FROM tm WHERE lon > 150 EXCEPT SELECT sample_id FROM tm WHERE lon > 170",
    "twice": "SELECT x.sample_id FROM tm AS x, tm AS y WHERE x.sample_id = y.sample_id AND x.lon > 150 AND y.lon > 160",
}


@pytest.mark.parametrize("text", PRUNED.values(), ids=PRUNED)
def test_what_a_condition_rules_out_is_not_looked_at(bed, text):
    outcome = compare(bed, Statement(text, frozenset()))
    assert outcome.wrong is None
    assert outcome.pruned
    assert outcome.n_rows > 0


KEPT = {
    "right of an asof join": (
        "SELECT x.sample_id, y.sample_id AS s FROM tm AS x ASOF JOIN sw AS y ON x.S2_time >= y.S2_time"
        " WHERE y.split = 'train' AND y.lon > 0"
    ),
    "right of an asof join of a registered table": (
        "SELECT k.rank, t.sample_id FROM pick AS k ASOF JOIN tm AS t ON k.at >= t.S2_time WHERE t.split = 'val'"
    ),
    "right of an anti join": (
        "SELECT sample_id FROM tm ANTI JOIN sw AS y ON y.part = 'part-2' WHERE part = 'part-5'"
        " UNION ALL SELECT sample_id FROM tm ANTI JOIN tm AS y ON y.split = 'nowhere' WHERE part = 'part-5'"
    ),
    "right of a semi join": "SELECT sample_id FROM sw SEMI JOIN tm AS t ON t.part = 'part-4' WHERE sw.part = 'part-1'",
    "unqualified name of a semi join": "SELECT sample_id FROM sw SEMI JOIN tm ON tm.part = 'part-4' WHERE part = 'part-1'",
    "positional": (
        "SELECT t.sample_id, c.sample_id AS s FROM tm AS t POSITIONAL JOIN sw AS c"
        " WHERE t.split = 'val' AND c.sample_id IS NOT NULL"
    ),
    "below a positional join": (
        "SELECT t.sample_id FROM (tm AS t JOIN sw AS c ON t.sample_id = c.sample_id) POSITIONAL JOIN pick WHERE t.lon > 0"
    ),
    "box with named arguments": (
        "SELECT sample_id FROM tm WHERE within_bbox(lat := lat, lon := lon, west := -90, south := -60, east := 90, north := 60)"
    ),
    "columns of a full join made one": (
        "SELECT sample_id, x.part AS p, y.part AS q FROM tm AS x FULL JOIN sw AS y USING (sample_id) WHERE sample_id > 's0200'"
    ),
    "natural join with a table of another type": (
        "SELECT count(*) AS n FROM tm NATURAL JOIN (SELECT sample_id, hilbert::VARCHAR AS hilbert FROM tm) AS q"
        " WHERE hilbert > '9007199254741'"
    ),
    "alias of the select list": "SELECT lat AS far, sample_id FROM tm WHERE far > 50",
    "alias that is a column, too": "SELECT lat AS lon, sample_id FROM tm WHERE lon > 150",
    "common table of the table's name": "WITH tm AS (SELECT * FROM sw) SELECT sample_id FROM tm WHERE lon > 150",
    "table under the name of another": "SELECT tm.sample_id FROM sw AS tm, tm AS sw WHERE tm.lon > 150 AND sw.lon < -170",
    "alias of a struct": "SELECT bbox.sample_id FROM tm AS bbox WHERE bbox.west < -170",
    "alias of a modality": "SELECT NDVI.sample_id FROM tm AS NDVI WHERE NDVI.mean > 0.4 AND NDVI.lon > 100",
    "renamed columns": "SELECT a FROM tm AS t(a, b, lon) WHERE lon > 'v'",
    "outer name in an inner scope": (
        "SELECT sample_id FROM tm WHERE 1 = (SELECT count(*) FROM pick WHERE pick.sample_id = tm.sample_id AND cloud_cover < 2)"
    ),
    "wanted by one mention only": "SELECT x.sample_id FROM tm AS x, tm AS y WHERE x.sample_id = y.sample_id AND x.lon > 150",
    "null-safe": (
        "SELECT x.sample_id FROM tm AS x LEFT JOIN sw AS y ON x.sample_id = y.sample_id"
        " WHERE y.lon IS NOT DISTINCT FROM NULL"
    ),
    "not true": "SELECT sample_id FROM tm WHERE (lon > 150) IS NOT TRUE",
    "or with what is not understood": "SELECT sample_id FROM tm WHERE lon > 170 OR abs(lat) > 50",
    "anti join by a left join": (
        "SELECT x.sample_id FROM tm AS x LEFT JOIN sw AS y ON x.sample_id = y.sample_id AND y.lon > 0 WHERE y.sample_id IS NULL"
    ),
    "integers beyond the floats": (
        "SELECT sample_id FROM tm WHERE hilbert < 9007199254740993.0 OR hilbert = 9007199254740995::DOUBLE"
    ),
    "equal sides of a box": "SELECT count(*) AS n FROM tm WHERE within_bbox(lon, lat, 10.00000000000000001, -90, 10, 90)",
    "pivot": "SELECT * FROM (PIVOT (SELECT season, split FROM tm WHERE lon > 0) ON split IN ('train', 'val') USING count(*))",
    "aggregate with a filter": "SELECT count(*) FILTER (WHERE lon > 150) AS n, count(*) AS m FROM tm",
    "sample of all rows, then a condition": "SELECT count(*) AS n FROM (SELECT * FROM tm WHERE lon > 0) AS q",
}


@pytest.mark.parametrize("text", KEPT.values(), ids=KEPT)
def test_what_decides_elsewhere_is_not_pruned_away(bed, text):
    outcome = compare(bed, Statement(text, frozenset()))
    assert outcome.wrong is None
    assert not outcome.refused
    assert outcome.n_rows > 0
