"""The guide to SQL says what is true: its examples run, it names every column and function, and what it calls refused is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import tensorbank as tb
from support.guides import read_blocks, run_guide
from tensorbank.index_schema import samples_schema, shards_schema, tiles_schema
from tensorbank.schema import Band, Modality, TableSchema
from tensorbank.sql import OWN

GUIDE = Path(__file__).parents[2] / "tensorbank" / "README.md"
PAGE = GUIDE.read_text()
SCHEMAS = {"samples": samples_schema, "tiles": tiles_schema, "shards": shards_schema}
ONLY_ROWS = ("DESCRIBE", "SHOW", "PIVOT", "SUMMARIZE")
"""The first words of statements that answer with rows and have no plan."""


def section(mark: str) -> str:
    found = re.search(rf"<!-- {mark} -->\n(.*?)<!-- /", PAGE, re.DOTALL)
    assert found is not None, mark
    return found[1]


def cells(mark: str) -> list[list[str]]:
    """Return the rows of a table of the guide, without its head, as lists of cells."""
    rows = [line.strip("|").split(" | ") for line in section(mark).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


@pytest.fixture(scope="module")
def bank(demo_bank) -> tb.Bank:
    return tb.open(demo_bank)


DEMO = "tensorbank demo --bank demo-bank --samples 64"


def test_the_examples_run_as_printed(demo_bank, tmp_path):
    (tmp_path / "demo-bank").symlink_to(demo_bank)  # made once, by the same command
    outputs = run_guide(GUIDE, tmp_path, replace={DEMO: "true"})
    printed = "".join(outputs.values())
    assert len(outputs) == sum(block.is_run for block in read_blocks(GUIDE)) > 8
    assert re.search(r"^samples +64 +\d+ +\d+$", printed, re.MULTILINE)
    assert "FROM terramesh WHERE (cloud_cover < 0.5)" in printed


STATEMENTS = [block.code for block in read_blocks(GUIDE, "sql")]


@pytest.mark.parametrize("sql", STATEMENTS, ids=range(len(STATEMENTS)))
def test_the_statements_are_answered(bank, sql):
    assert bank.sql(sql).arrow().num_rows > 0
    if not sql.startswith(ONLY_ROWS):
        plan = bank.sql(sql).plan()
        assert len(plan) > 0
        assert plan.handles or "count(*) AS n" in sql


@pytest.mark.parametrize("level", SCHEMAS)
def test_every_column_has_a_row(level):
    modality = Modality("several", "int16", (Band("a"), Band("b")), 1, 8, 8)
    schema = SCHEMAS[level](TableSchema((modality,)))
    told = [name for row in cells(f"columns: {level}") for name in re.findall(r"`(\w+)`", row[0])]
    assert sorted(told) == sorted(set(schema.names) - {"several"})


def test_every_function_has_a_row_and_no_other_has():
    told = [re.match(r"`(\w+)\(", row[0])[1] for row in cells("functions")]
    assert len(told) == len(set(told))
    assert set(told) == OWN


REFUSED = [(row[0].strip("`"), row[1].strip("`"), row[2]) for row in cells("refused")]


@pytest.mark.parametrize(("sql", "kind", "instead"), REFUSED, ids=[sql for sql, *_ in REFUSED])
def test_what_is_refused_is_refused_for_the_reason_given(bank, sql, kind, instead):
    with pytest.raises((tb.InvalidInputError, tb.NotFoundError)) as refused:
        bank.sql(sql).plan()
    assert refused.value.kind == kind
    if "which the error names" in instead:
        assert re.match(r"`(\w+)`", instead)[1] in str(refused.value)


def test_conditions_of_the_table_are_conditions(bank):
    rows = re.search(r"\| \| prunes \| \|\n\|---\|---\|---\|\n(.*?)\n\n", PAGE, re.DOTALL)[1].splitlines()
    told = [re.findall(r"`([^`]+)`", row.split(" | ")[0]) for row in rows]
    conditions = [
        c for row in told for c in row if c not in ("a AND b", "a OR b", "NOT a", "HAVING", "QUALIFY")
    ]
    assert len(conditions) > 12
    for condition in conditions:
        bank.sql(f"SELECT sample_id FROM terramesh WHERE {condition}").plan()


def test_every_class_of_errors_is_in_the_guide():
    classes = {n for n in tb.__all__ if n.endswith("Error")}
    assert len(classes) == 7
    assert all(f"`{name}`" in PAGE for name in classes)
