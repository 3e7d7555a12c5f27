"""Recipes: what is refused, and the schedule."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from support.pretraining_run import RECIPE
from tensorbank import InvalidInputError
from tensorbank_pretraining import InputPixels, Recipe, TokenModality


def test_the_rate_rises_in_a_line_and_falls_by_half_a_cosine():
    recipe = replace(RECIPE, n_steps=100, warmup_steps=10, learning_rate=1.0)
    assert [recipe.rate_at(step) for step in range(10)] == pytest.approx([(k + 1) / 10 for k in range(10)])
    for step in (10, 40, 55, 99):
        assert recipe.rate_at(step) == pytest.approx(math.cos(math.pi * (step - 10) / 180) ** 2)


def test_only_what_changes_a_run_changes_its_digest():
    assert replace(RECIPE, precision="bfloat16").digest == RECIPE.digest
    for other in (
        {"seed": 5},
        {"accumulate": 3},
        {"n_input": 4},
        {"learning_rate": 1e-4},
        {"crops": RECIPE.crops[:1]},
    ):
        assert replace(RECIPE, **other).digest != RECIPE.digest


def test_pixels_are_seen_and_tokens_are_seen_and_predicted():
    budget = RECIPE.budget()
    assert budget.names == RECIPE.names == ("S2L2A", "tokens")
    assert budget.alphas("target").tolist() == [[0.0, 0.5]]
    assert budget.alphas("input").tolist() == [[0.5, 0.5]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tokens": ()}, "nothing is predicted"),
        ({"crop_size": 9}, "no whole patches"),
        ({"n_target": 9}, "9 target tokens, and room for 4"),
        ({"tokens": (TokenModality("a", 1),)}, "the vocabulary of a"),
        ({"pixels": (InputPixels("tokens", 1),)}, "each once"),
        ({"precision": "float16"}, "precision"),
        ({"warmup_steps": 400}, "warmup_steps"),
        ({"global_batch_size": 0}, "global_batch_size"),
    ],
)
def test_what_makes_no_sense_is_refused(change, words):
    with pytest.raises(InvalidInputError, match=words):
        replace(RECIPE, **change)


def test_a_recipe_needs_no_pixels():
    assert Recipe(pixels=(), tokens=(TokenModality("a", 16),)).names == ("a",)
