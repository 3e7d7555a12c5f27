"""Any statement gives what plain DuckDB gives over the whole index, though most of the index is not looked at."""

from __future__ import annotations

import random
from collections import Counter
from datetime import date

import pytest

from support.differential.bed import SORTED, Bed
from support.differential.check import compare
from support.differential.examples import KEPT, OLD, PRUNED, filled
from support.differential.grammar import Statement, statement
from tensorbank.planning import views
from tensorbank.sorted_copies import choice

SOME, MANY = 50, 240
"""Numbers of statements, which are small, for they take a sixth of a second of CPU each; ``make fuzz`` asks thousands."""
N_OF_ALL_KINDS = 300
"""The number of statements among which each kind is found on any day."""
FIRST = date.today().toordinal() * 10_000
"""The number of the first statement, another every day; a failure names the number of its own."""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("n", [SOME, pytest.param(MANY, marks=pytest.mark.thorough)])
def test_generated_statements_are_answered_as_by_plain_duckdb(bed, n):
    outcomes, wrong = [], []
    for number in range(FIRST, FIRST + n):
        asked = statement(bed, number)
        outcome = compare(bed, asked)
        outcomes.append(outcome)
        if outcome.wrong is not None:
            wrong.append(f"statement {number}: {outcome.wrong}\n{asked.ours}")
    assert not wrong, "\n\n".join(wrong)
    more = 2 if n == SOME else 1  # few statements may be of one sort on some day
    assert sum(o.pruned for o in outcomes) > n * 0.1 / more
    assert sum(o.n_rows > 0 for o in outcomes) > n * 0.35 / more
    assert sum(o.refused for o in outcomes) < n * 0.1 * more


def few(bed: Bed, rng: random.Random) -> str:
    """Return a condition that few values of a column with a sorted copy satisfy, alone or among others."""
    column = rng.choice(SORTED)
    if column == "sample_id":
        some = rng.sample(bed.texts["samples"][column], rng.randrange(1, 4))
        sure = f"{column} IN ({', '.join(map(repr, some))})"
    else:
        low, *_, high = bed.numbers["samples"][column]
        near = bed.numbers["samples"][column][rng.choice((1, 4, 7))]
        sure = rng.choice(
            (
                f"{column} > {near}",
                f"{column} <= {low}",
                f"{column} BETWEEN {near} AND {high}",
                f"NOT ({column} < {near})",
            )
        )
    other = rng.choice(
        ("season = 'summer'", "lat > 10", "NDVI IS NULL", "cloud_cover IS NOT NULL", "split <> 'val'")
    )
    return rng.choice(
        ("{0}", "{0} AND {1}", "{0} OR ({1} AND {0})", "({0}) IS TRUE", "{0} AND NOT ({1})", "{0} OR {1}")
    ).format(sure, other)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("n", [SOME, pytest.param(MANY, marks=pytest.mark.thorough)])
def test_statements_over_sorted_copies_are_answered_as_by_plain_duckdb(copied_bed, n, monkeypatch):
    n_copies = 0
    show = views.TableViews.show

    def counting(self, table):
        nonlocal n_copies
        n_copies += any("/sorted/" in file.key for file in table.kept["samples"].files)
        return show(self, table)

    monkeypatch.setattr(views.TableViews, "show", counting)
    monkeypatch.setattr(choice, "WORTH", 2)
    rng = random.Random(FIRST)
    texts = [
        f"SELECT sample_id, split, lon, NDVI.mean FROM tm WHERE {few(copied_bed, rng)}" for _ in range(n)
    ]
    asked = [Statement(text, frozenset()) for text in texts]
    asked += [filled(copied_bed, text) for text in (*PRUNED.values(), *KEPT.values())]
    outcomes = [compare(copied_bed, a) for a in asked]
    wrong = [f"{o.wrong}\n{a.ours}" for o, a in zip(outcomes, asked, strict=True) if o.wrong is not None]
    assert not wrong, "\n\n".join(wrong)
    assert n_copies > n / 2
    assert sum(o.n_rows > 0 for o in outcomes) > len(asked) / 2


def test_the_generated_statements_are_of_all_kinds(bed):
    shapes = Counter(s for n in range(FIRST, FIRST + N_OF_ALL_KINDS) for s in statement(bed, n).shape)
    joins = {"LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "SEMI JOIN", "ANTI JOIN", "lateral"}
    assert joins <= set(shapes)
    assert {"not", "odd", "pixels", "set", "qualify", "limit", "not between", "with", "derived"} <= set(
        shapes
    )


@pytest.mark.parametrize("text", OLD.values(), ids=OLD)
def test_nan_in_an_old_bank_is_a_missing_number(old_bed, text):
    outcome = compare(old_bed, filled(old_bed, text))
    assert outcome.wrong is None
    assert outcome.n_rows > 0


def test_statements_over_an_old_bank_are_answered_as_if_nan_were_null(old_bed):
    asked = [statement(old_bed, number) for number in range(FIRST + 5000, FIRST + 5060)]
    outcomes = [compare(old_bed, a) for a in asked]
    wrong = [f"{o.wrong}\n{a.ours}" for o, a in zip(outcomes, asked, strict=True) if o.wrong is not None]
    assert not wrong, "\n\n".join(wrong)
    assert sum(o.n_rows > 0 for o in outcomes) > 20


@pytest.mark.parametrize("text", PRUNED.values(), ids=PRUNED)
def test_what_a_condition_rules_out_is_not_looked_at(bed, text):
    outcome = compare(bed, filled(bed, text))
    assert outcome.wrong is None
    assert outcome.pruned
    assert outcome.n_rows > 0


@pytest.mark.parametrize("text", KEPT.values(), ids=KEPT)
def test_what_decides_elsewhere_is_not_pruned_away(bed, text):
    outcome = compare(bed, filled(bed, text))
    assert outcome.wrong is None
    assert not outcome.refused
    assert outcome.n_rows > 0


def test_nothing_is_pruned_of_what_a_sample_is_drawn_of(bed):
    """The sample is drawn first, so rows that fail the condition decide which others are in it."""
    drawn = "SELECT sample_id FROM tm WHERE lon > 170 USING SAMPLE reservoir(50 ROWS) REPEATABLE (3)"
    levels = {r.level: r for r in bed.bank.sql(drawn).plan().source.levels}
    assert levels["files"].kept == levels["files"].considered > 1
    of_a_table = "SELECT sample_id FROM tm TABLESAMPLE reservoir(50 ROWS) REPEATABLE (3) WHERE lon > 170"
    levels = {r.level: r for r in bed.bank.sql(of_a_table).plan().source.levels}
    assert levels["files"].kept == levels["files"].considered > 1
