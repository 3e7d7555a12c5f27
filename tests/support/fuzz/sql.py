"""Random statements: a bank whose index is pruned answers as DuckDB does over all of its rows."""

from __future__ import annotations

import tempfile
from pathlib import Path

from support.differential.bed import make_bed
from support.differential.check import compare
from support.differential.grammar import statement
from support.fuzz.cases import Cases


def fuzz(cases: Cases) -> None:
    """Compare statement by statement."""
    with tempfile.TemporaryDirectory(prefix="fuzz-sql-") as folder, make_bed(Path(folder) / "bank") as bed:
        for number in cases:
            asked = statement(bed, number)
            cases.count("statements")
            outcome = compare(bed, asked)
            cases.count("refused by DuckDB", outcome.refused)
            cases.count("pruned", outcome.pruned)
            cases.count("with rows", outcome.n_rows > 0)
            if outcome.wrong is not None:
                cases.finding(f"{outcome.wrong}\n    {asked.ours}")
