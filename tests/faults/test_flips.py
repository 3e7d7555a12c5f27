"""Flipped bits, cuts and swapped files give the right answer or an error that names the file: never a wrong answer, and never
the end of the process. ``make test`` does it some times, ``make test-thorough`` more often, ``make fuzz-flips N=10000`` by the
thousand.
"""

from __future__ import annotations

import random

import pytest

from support.flips.damage import damaged
from support.flips.run import PROBLEMS, counted, run_trials
from support.flips.trials import KINDS


@pytest.mark.parametrize(
    ("n", "seed"), [(60, 159), pytest.param(300, 15, marks=pytest.mark.thorough)], ids=["some", "many"]
)
def test_damage_is_an_error_that_names_the_file_or_changes_nothing(n, seed):
    trials = run_trials(n, seed=seed)
    counts = counted(trials)
    assert [kind for kind in KINDS if not counts[kind]] == []
    assert [trial for trial in trials if trial["outcome"] in PROBLEMS] == []


@pytest.mark.parametrize(
    ("without", "kind"),
    [
        ("tensorbank.index_files.delta_log:find_commit_flaw", "commit of samples"),
        ("tensorbank.catalog.provenance:find_document_flaw", "document of a part"),
    ],
)
def test_a_check_that_is_left_out_is_missed(without, kind):
    trials = run_trials(25, seed=3, kinds=[kind], without=without)
    assert {trial["outcome"] for trial in trials} & {*PROBLEMS}


def test_damaged_content_differs():
    sound = bytes(range(200))
    made = [damaged(random.Random(n), sound, (50, 100), [sound, b"other"]) for n in range(300)]
    assert {what for what, _ in made} == {"bit", "bits", "run", "cut", "longer", "swapped"}
    assert all(content != sound for _, content in made)
    flipped = [content for what, content in made if what in ("bit", "bits", "run")]
    assert all(c[:50] == sound[:50] and c[100:] == sound[100:] for c in flipped)
