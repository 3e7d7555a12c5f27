"""Check that a bank answers a statement as plain DuckDB does over all rows of its index."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from support.differential.bed import Bed
from support.differential.grammar import Statement
from tensorbank import Plan, TensorBankError

__all__ = ["Outcome", "compare"]


@dataclass(frozen=True)
class Outcome:
    """The outcome of one statement.

    ``wrong`` says what differs, None where nothing does; ``refused`` that DuckDB itself refuses the statement; ``pruned`` that
    an index file or a row group was not looked at.
    """

    wrong: str | None = None
    refused: bool = False
    pruned: bool = False
    n_rows: int = 0


def compare(bed: Bed, asked: Statement) -> Outcome:
    """Ask both; the order of rows is left open."""
    try:
        truth = bed.truth.sql(asked.truth).to_arrow_table()
    except duckdb.Error as e:
        if "INTERNAL" in str(e):
            raise
        return Outcome(refused=True)
    expected = _rows(truth)
    try:
        got = _rows(bed.bank.sql(asked.ours).arrow())
    except TensorBankError as e:
        return Outcome(f"arrow() is refused: {e}")
    if difference := _difference(got, expected):
        return Outcome(f"arrow() {difference}", n_rows=truth.num_rows)
    try:
        plan = bed.bank.sql(asked.ours).plan()
    except TensorBankError as e:
        if e.kind in ("not-repeatable", "no-window"):
            return Outcome(n_rows=truth.num_rows)
        return Outcome(f"plan() is refused: {e}", n_rows=truth.num_rows)
    if difference := _difference(_of_plan(plan), _without_windows(truth)):
        return Outcome(f"plan() {difference}", n_rows=truth.num_rows)
    return Outcome(pruned=pruned(plan), n_rows=truth.num_rows)


def pruned(plan: Plan) -> bool:
    """Tell whether the plan was made without a look at some file or row group."""
    return any(r.kept < r.considered for r in plan.source.levels if r.level in ("files", "row groups"))


def _rows(table: pa.Table) -> Counter[str]:
    return Counter(repr([_plain(v) for v in row.values()]) for row in table.to_pylist())


def _plain(value: Any) -> Any:
    """A value without what only says how it is kept."""
    if isinstance(value, dict):
        return {k: v for k, v in value.items() if k in ("key", "offset", "length", "y0", "x0")}
    if hasattr(value, "timestamp"):
        return value.timestamp()
    return 0.0 if isinstance(value, float) and value == 0 else value


def _of_plan(plan: Plan) -> Counter[str]:
    """Return the rows of a plan: its columns, and the addresses of its tensors."""
    names = [h.name for h in plan.handles]
    plain = [c for c in plan.table.column_names if not any(c.startswith(f"{n}.") for n in names)]
    rows = plan.table.select(plain).to_pylist() if plain else [{} for _ in range(len(plan))]
    found: list[list[Any]] = [[_plain(v) for v in row.values()] for row in rows]
    for name in names:
        a = plan.addresses[name]
        for row, key, starts, lengths in zip(found, a.shard_of, a.starts, a.lengths, strict=True):
            there = key >= 0
            row.append(
                {"key": a.shard_keys[key], "offset": int(starts[0]), "length": int(lengths.sum())}
                if there
                else None
            )
    return Counter(map(repr, found))


def _without_windows(truth: pa.Table) -> Counter[str]:
    rows: list[list[Any]] = []
    for row in truth.to_pylist():
        values = [_plain(v) for v in row.values()]
        rows.append(
            [{k: v[k] for k in ("key", "offset", "length")} if isinstance(v, dict) else v for v in values]
        )
    return Counter(map(repr, rows))


def _difference(got: Counter[str], expected: Counter[str]) -> str | None:
    if got == expected:
        return None
    missing, more = expected - got, got - expected
    told = f"has {got.total()} rows, right are {expected.total()}"
    return f"{told}; {missing.total()} missing {list(missing)[:3]}, {more.total()} too many {list(more)[:3]}"
