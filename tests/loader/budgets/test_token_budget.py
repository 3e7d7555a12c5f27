"""Budgets of tokens: what is refused, that they add up, and that nothing but seed, epoch and sample decides them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorbank import InvalidInputError
from tensorbank_loader import ModalityTokens, TokenBudget
from tensorbank_loader.budgets import BudgetDraws

PIXELS = ModalityTokens("S2L2A", input_alphas=(0.5, 1000.0), target_alphas=(0.0, 0.0))
TOKENS = tuple(
    ModalityTokens(name, input_alphas=(0.5, 0.0), target_alphas=(0.5, 0.5)) for name in ("DEM", "LULC")
)
BUDGET = TokenBudget((PIXELS, *TOKENS))


def draws(budget: TokenBudget, n: int, there: np.ndarray | None = None, seed: int = 7) -> BudgetDraws:
    every = np.ones((n, len(budget.modalities)), bool)
    return BudgetDraws(budget, seed, every if there is None else there)


def test_inputs_and_targets_add_up_and_are_disjoint():
    found = draws(BUDGET, 5000).draw(np.arange(5000), epoch=3)
    assert (found.inputs.sum(axis=1) == 128).all()
    assert (found.targets.sum(axis=1) == 128).all()
    assert (found.inputs + found.targets <= 196).all()
    assert (found.targets[:, 0] == 0).all(), "pixels are no targets"


def test_components_come_as_often_as_their_weights_say():
    budget = TokenBudget(BUDGET.modalities, weights=(1.0, 3.0))
    found = draws(budget, 20_000).draw(np.arange(20_000), epoch=0)
    of_pixels_alone = (found.inputs[:, 1:] == 0).all(axis=1).mean()
    assert 0.75 <= of_pixels_alone < 0.80, (
        "the second component sees pixels only, and the first does so rarely"
    )


def test_minima_and_maxima_hold():
    budget = TokenBudget(
        (
            ModalityTokens("a", input_alphas=(0.1,), min_input=20, max_input=90),
            ModalityTokens("b", input_alphas=(5.0,), max_target=60),
            ModalityTokens("c", input_alphas=(0.1,), min_target=30),
        )
    )
    found = draws(budget, 3000).draw(np.arange(3000), epoch=0)
    assert (found.inputs.sum(axis=1) == 128).all()
    assert (found.targets.sum(axis=1) == 128).all()
    assert found.inputs[:, 0].min() >= 20
    assert found.inputs[:, 0].max() <= 90
    assert found.targets[:, 1].max() == 60
    assert found.targets[:, 2].min() >= 30


def test_a_sample_that_lacks_modalities_has_tokens_of_the_others():
    there = np.array([[True, True, False], [False, True, True], [False, False, False]])
    found = draws(BUDGET, 3, there).draw(np.arange(3), epoch=0)
    assert (found.inputs[~there] == 0).all()
    assert (found.targets[~there] == 0).all()
    assert found.targets[:2].sum(axis=1).tolist() == [min(128, 196 - found.inputs[0, 1]), 128]
    assert found.wanted["LULC"].tolist()[0] is False


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(40)), st.integers(1, 40))
def test_batches_change_nothing(positions, cut):
    made = draws(BUDGET, 40)
    every = made.draw(np.arange(40), epoch=2)
    for some in (np.array(positions[:cut]), np.array(positions[cut:], np.int64)):
        found = made.draw(some, epoch=2)
        for name in ("inputs", "targets", "keys"):
            assert (getattr(found, name) == getattr(every, name)[some]).all()


def test_seeds_and_epochs_draw_others():
    first = draws(BUDGET, 500).draw(np.arange(500), epoch=0)
    for other in (
        draws(BUDGET, 500).draw(np.arange(500), epoch=1),
        draws(BUDGET, 500, seed=8).draw(np.arange(500), epoch=0),
    ):
        assert (first.keys != other.keys).all()
        assert (first.targets != other.targets).any(axis=1).mean() > 0.95


def test_budgets_are_told_apart_by_their_digests():
    assert TokenBudget((PIXELS, *TOKENS), 128, 128, (1, 1)).digest == BUDGET.digest, "these are the defaults"
    others = [
        TokenBudget(BUDGET.modalities, n_input=64),
        TokenBudget(BUDGET.modalities, weights=(1, 2)),
        TokenBudget(BUDGET.modalities[::-1]),
        TokenBudget((PIXELS, TOKENS[0], replace(TOKENS[1], min_target=1))),
    ]
    assert len({b.digest for b in (BUDGET, *others)}) == 5


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: TokenBudget(()), "each once"),
        (lambda: TokenBudget((*TOKENS, TOKENS[0])), "each once"),
        (lambda: TokenBudget((PIXELS,)), "128 target tokens, and room for 0"),
        (lambda: TokenBudget(TOKENS, n_input=500), "500 input tokens, and room for 392"),
        (lambda: TokenBudget((PIXELS, ModalityTokens("DEM"))), "one number a component"),
        (lambda: TokenBudget(TOKENS, weights=(1.0,)), "give 2 numbers"),
        (lambda: TokenBudget(TOKENS, weights=(0.0, 0.0)), "above 0"),
        (
            lambda: TokenBudget((ModalityTokens("a", min_input=190),), n_input=100, n_target=0),
            "more than 100",
        ),
        (
            lambda: TokenBudget((ModalityTokens("a"), ModalityTokens("b", input_alphas=(0.0,), min_input=3))),
            "of b, whose alpha is 0",
        ),
        (lambda: ModalityTokens("a", input_alphas=(-1.0,)), "from 0 on"),
        (lambda: ModalityTokens("a", input_alphas=(float("nan"),)), "from 0 on"),
        (lambda: ModalityTokens("a", n_tokens=0), "n_tokens of a"),
        (lambda: ModalityTokens("a", max_input=400), "max_input of a"),
    ],
)
def test_what_makes_no_sense_is_refused(make, words):
    with pytest.raises(InvalidInputError, match=words):
        make()
