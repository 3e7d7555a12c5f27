"""Lists of many constants: the same rows as short ones give, in a time that grows with their length alone."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import tensorbank as tb
from support.tied_index import make_tied_table
from tensorbank.pruning.conditions import AnyOf, Compare, may_match
from tensorbank.sql import Parser, database
from tensorbank.statements import shorten


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    bank = tb.create(tmp_path_factory.mktemp("lists"))
    make_tied_table(bank, "tied", parts=2, n=4000)
    return bank


@pytest.fixture(scope="module")
def rows(bank):
    return bank.sql("SELECT sample_id, lon, lat, hilbert, S2_time FROM tied").arrow().to_pylist()


def listed(values) -> str:
    return ", ".join(f"'{v}'" if isinstance(v, str) else str(v) for v in values)


def planned(bank, condition: str) -> list[str]:
    return sorted(
        bank.sql(f"SELECT sample_id, NDVI FROM tied WHERE {condition}").plan().table["sample_id"].to_pylist()
    )


def test_texts_and_numbers_in_a_long_list(bank, rows):
    ids = [r["sample_id"] for r in rows[::3]]
    assert planned(bank, f"sample_id IN ({listed(ids)})") == sorted(ids)
    others = sorted({r["sample_id"] for r in rows} - set(ids))
    assert planned(bank, f"sample_id NOT IN ({listed(ids)})") == others
    right = sorted(r["sample_id"] for r in rows if r["sample_id"] in set(ids) or r["lat"] > 80)
    assert planned(bank, f"sample_id IN ({listed(ids)}) OR lat > 80") == right
    lons = range(-180, 0)
    right = sorted(r["sample_id"] for r in rows if r["lon"] < 0)
    assert planned(bank, f"lon IN ({listed(lons)})") == right
    assert 0 < len(right) < len(rows)


@pytest.mark.parametrize(
    "column", ["sample_id", "concat('s', substr(sample_id, 2))", "(SELECT sample_id FROM range(1))"]
)
def test_a_long_list_wherever_it_stands(bank, rows, column):
    ids = [r["sample_id"] for r in rows[:300]]
    condition = f"{column} IN ({listed(ids)})"
    for form in ("{}", "NOT NOT ({})", "CASE WHEN {} THEN 1 ELSE 0 END = 1", "list_contains([{}], true)"):
        assert planned(bank, form.format(condition)) == sorted(ids)


def test_null_is_in_no_long_list_and_not_out_of_it(bank):
    many = listed([f"x{i}" for i in range(200)])
    assert planned(bank, f"stem IN ({many})") == planned(bank, f"stem NOT IN ({many})") == []
    assert planned(bank, f"sample_id NOT IN ({many}, NULL)") == []


def test_a_long_list_of_times_is_compared_as_times(bank, rows):
    days = [datetime(2020, 1, 1, tzinfo=UTC) + timedelta(hours=i) for i in range(500)]
    right = sorted(r["sample_id"] for r in rows if r["S2_time"] in days)
    assert right
    assert planned(bank, f"S2_time IN ({listed(f'{d:%Y-%m-%d %H:%M}' for d in days)})") == right


def test_a_list_of_the_wrong_kind_is_said_to_be_so(bank):
    with pytest.raises(tb.InvalidInputError) as caught:
        planned(bank, f"lon IN ({listed(f'x{i}' for i in range(300))})")
    assert caught.value.kind == "sql"


def test_a_null_in_a_long_list_leaves_open_what_is_not_listed(bank, rows):
    ids = [r["sample_id"] for r in rows[::3]]
    nulls = f"{listed(ids[:7])}, NULL, {listed(ids[7:])}, NULL"
    assert planned(bank, f"sample_id IN ({nulls})") == sorted(ids)
    others = sorted({r["sample_id"] for r in rows} - set(ids))
    assert planned(bank, f"(sample_id NOT IN ({nulls})) IS NULL") == others
    assert planned(bank, f"NOT (sample_id IN ({nulls})) OR sample_id IN ({nulls})") == sorted(ids)
    one = rows[5]
    condition = f"hilbert IN ({listed(range(-300, 0))}, NULL, {one['hilbert']})"
    assert planned(bank, condition) == sorted(r["sample_id"] for r in rows if r["hilbert"] == one["hilbert"])
    assert planned(bank, f"lon IN ({', '.join(['NULL'] * 200)})") == []


def test_a_long_list_with_a_null_rules_out_files_as_one_without(bank, rows):
    ids = listed([f"x{i}" for i in range(200)])
    kept = [
        bank.sql(f"SELECT sample_id, NDVI FROM tied WHERE sample_id IN ({ids}{more})").plan().source.levels[0]
        for more in ("", ", NULL")
    ]
    assert kept[0] == kept[1]
    assert kept[0].kept < kept[0].considered


def shortened(sql: str) -> bool:
    with database() as db:
        parser = Parser(db.con)
        tree = parser.tree(sql)
        return shorten(tree, parser.node) is not tree


def test_which_lists_are_shortened():
    many = listed(f"x{i}" for i in range(200))
    assert shortened(f"SELECT 1 FROM t WHERE a IN ({many})")
    assert shortened(f"SELECT 1 FROM t WHERE a NOT IN ({many}, NULL)")
    assert shortened(f"SELECT 1 FROM t WHERE a IN (NULL, {listed(range(200))})")
    assert not shortened(f"SELECT 1 FROM t WHERE a IN ({many}, 1)")
    assert not shortened(f"SELECT 1 FROM t WHERE a IN ({many}, upper('x'))")
    assert not shortened(f"SELECT 1 FROM t WHERE a IN ({', '.join(['NULL'] * 200)})")
    assert not shortened("SELECT 1 FROM t WHERE a IN ('x', 'y')")


def either(column: str, values) -> str:
    """Return OR of comparisons, with the constant on either side."""
    sides = [(column, v) if i % 2 else (v, column) for i, v in enumerate(listed([v]) for v in values)]
    return " OR ".join(f"{left} = {right}" for left, right in sides)


def test_many_comparisons_by_or_are_a_long_list(bank, rows):
    ids = [r["sample_id"] for r in rows[::3]][:700]
    assert planned(bank, either("sample_id", ids)) == sorted(ids)
    right = sorted(r["sample_id"] for r in rows if r["sample_id"] in set(ids) or r["lat"] > 80)
    assert planned(bank, f"{either('sample_id', ids)} OR lat > 80") == right
    others = sorted({r["sample_id"] for r in rows} - set(ids))
    assert planned(bank, f"NOT ({either('sample_id', ids)})") == others
    numbers = sorted({r["hilbert"] for r in rows})[:150]
    both = {r["sample_id"] for r in rows if r["hilbert"] in numbers or r["sample_id"] in set(ids)}
    mixed = f"{either('hilbert', numbers)} OR {either('sample_id', ids)}"
    assert planned(bank, mixed) == sorted(both)
    assert len(ids) < len(both)
    few = f"({mixed}) AND lat > 0 AND ({either('tied.sample_id', ids)})"
    north = {r["sample_id"] for r in rows if r["lat"] > 0}
    assert planned(bank, few) == sorted(north & set(ids))


def test_which_comparisons_by_or_are_shortened():
    many = either("a", [f"x{i}" for i in range(200)])
    assert shortened(f"SELECT 1 FROM t WHERE {many}")
    assert shortened(f"SELECT {many} AS found FROM t")
    assert not shortened(f"SELECT 1 FROM t WHERE {many.replace('OR', 'AND')}")
    assert not shortened(f"SELECT 1 FROM t WHERE {many.replace('=', '<')}")
    assert not shortened(f"SELECT 1 FROM t WHERE {many} OR a = 1")
    assert not shortened(f"SELECT 1 FROM t WHERE {either('a', range(60))} OR {either('b', range(60))}")
    assert not shortened("SELECT 1 FROM t WHERE " + " OR ".join(f"a = c{i}" for i in range(200)))


def test_two_thousand_comparisons_take_no_minute(bank, rows):
    ids = [f"s9-{i:06d}" for i in range(2000)] + [rows[0]["sample_id"]]
    start = time.process_time()
    assert planned(bank, either("sample_id", ids)) == [rows[0]["sample_id"]]
    assert time.process_time() - start < 10


@pytest.mark.parametrize("negated", ["", "NOT "])
def test_twenty_thousand_constants_take_no_minute(bank, rows, negated):
    ids = [f"s9-{i:06d}" for i in range(20_000)] + [rows[0]["sample_id"]]
    start = time.process_time()  # whatever else the machine does
    found = planned(bank, f"sample_id {negated}IN ({listed(ids)})")
    assert len(found) == (len(rows) - 1 if negated else 1)
    assert time.process_time() - start < 20


@pytest.mark.parametrize("kind", ["text", "int", "float", "time"])
def test_a_list_leaves_exactly_the_blocks_that_hold_a_constant(kind):
    rng = np.random.default_rng(4)
    numbers = np.sort(rng.choice(10_000, 500, replace=False)) * 3
    starts = rng.integers(0, 30_000, 300)
    sizes = rng.integers(0, 40, 300)
    make = {
        "text": lambda n: f"{n:06d}",
        "int": int,
        "float": float,
        "time": lambda n: datetime(2020, 1, 1, tzinfo=UTC) + timedelta(minutes=int(n)),
    }[kind]
    low, high = pa.array(list(map(make, starts))), pa.array(list(map(make, starts + sizes)))
    values = [make(n) for n in rng.permutation(numbers)]
    listed = [v.isoformat() for v in values] if kind == "time" else values
    condition = AnyOf(tuple(Compare(("x",), "=", v) for v in listed))
    kept = may_match(condition, lambda _: (low, high), 300)
    holds = np.array(
        [((numbers >= a) & (numbers <= a + n)).any() for a, n in zip(starts, sizes, strict=True)]
    )
    assert (kept == holds).all()
    assert 0 < holds.sum() < 300
    unknown = np.arange(300) % 7 == 0
    for side in (
        (pc.if_else(pa.array(~unknown), low, None), high),
        (low, pc.if_else(pa.array(~unknown), high, None)),
    ):
        kept = may_match(condition, lambda _, side=side: side, 300)
        assert (kept == (holds | unknown)).all()


@pytest.mark.parametrize("other", ["text", 3, True, 2**63, "2020-01-01"])
@pytest.mark.parametrize(
    "kind", [pa.string(), pa.int32(), pa.float32(), pa.bool_(), pa.timestamp("ms", "UTC")]
)
def test_a_list_is_as_its_constants_one_by_one(kind, other):
    """A constant of another kind than the column says nothing of a block."""
    rows = {
        pa.string(): [("a", "c"), ("t", "u"), ("2020", "2021"), ("x", "z")],
        pa.bool_(): [(False, False), (False, True), (True, True), (False, False)],
    }.get(kind, [(-9, -1), (0, 40), (41, 45), (1_577_836_800_000, 1_577_836_800_001)])
    rows = [(low, high) if kind != pa.float32() else (float(low), float(high)) for low, high in rows]
    sides = [pa.array([row[i] for row in rows], kind if kind != pa.int32() else pa.int64()) for i in (0, 1)]
    values = [other, *([f"b{i}" for i in range(20)] if kind == pa.string() else range(20, 40))]
    parts = [Compare(("x",), "=", value) for value in values]
    one_by_one = np.logical_or.reduce([may_match(part, lambda _: sides, 4) for part in parts])
    assert (may_match(AnyOf(tuple(parts)), lambda _: sides, 4) == one_by_one).all()
