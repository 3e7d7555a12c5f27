"""Chance, clocks, the session, files and variables may not decide a plan. Every refusal by its kind."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pytest

import tensorbank as tb
from support.handmade_index import make_table
from tensorbank import InvalidInputError
from tensorbank.addressing.table_digest import table_digest
from tensorbank.sql.known_functions import (
    EXACT_AGGREGATES,
    KEYWORDS,
    ORDERED_AGGREGATES,
    SCALARS,
    SUMS,
    TABLE_FUNCTIONS,
    WINDOWS,
)

PLANNED = SCALARS | EXACT_AGGREGATES | SUMS | ORDERED_AGGREGATES | WINDOWS | TABLE_FUNCTIONS


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    """Table ``t`` of 2 parts of 12."""
    bank = tb.create(tmp_path_factory.mktemp("bank"))
    make_table(bank, "t", parts=2, n=12, prefix="p")
    return bank


@pytest.fixture(autouse=True)
def folder_of_decoys(tmp_path, monkeypatch):
    """A working directory whose files are named as tables are."""
    for name in ("t", "pick", "pick.csv", "t.csv"):
        pa.csv.write_csv(pa.table({"sample_id": pa.array(["p0-0001"])}), tmp_path / name)
    pa.parquet.write_table(pa.table({"sample_id": pa.array(["p0-0001"])}), tmp_path / "pick.parquet")
    monkeypatch.chdir(tmp_path)


def kind_of(ask) -> str:
    with pytest.raises(InvalidInputError) as caught:
        ask()
    assert "\n" not in str(caught.value)
    return caught.value.kind


def stability() -> list[tuple[str, str, str]]:
    rows = duckdb.connect().sql("SELECT function_name, function_type, stability FROM duckdb_functions()")
    return [(n.lower(), k, s) for n, k, s in rows.fetchall()]


def test_nothing_that_duckdb_itself_calls_unstable_is_planned():
    found = stability()
    unstable = {n for n, k, s in found if k == "scalar" and s != "CONSISTENT"}
    assert len(unstable) > 20
    assert not unstable & PLANNED
    tables = {n for n, k, _ in found if k.startswith("table")}
    assert len(tables) > 80
    assert tables & PLANNED - {"histogram"} == TABLE_FUNCTIONS & tables, "histogram is an aggregate, too"


def test_every_name_of_the_catalogue_is_one_of_duckdbs():
    assert {n for n, _, _ in stability()} >= PLANNED - {"first", "last"}


def test_every_function_of_duckdb_is_planned_or_refused(bank):
    unlisted = sorted({n for n, k, _ in stability() if k in ("scalar", "macro", "aggregate")} - PLANNED)
    unlisted = [n for n in unlisted if n.replace("_", "").isalnum()]
    assert len(unlisted) > 100
    for name in unlisted[:: len(unlisted) // 60]:
        sql = f'SELECT S2L2A FROM t WHERE "{name}"(lon) IS NOT NULL'
        assert kind_of(bank.sql(sql).plan) == "not-repeatable", name


@pytest.mark.parametrize("name", sorted(KEYWORDS))
def test_a_function_without_parentheses_is_refused(bank, name):
    sql = f"SELECT S2L2A FROM t WHERE {name}::VARCHAR <> ''"
    assert kind_of(bank.sql(sql).plan) == "not-repeatable"
    assert bank.sql(sql).arrow().num_rows, "looking may"


def test_no_other_word_is_a_function_without_parentheses():
    con = duckdb.connect()
    words = set()
    for name in sorted({n for n, _, _ in stability() if n.replace("_", "").isalnum()}):
        try:
            con.sql(f"SELECT {name}").fetchall()
        except duckdb.Error:
            continue
        words.add(name)
    assert words <= KEYWORDS
    assert len(words) >= 6


@pytest.mark.parametrize(
    "condition",
    [
        "random() < 0.5",
        "uuid()::VARCHAR > 'a'",
        "S2_time < now()",
        "S2_time < get_current_timestamp()",
        "age(S2_time) < INTERVAL 3 YEARS",
        "ago(INTERVAL 3 YEARS) < S2_time",
        "S2_time::DATE < today()",
        "current_localtimestamp() IS NOT NULL",
        "current_setting('threads')::INT > 1",
        "getvariable('x') IS NULL",
        "version() = 'v1'",
        "current_schema() = 'main'",
        "txid_current() > 0",
        "pg_postmaster_start_time() < S2_time",
        "len(current_schemas(true)) > 0",
        "(SELECT max(random()) FROM t) > 0",
        "list_transform([1], lambda x: random())[1] > 0",
        "NOW() > S2_time",
        '"now"() > S2_time',
        "main.random() > 0",
    ],
)
def test_chance_clocks_and_the_session_do_not_decide_a_plan(bank, condition):
    assert kind_of(bank.sql(f"SELECT S2L2A FROM t WHERE {condition}").plan) == "not-repeatable"


@pytest.mark.parametrize("word", ["now", "today", "tomorrow", "yesterday"])
def test_no_text_means_a_time_that_passes(word):
    """They are times in other databases; a version of DuckDB that takes them needs them refused here."""
    for kind in ("DATE", "TIMESTAMP", "TIMESTAMPTZ", "TIME"):
        with pytest.raises(duckdb.ConversionException):
            duckdb.connect().sql(f"SELECT '{word}'::{kind}").fetchall()


@pytest.mark.parametrize(
    "sql",
    [
        "COPY t TO 'out.csv'",
        "COPY (SELECT 1) TO 'out.csv'",
        "ATTACH 'other.db'",
        "SET threads = 1",
        "PRAGMA version",
        "CALL pragma_version()",
        "INSTALL httpfs",
        "LOAD httpfs",
        "EXPLAIN SELECT 1",
        "CREATE TABLE x AS SELECT 1",
        "EXECUTE x",
        "SELECT S2L2A FROM t; SELECT 1",
        "",
    ],
)
def test_a_query_is_one_select_statement(bank, sql):
    assert kind_of(bank.sql(sql).plan) == kind_of(bank.sql(sql).arrow) == "sql"
    assert not Path("out.csv").exists()


def test_age_of_two_arguments_needs_no_clock(bank):
    sql = "SELECT S2L2A FROM t WHERE age(TIMESTAMP '2020-01-02', TIMESTAMP '2020-01-01') = INTERVAL 1 DAY"
    assert len(bank.sql(sql).plan())


@pytest.mark.parametrize(
    "relation",
    [
        "'pick.csv'",
        '"pick.csv"',
        "'pick.parquet'",
        "'./pick'",
        "'*.csv'",
        "'https://example.org/pick.csv'",
        "'s3://bucket/pick.parquet'",
        '"main"."pick.csv"',
        "read_csv('pick.csv')",
        "READ_CSV_AUTO('pick.csv')",
        "read_parquet('pick.parquet')",
        "parquet_scan(['pick.parquet'])",
        "read_json('pick.csv')",
        "read_text('pick.csv')",
        "read_blob('*')",
        "glob('*')",
        "sniff_csv('pick.csv')",
        "parquet_metadata('pick.parquet')",
        "query('SELECT 1 AS sample_id')",
        "query_table('t')",
        "duckdb_settings()",
        "duckdb_functions()",
        "duckdb_views()",
        "pragma_version()",
        "pg_timezone_names()",
        "json_execute_serialized_sql('{}')",
        "test_all_types()",
        "seq_scan('t')",
        "(SELECT * FROM 'pick.csv')",
        "(WITH pick AS (SELECT 1) SELECT * FROM read_csv('pick.csv'))",
    ],
)
@pytest.mark.parametrize(
    "sql", ["SELECT S2L2A FROM t, {} AS p", "SELECT t.* FROM t WHERE EXISTS (FROM {} AS p)"]
)
def test_rows_from_outside_of_the_bank_are_refused(bank, relation, sql):
    query = bank.sql(sql.format(relation))
    assert kind_of(query.plan) == "outside-bank"
    assert kind_of(query.arrow) == "outside-bank"


def test_every_table_function_of_duckdb_is_refused_but_few(bank):
    names = sorted({n for n, k, _ in stability() if k.startswith("table")} - TABLE_FUNCTIONS)
    assert len(names) > 50
    for name in names:
        assert kind_of(bank.sql(f"SELECT * FROM t, {name}()").arrow) == "outside-bank", name


@pytest.mark.parametrize(
    "name",
    [
        "pick",
        "information_schema.tables",
        "system.information_schema.tables",
        "pg_catalog.pg_class",
        "duckdb_tables",
        "sqlite_master",
        "t.nothing",
        "memory.main.t",
        "nowhere.t",
        "t_samples_without_rows",
    ],
)
def test_names_that_are_no_tables_are_said_to_be_none(bank, name):
    pick = pa.table({"sample_id": ["p0-0001"]})  # noqa: F841 - a variable that DuckDB would find
    query = bank.sql(f"SELECT S2L2A FROM t, {name} AS p")
    assert kind_of(query.plan) == "unknown-table"
    assert kind_of(query.arrow) == "unknown-table"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT S2L2A FROM t, (WITH pick AS (SELECT 1 AS x) SELECT * FROM pick) AS a, pick",
        "WITH a AS (SELECT * FROM pick), pick AS (SELECT 1 AS x) SELECT S2L2A FROM t, a",
        "WITH pick AS (SELECT * FROM pick) SELECT S2L2A FROM t, pick",
    ],
)
def test_a_common_table_is_known_only_where_it_is_visible(bank, sql):
    assert kind_of(bank.sql(sql).plan) == "unknown-table"


@pytest.mark.parametrize(
    "sql",
    [
        "WITH a AS (SELECT 1 AS x), b AS (SELECT * FROM a) SELECT S2L2A FROM t, b WHERE EXISTS (FROM a)",
        "WITH RECURSIVE r AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM r WHERE x < 3) SELECT S2L2A FROM t, r",
        "WITH t AS (SELECT * FROM t WHERE lon > -180) SELECT S2L2A FROM t",
        "SELECT t.S2L2A FROM MAIN.T, T.Samples AS s WHERE s.sample_id = t.sample_id",
        "SELECT S2L2A FROM t, range(3), unnest([1, 2]) AS u(x)",
        "SELECT S2L2A FROM t, (VALUES (1), (2)) AS v(x)",
        "SELECT S2L2A FROM t WHERE sample_id IN (SELECT sample_id FROM t.tiles)",
    ],
)
def test_what_a_statement_makes_itself_is_known(bank, sql):
    assert len(bank.sql(sql).plan()) > 0


def test_registered_tables_are_known_and_decide_the_fingerprint(bank):
    at = bank.at({})
    prints = set()
    for ids in (["p0-0001"], ["p0-0002"]):
        at.register("pick", pa.table({"sample_id": pa.array(ids)}))
        plan = at.sql("SELECT sample_id, S2L2A FROM t JOIN Pick USING (sample_id)").plan()
        assert plan.table["sample_id"].to_pylist() == ids
        prints.add(plan.fingerprint)
    assert len(prints) == 2


def test_the_digest_of_a_table_is_of_its_values_alone():
    times = pa.array([0, None, 5], pa.timestamp("us", "UTC"))
    table = pa.table(
        {
            "text": pa.array(["a", None, "ccc"]),
            "number": pa.array([1.5, None, 2.0]),
            "flag": pa.array([True, None, False]),
            "time": times,
            "list": pa.array([[1, 2], None, []], pa.list_(pa.int16())),
            "fixed": pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int64(), 2)),
            "struct": pa.array([{"x": 1}, None, {"x": None}], pa.struct([("x", pa.int32())])),
            "key": pa.array(["k1", None, "k2"]).dictionary_encode(),
            "price": pa.array([None, 1, 2], pa.int32()).cast(pa.decimal128(12, 2)),
            "none": pa.nulls(3),
        }
    )
    digest = table_digest(table)
    split = pa.concat_tables([table.slice(0, 1), table.slice(1, 2)])
    assert split["text"].num_chunks == 2
    padded = pa.concat_tables([table.slice(2), table, table.slice(0, 1)]).combine_chunks().slice(1, 3)
    assert table_digest(split) == table_digest(padded) == digest
    other_dictionary = pa.DictionaryArray.from_arrays(pa.array([2, None, 0], pa.int32()), ["k2", "?", "k1"])
    assert table_digest(table.set_column(7, "key", other_dictionary)) == digest
    below = pa.StringArray.from_buffers(
        3,
        pa.array([0, 1, 3, 6], pa.int32()).buffers()[1],
        pa.py_buffer(b"aXXccc"),
        table["text"].chunk(0).buffers()[0],
    )
    assert table_digest(table.set_column(0, "text", below)) == digest, "what lies below a null"
    for name in table.column_names[:-1]:
        place = table.schema.get_field_index(name)
        moved = table[name].take([2, 1, 0])
        assert table_digest(table.set_column(place, name, moved)) != digest, name
        without = pa.concat_tables(
            [table.select([name]).slice(0, 1), pa.table({name: pa.nulls(2, moved.type)})]
        )
        assert table_digest(table.set_column(place, name, without[name])) != digest, name
    assert table_digest(table.rename_columns(["TEXT", *table.column_names[1:]])) != digest
    assert table_digest(table.slice(0, 2)) != digest


@pytest.mark.parametrize("name", ["pick.csv", "pick.parquet"])
def test_a_file_is_registered_as_it_is_now(bank, name):
    at = bank.at({})
    at.register("pick", name)
    sql = "SELECT t.sample_id, S2L2A FROM t JOIN pick USING (sample_id)"
    plan = at.sql(sql).plan()
    assert plan.table["sample_id"].to_pylist() == ["p0-0001"]
    Path(name).write_text("sample_id\np0-0002\n")
    assert at.sql(sql).plan().fingerprint == plan.fingerprint, "what was registered stays"
    if name.endswith("csv"):
        at.register("PICK", name)
        assert at.sql(sql).plan().table["sample_id"].to_pylist() == ["p0-0002"]
    else:
        assert kind_of(lambda: at.register("pick", name)) == "unreadable-file"
        assert at.sql(sql).plan().fingerprint == plan.fingerprint


@pytest.mark.parametrize(
    "data",
    [
        pd.DataFrame({"a": [object()]}),
        pd.DataFrame([[1, 2]], columns=["a", "a"]),
        pd.DataFrame({"a": [1, "text"]}),
        pa.table({"a": [1], "A": [2]}),
        pa.table([[1], [2]], names=["b", "b"]),
        {"a": [1]},
    ],
    ids=["objects", "one name twice", "two types", "capitals", "one name twice in Arrow", "a dict"],
)
def test_data_that_are_no_table_are_not_registered(bank, data):
    with pytest.raises(InvalidInputError):
        bank.register("mine", data)


def test_a_registered_table_is_known_by_its_schema_too(bank):
    at = bank.at({})
    at.register("pick", pa.table({"sample_id": pa.array(["p0-0001"])}))
    assert len(at.sql("SELECT t.sample_id, S2L2A FROM t JOIN main.Pick AS p USING (sample_id)").plan()) == 1
