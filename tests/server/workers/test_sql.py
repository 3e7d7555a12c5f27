"""Full SQL: right answers for those who may, and nothing else of the machine for anybody."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import httpx
import pyarrow as pa
import pytest

from support.programs import unavailable
from support.server_process import serving
from support.service import check_problem
from tensorbank_server.access.keys import KeyFile
from tensorbank_server.workers.landlock import abi_version

URL = "/v1/banks/eo/sql"


@pytest.fixture(scope="module")
def with_sql(bank_folder, tmp_path_factory):
    keys = KeyFile(tmp_path_factory.mktemp("keys") / "keys.json")
    _, analyst = keys.create("analyst", ["read", "sql"])
    _, reader = keys.create("reader", ["read", "plan", "proxy", "admin"])
    settings = {
        "TENSORBANK_FULL_SQL": "true",
        "TENSORBANK_LIMITS__QUERY_S": "2",
        "TENSORBANK_LIMITS__SQL_ROWS": "1000",
    }
    with serving(
        str(bank_folder), "--name", "eo", "--keys", str(keys.path), key=analyst, **settings
    ) as served:
        served.extra["reader"] = reader
        yield served


def ask(served, sql, **more: object):
    return served.post(URL, json={"sql": sql}, **more)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT sample_id, S2L2A.B08.mean AS m, lon FROM terramesh WHERE S2L2A.B08.mean > 1500 ORDER BY m",
        "SELECT season, count(*) AS n, avg(NDVI.mean) AS g FROM terramesh GROUP BY season ORDER BY season",
        "SELECT t.sample_id, count(*) AS n FROM terramesh t JOIN terramesh.tiles USING (sample_id) GROUP BY ALL ORDER BY 1",
        "WITH s AS (SELECT shard, n_samples FROM terramesh.shards) SELECT sum(n_samples) AS n FROM s",
    ],
)
def test_answers_are_those_of_the_library(with_sql, bank, sql):
    answer = ask(with_sql, sql)
    assert answer.status_code == 200, answer.text
    assert answer.json()["rows"] == bank.sql(sql).arrow().to_pylist()
    assert answer.json()["snapshots"] == {"terramesh": 1}
    arrow = ask(with_sql, sql, headers={"Accept": "application/vnd.apache.arrow.stream"})
    assert pa.ipc.open_stream(arrow.content).read_all().to_pylist() == answer.json()["rows"]


def test_rows_are_capped_and_versions_pinned(with_sql):
    assert ask(with_sql, "SELECT range AS i FROM range(5000)").json()["truncated"]
    assert len(ask(with_sql, "SELECT range AS i FROM range(5000)").json()["rows"]) == 1000
    old = with_sql.post(
        URL, json={"sql": "SELECT count(*) AS n FROM terramesh", "snapshots": {"terramesh": 0}}
    )
    check_problem(old, 400, "sql")
    check_problem(
        with_sql.post(URL, json={"sql": "SELECT 1 FROM terramesh", "snapshots": {"terramesh": 9}}),
        404,
        "unknown-snapshot",
    )


def test_columns_of_one_name_are_not_lost_in_json(with_sql):
    sql = "SELECT 1 AS a, 2 AS a, 3 AS b"
    check_problem(ask(with_sql, sql), 400, "sql")
    arrow = ask(with_sql, sql, headers={"Accept": "application/vnd.apache.arrow.stream"})
    assert [column.to_pylist() for column in pa.ipc.open_stream(arrow.content).read_all()] == [[1], [2], [3]]


def test_only_those_with_the_scope(with_sql, service):
    answer = httpx.post(
        with_sql.url + URL,
        json={"sql": "SELECT 1"},
        headers={"Authorization": f"Bearer {with_sql.extra['reader']}"},
    )
    check_problem(answer, 403, "scope")
    check_problem(service.post(URL, json={"sql": "SELECT 1"}), 403, "scope")


ESCAPES = [
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_csv('/etc/passwd', header = false, columns = {'a': 'VARCHAR'})",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM glob('/*')",
    "SELECT * FROM query('SELECT * FROM read_text(''/etc/passwd'')')",
    "SELECT * FROM sniff_csv('/etc/passwd')",
    "SELECT getenv('HOME')",
    "COPY (SELECT 1) TO '/tmp/tensorbank-escape.csv'",
    "COPY terramesh TO '/dev/stdout'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "ATTACH '/tmp/x.db' AS x",
    "SET enable_external_access = true",
    "PRAGMA database_list; SELECT 1",
    "CREATE TABLE t AS SELECT 1",
    "DROP VIEW terramesh",
    "SELECT 1; SELECT 2",
    "EXPORT DATABASE '/tmp/x'",
    "CALL pragma_version()",
    "SELECT * FROM read_parquet('http://127.0.0.1:1/x')",
    "",
    "-- nothing",
    "SELECT " + "(" * 3_000 + "1" + ")" * 3_000,
    "SELECT CAST('secret' AS INTEGER)",
]


@pytest.mark.parametrize("sql", ESCAPES, ids=range(len(ESCAPES)))
def test_nothing_else_is_reached(with_sql, sql, bank_folder):
    answer = ask(with_sql, sql)
    assert answer.status_code == 400, answer.text
    check_problem(answer, 400, "sql")
    for word in (str(bank_folder), "root:", "secret", "/root"):
        assert word not in answer.text


@pytest.mark.parametrize("what", ["duckdb_views()", "duckdb_databases()", "duckdb_secrets()"])
def test_what_duckdb_tells_of_itself_has_no_path(with_sql, what, bank_folder):
    answer = ask(with_sql, f"SELECT * FROM {what} -- terramesh")
    assert answer.status_code == 200, answer.text
    for word in (bank_folder.name + "/", "/index/", "parquet/", "/root", "AWS"):
        assert word not in answer.text


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM range(1000000000000) a, range(1000000) b",
        "WITH RECURSIVE r AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM r) SELECT count(*) FROM r",
        "SELECT sum(length(repeat('x', 1000000000) || range::VARCHAR)) FROM range(100)",
        "SELECT list(range) FROM range(10000000000)",
        "SELECT repeat('x', 100000000) FROM range(100)",
    ],
)
def test_bombs_end_in_bounded_time_and_others_are_served(with_sql, sql):
    answer = ask(with_sql, sql)
    assert answer.status_code in (400, 504), answer.text
    assert answer.elapsed.total_seconds() < 15
    assert ask(with_sql, "SELECT 7 AS x").json()["rows"] == [{"x": 7}]
    assert with_sql.get("/v1/banks").status_code == 200


def test_the_fence_is_the_kernels(tmp_path):
    """Whatever code runs behind it: no file but those granted, no new file, no connection."""
    if not abi_version():
        unavailable("the kernel has no Landlock")
    (tmp_path / "granted").write_text("yes")
    (tmp_path / "other").write_text("no")
    code = f"""
        import socket, sys
        from tensorbank_server.workers.landlock import restrict, abi_version
        listening = socket.create_server(("127.0.0.1", 0))
        assert restrict([{str(tmp_path / "granted")!r}]) == abi_version()
        assert open({str(tmp_path / "granted")!r}).read() == "yes"
        refused = 0
        for path, mode in (({str(tmp_path / "other")!r}, "r"), ("/etc/passwd", "r"), ({str(tmp_path / "granted")!r}, "w"),
                           ({str(tmp_path / "new")!r}, "w")):
            try:
                open(path, mode)
            except PermissionError:
                refused += 1
        try:
            socket.create_connection(listening.getsockname())
        except PermissionError:
            refused += 1
        assert refused == 4 + (abi_version() >= 4), refused
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
