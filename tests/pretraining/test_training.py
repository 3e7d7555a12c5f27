"""Runs of the recipe on one rank: what they log and keep, and what is refused. ``tests/cluster`` has runs of several ranks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from support.handmade import make
from support.pretraining_run import CONSTANTS, PIXELS, RECIPE, TOKENS, N, made, numbers, run_of, seen
from tensorbank import InvalidInputError, Normalization, TensorBankError
from tensorbank_pretraining import ModelSize, TokenModality
from tensorbank_pretraining.checkpoints import Checkpoints
from tensorbank_pretraining.training import train

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("pretraining")
    plan = made(folder / "bank").plan
    plan.save(folder / "plan.arrow")
    return plan, folder / "plan.arrow"


@pytest.fixture(scope="module")
def alone(plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of one rank that nothing has disturbed."""
    folder = tmp_path_factory.mktemp("alone")
    train(run_of(plan[0], folder))
    return folder


def test_a_run_logs_its_steps_and_learns(alone):
    found = numbers(alone)
    assert found[:, 0].tolist() == list(range(1, RECIPE.n_steps + 1))
    assert abs(found[0, 1] - np.log(200)) < 0.3, "at first all tokens are as likely"
    assert found[-1, 1] < found[0, 1]
    epochs = N // RECIPE.global_batch_size
    ids = seen(alone)
    for first in (1, 1 + epochs):
        of_epoch = [name for step in range(first, first + epochs) for name in ids[step]]
        assert len(of_epoch) == len(set(of_epoch)) == epochs * RECIPE.global_batch_size


def test_accumulated_batches_are_seen_in_one_step(plan, tmp_path):
    recipe = replace(RECIPE, accumulate=2, n_steps=3, warmup_steps=1)
    train(replace(run_of(plan[0], tmp_path), recipe=recipe))
    assert [len(ids) for ids in seen(tmp_path).values()] == [2 * RECIPE.global_batch_size] * 3


def test_a_run_that_has_ended_ends_at_once(plan, alone, tmp_path):
    before = numbers(alone)
    train(run_of(plan[0], alone))
    assert (numbers(alone) == before).all()


def test_half_a_checkpoint_is_none(tmp_path):
    (tmp_path / ".step-00000004").mkdir()
    assert Checkpoints(tmp_path).newest() is None


def test_another_recipe_or_model_is_refused(plan, alone):
    for other in (
        replace(run_of(plan[0], alone), recipe=replace(RECIPE, n_input=4)),
        replace(run_of(plan[0], alone), recipe=replace(RECIPE, seed=5)),
        replace(run_of(plan[0], alone), size=ModelSize(64, 2, 2, 1)),
    ):
        with pytest.raises(InvalidInputError, match="is of recipe"):
            train(other)


def test_a_checkpoint_of_another_plan_is_refused(alone, tmp_path):
    other = make(tmp_path / "bank", N - 1, handles=(PIXELS, TOKENS)).plan
    with pytest.raises(InvalidInputError, match=r"this state has fingerprint '.*1d', the loader has '.*1c'"):
        train(run_of(other, alone))


def test_what_the_plan_lacks_is_named(plan, tmp_path):
    recipe = replace(RECIPE, tokens=(*RECIPE.tokens, TokenModality("LULC_tokens", 16)))
    with pytest.raises(
        InvalidInputError, match="the recipe needs LULC_tokens, which the plan does not select"
    ):
        train(replace(run_of(plan[0], tmp_path), recipe=recipe))
    with pytest.raises(InvalidInputError, match="29 samples, fewer than a batch of 64"):
        train(replace(run_of(plan[0], tmp_path), recipe=replace(RECIPE, global_batch_size=64)))


def test_a_token_beyond_the_vocabulary_names_its_sample(plan, tmp_path):
    """Tokens of this plan are below 200; a model would end in an IndexError that names nothing."""
    recipe = replace(RECIPE, tokens=(TokenModality("tokens", 50),))
    with pytest.raises(
        InvalidInputError, match=r"tokens of sample s\d{4} has tokens from \d+ to 1\d\d.*is 50"
    ):
        train(replace(run_of(plan[0], tmp_path), recipe=recipe))


def test_a_loss_that_is_no_number_names_the_samples(plan, alone, tmp_path):
    constants = {"S2L2A": Normalization((1e30, 0.0), (1e-30, 1.0))}
    with pytest.raises(TensorBankError, match="the loss is nan on rank 0, of the samples s") as caught:
        train(replace(run_of(plan[0], tmp_path), constants=constants))
    assert caught.value.kind == "not-finite"
    first = seen(alone)[1]
    assert all(name in str(caught.value) for name in first)
    assert constants != CONSTANTS
