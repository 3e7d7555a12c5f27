"""Statements as values: parsed without a bank, bound without being executed, executed as often as one likes."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import duckdb
import pytest

import tensorbank as tb
from support.handmade_index import make_table
from tensorbank import InvalidInputError
from tensorbank.planning.binding import Bound, Namespace, bind
from tensorbank.planning.execution import executing
from tensorbank.planning.logs_ahead import LogsAhead
from tensorbank.planning.statement import parse
from tensorbank.sql import Parser, database

SQL = "SELECT S2L2A, sample_id FROM a WHERE cloud_cover < 0.5 AND sample_id IN ({}) ORDER BY lon LIMIT 9"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    bank = tb.create(tmp_path_factory.mktemp("bound"))
    return bank, make_table(bank, "a", parts=2, n=30)


def bound(bank: tb.Bank, sql: str, *, is_plan: bool = True) -> Bound:
    with database() as db:
        parser = Parser(db.con)
        statement = parse(sql, parser)
        namespace = Namespace(bank.catalog, {}, {})
        with LogsAhead(bank.catalog) as ahead:
            return bind(
                statement, namespace, parser, db.has_function, ahead, levels=["shards"], is_plan=is_plan
            )


def test_a_statement_needs_no_bank():
    with duckdb.connect() as con:
        statement = parse("  SELECT x FROM nowhere ORDER BY x ; -- the end", Parser(con))
        again = parse("select x\nfrom nowhere order by x", Parser(con))
        assert (statement.text, statement.is_ordered) == ("SELECT x FROM nowhere ORDER BY x", True)
        assert (statement.describes, statement.has_open_pivot) == (False, False)
        assert statement.canonical == again.canonical
        assert parse("DESCRIBE nowhere", Parser(con)).describes
        assert parse("PIVOT nowhere ON x USING count(*)", Parser(con)).has_open_pivot
    with pytest.raises(FrozenInstanceError):
        statement.text = "SELECT 2"


def test_binding_opens_no_index_file(made, monkeypatch):
    bank, _ = made
    monkeypatch.setattr(bank.catalog.mirror, "readable", lambda files: pytest.fail(f"{files} are opened"))
    found = bound(bank, "SELECT NDVI FROM a WHERE pixels_any(NDVI, '> 3') AND first(lon) OVER () > 0")
    assert [table.name for table in found.tables] == ["a"]
    assert (found.plain.n_pixel_predicates, found.plain.one_thread) == (1, True)
    assert found.plain.functions == {"pixels_any"}
    with pytest.raises(InvalidInputError, match="there is no table"):
        bound(bank, "SELECT 1 AS x FROM nowhere")


def test_one_bound_statement_is_executed_twice_with_one_answer(made):
    bank, table = made
    ids = sorted(table.by_id())
    listed = ", ".join(f"'{i}'" for i in [*ids, *(f"none{k}" for k in range(200))])
    statement = bound(bank, SQL.format(listed))
    assert statement.listed is not None
    answers = []
    for _ in range(2):
        with database() as db, executing(statement, db, bank.catalog) as execution:
            answers.append(execution.answer())
    clear = [r for r in table.samples if r["cloud_cover"] is not None and r["cloud_cover"] < 0.5]
    right = [r["sample_id"] for r in sorted(clear, key=lambda r: (r["lon"], r["sample_id"]))[:9]]
    assert len(right) == 9
    for answer in answers:
        assert answer.table["sample_id"].to_pylist() == right
        assert [c.name for c in answer.columns] == ["S2L2A"]
        assert answer.columns[0].keys.equals(answers[0].columns[0].keys)
