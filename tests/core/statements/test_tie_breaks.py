"""Ties broken by the samples' identity: the right rows by brute force, and which statements one thread has to execute."""

from __future__ import annotations

from contextlib import contextmanager

import duckdb
import pyarrow as pa
import pytest

import tensorbank as tb
from support.tied_index import make_tied_table
from tensorbank.planning import execution, planner


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    bank = tb.create(tmp_path_factory.mktemp("ties"))
    make_tied_table(bank, "tied", parts=2, n=600)
    bank.register(
        "mine", pa.table({"cell_id": [f"Cell{i}" for i in range(40)], "n": [i % 2 for i in range(40)]})
    )
    return bank


@pytest.fixture(scope="module")
def rows(bank):
    """Return every sample, as plain Python."""
    return bank.sql("SELECT sample_id, split, cell_id, cloud_cover, lon, lat FROM tied").arrow().to_pylist()


@pytest.fixture
def threads(monkeypatch):
    """Numbers of threads that the statements were executed by."""
    found: list[int] = []

    @contextmanager
    def executing(bound, db, catalog):
        with execution.executing(bound, db, catalog) as running:
            found.append(running.con.execute("SELECT current_setting('threads')").fetchall()[0][0])
            yield running

    monkeypatch.setattr(planner, "executing", executing)
    return found


def ids(table: pa.Table) -> list[str]:
    return table["sample_id"].to_pylist()


def by(*names: str):
    return lambda row: tuple(row[n] for n in (*names, "sample_id", "split"))


def test_rows_that_are_equal_in_an_order_come_by_their_id(bank, rows):
    right = [r["sample_id"] for r in sorted(rows, key=by("cloud_cover"))]
    assert len({r["cloud_cover"] for r in rows}) < len(rows) / 10, "there are ties"
    assert ids(bank.sql("SELECT sample_id, NDVI FROM tied ORDER BY cloud_cover").plan().table) == right
    limited = bank.sql("SELECT sample_id, NDVI FROM tied ORDER BY cloud_cover LIMIT 50 OFFSET 7")
    assert ids(limited.plan().table) == ids(limited.arrow()) == right[7:57]


@pytest.mark.parametrize(
    "source",
    [
        "tied",
        "tied AS t",
        "tied.samples",
        "(SELECT * FROM tied) AS q",
        "(SELECT split, x.* EXCLUDE (split, lat) FROM tied x) q",
    ],
)
def test_a_window_numbers_equal_rows_by_their_id(bank, rows, source, threads):
    sql = f"SELECT sample_id FROM {source} QUALIFY row_number() OVER (PARTITION BY cell_id ORDER BY cloud_cover) <= 2"
    cells: dict[str, list] = {}
    for row in sorted(rows, key=by("cloud_cover")):
        cells.setdefault(row["cell_id"], []).append(row["sample_id"])
    right = sorted(i for each in cells.values() for i in each[:2])
    assert sorted(ids(bank.sql(sql).arrow())) == right
    assert threads[-1] > 1


def test_distinct_on_keeps_the_first_by_id(bank, rows):
    sql = "SELECT DISTINCT ON (cell_id) sample_id, NDVI FROM tied ORDER BY cell_id, cloud_cover"
    first = {}
    for row in sorted(rows, key=by("cloud_cover")):
        first.setdefault(row["cell_id"], row["sample_id"])
    assert ids(bank.sql(sql).plan().table) == [first[c] for c in sorted(first)]


def test_a_common_table_is_told_apart_as_its_table_is(bank, rows):
    sql = "WITH c AS (SELECT sample_id AS i, split, lat FROM tied) SELECT i FROM c ORDER BY lat > 0 LIMIT 9"
    right = sorted(rows, key=lambda r: (r["lat"] > 0, r["sample_id"], r["split"]))
    assert bank.sql(sql).arrow()["i"].to_pylist() == [r["sample_id"] for r in right[:9]]


def test_a_join_is_told_apart_by_both_sides(bank, rows):
    sql = "SELECT t.sample_id, m.n FROM tied t JOIN mine m USING (cell_id) ORDER BY m.n DESC LIMIT 30"
    number = {f"Cell{i}": i % 2 for i in range(40)}
    right = sorted(rows, key=lambda r: (-number[r["cell_id"]], r["sample_id"], r["split"]))
    assert ids(bank.sql(sql).arrow()) == [r["sample_id"] for r in right[:30]]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT NDVI, sample_id FROM tied WHERE cloud_cover < 0.5",
        "SELECT NDVI FROM tied WHERE lower(cell_id) LIKE 'cell1%' AND abs(lat) + 1 IN (1, 2, 3) OR NOT (lon BETWEEN 1 AND 2)",
        "SELECT NDVI, rank() OVER (PARTITION BY cell_id ORDER BY lat) AS r FROM tied",
        "SELECT NDVI, count(*) OVER (ORDER BY lat) AS r, min(lon) OVER (PARTITION BY cell_id) AS low FROM tied",
        "SELECT NDVI, first_value(lon) OVER (PARTITION BY cell_id ORDER BY lat) AS f FROM tied",
        "SELECT NDVI, lead(lon) OVER (ORDER BY lat) AS f, ntile(3) OVER (ORDER BY lat) AS n FROM tied",
        "SELECT NDVI FROM tied WHERE cell_id IN (SELECT cell_id FROM tied GROUP BY cell_id HAVING count(*) > 3)",
        "SELECT NDVI FROM tied t SEMI JOIN mine USING (cell_id) ORDER BY lat LIMIT 5",
        "SELECT NDVI FROM tied t LEFT JOIN mine m ON t.cell_id = m.cell_id AND m.n > 0 WHERE m.n IS NULL",
        "SELECT NDVI, within_bbox(lon, lat, 0, 0, 9, 9) AS near FROM tied WHERE split_fraction(cell_id, 7) < 0.5",
        "SELECT NDVI FROM tied WHERE lon < 0 UNION ALL SELECT NDVI FROM tied WHERE lon > 0",
        "SELECT t.NDVI, v.x FROM tied t, (VALUES (1), (2)) AS v(x), range(2)",
        "WITH c AS (SELECT cell_id, max(lat) AS m FROM tied GROUP BY ALL) SELECT NDVI FROM tied JOIN c USING (cell_id)",
        "SELECT NDVI, CASE WHEN lat > 0 THEN 'n' ELSE 's' END AS half FROM tied",
        "SELECT NDVI, lat::INT AS i, list_transform([lat], lambda x: x + 1) AS l, {'a': lat}.a AS a FROM tied",
    ],
)  # fmt: skip
def test_statements_whose_answer_does_not_depend_on_the_order_of_rows_keep_their_threads(bank, sql, threads):
    assert len(bank.sql(sql).plan())
    assert threads[-1] > 1


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT NDVI FROM tied LIMIT 5",
        "SELECT NDVI FROM tied ORDER BY cell_id COLLATE NOCASE, lat",
        "SELECT DISTINCT ON (cell_id) NDVI FROM tied",
        "SELECT DISTINCT NDVI.mean AS m FROM tied ORDER BY round(m) LIMIT 3",
        "SELECT NDVI, row_number() OVER () AS r FROM tied",
        "SELECT NDVI, last_value(lon) OVER (ORDER BY lat) AS r FROM tied",
        "SELECT NDVI, first_value(lon IGNORE NULLS) OVER (ORDER BY lat) AS r FROM tied",
        "SELECT NDVI, count(*) OVER (ROWS 2 PRECEDING) AS r FROM tied",
        "SELECT NDVI, sum(lon) OVER (ORDER BY lat RANGE 2 PRECEDING) AS r FROM tied",
        "SELECT NDVI, avg(lon) OVER (PARTITION BY cell_id) AS weight FROM tied WHERE lon > 0",
        "SELECT NDVI FROM tied WHERE lat > (SELECT avg(lat) FROM tied)",
        "SELECT NDVI FROM tied WHERE sample_id IN (SELECT first(sample_id) FROM tied GROUP BY cell_id)",
        "SELECT NDVI FROM tied USING SAMPLE reservoir(5 ROWS) REPEATABLE (3)",
        "SELECT NDVI FROM tied TABLESAMPLE bernoulli(50%) REPEATABLE (3)",
        "SELECT NDVI FROM tied POSITIONAL JOIN mine WHERE NDVI IS NOT NULL",
        "SELECT t.NDVI FROM mine m ASOF JOIN tied t ON m.n >= t.lat",
        "SELECT NDVI, unnest([1, 2]) AS k FROM tied ORDER BY lat",
        "SELECT NDVI FROM (SELECT 1 AS sample_id, * FROM tied) q ORDER BY lat",
        "SELECT NDVI FROM (SELECT * EXCLUDE (sample_id), 'x' AS sample_id FROM tied) q ORDER BY lat",
        "SELECT q.NDVI FROM (SELECT a.*, m.* FROM tied a, mine m) q ORDER BY lat",
        "SELECT NDVI FROM tied t(a, b) ORDER BY lat",
        "SELECT NDVI FROM tied, range(2) ORDER BY lat",
        "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 3) SELECT NDVI FROM tied, r",
        "SELECT NDVI FROM tied WHERE lon < 0 UNION ALL SELECT NDVI FROM tied WHERE lon > 0 LIMIT 5",
        "SELECT NDVI FROM tied WHERE ARRAY(SELECT n FROM mine)[1] = 0",
    ],
)  # fmt: skip
def test_statements_whose_answer_depends_on_the_order_of_rows_are_executed_by_one_thread(bank, sql, threads):
    assert len(bank.sql(sql).plan())
    assert threads[-1] == 1
    bank.sql("SELECT NDVI FROM tied").plan()
    assert threads[-1] > 1, "and the next one is not"


def test_looking_does_not_care_for_last_digits(bank, threads):
    bank.sql("SELECT avg(lat) FROM tied").arrow()
    assert threads[-1] > 1
    bank.sql("SELECT first(lat) FROM tied").arrow()
    assert threads[-1] == 1


def test_columns_keep_their_names(bank):
    columns = (
        "ntile(2) OVER (ORDER BY lat), row_number() OVER (PARTITION BY cell_id ORDER BY round(lon, 1)) + 1, "
        "(SELECT lat FROM tied ORDER BY lat LIMIT 1), lag(lat) OVER (ORDER BY lon) AS before"
    )
    con = duckdb.connect()
    con.execute("CREATE TABLE tied (lat DOUBLE, lon DOUBLE, cell_id VARCHAR)")
    right = con.sql(f"SELECT {columns} FROM tied").columns
    assert bank.sql(f"SELECT {columns} FROM tied").arrow().column_names == right


def test_a_subquery_that_orders_its_rows_is_numbered_in_that_order(bank, rows):
    sql = "SELECT sample_id, row_number() OVER () AS r FROM (SELECT * FROM tied ORDER BY lat, lon) ORDER BY r LIMIT 40"
    right = [r["sample_id"] for r in sorted(rows, key=by("lat", "lon"))]
    assert ids(bank.sql(sql).arrow()) == right[:40]


def test_a_plan_of_columns_alone_has_an_order_too(bank, rows):
    table = bank.sql("SELECT cell_id, [lat, lon] AS place FROM tied").plan().table
    right = sorted((r["cell_id"], repr([r["lat"], r["lon"]])) for r in rows)
    assert [(r["cell_id"], repr(r["place"])) for r in table.to_pylist()] == right
