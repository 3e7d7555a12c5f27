"""The model: what it is not shown does not matter, what it is not asked for is not counted."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from support.pretraining_run import RECIPE, SIZE
from tensorbank_loader.terramind import token_masks
from tensorbank_pretraining import MaskedModel
from tensorbank_pretraining.masked_model import patches, positions

N = 9


def batch(seed: int = 1) -> dict[str, dict[str, torch.Tensor]]:
    """Return what the model is given for some samples."""
    generator = torch.Generator().manual_seed(seed)
    keys = torch.arange(N) + 100 * seed
    seen = torch.tensor([1, 2, 0, 3, 1, 0, 2, 1, 3])
    pixels = torch.randn(N, 2, 8, 8, generator=generator)
    tokens = torch.randint(0, 200, (N, 2, 2), generator=generator)
    nothing = torch.zeros(N, dtype=torch.int64)
    return {
        "S2L2A": {"tensor": pixels, **token_masks(seen, nothing, keys, 4, "S2L2A")._asdict()},
        "tokens": {
            "tensor": tokens,
            **token_masks((3 - seen).clamp(max=2), nothing + 2, keys, 4, "tokens")._asdict(),
        },
    }


def loss_of(model: MaskedModel, given: dict) -> torch.Tensor:
    totals, counts = model(given)
    return (totals / counts.clamp(min=1)).mean()


@pytest.fixture(scope="module")
def model() -> MaskedModel:
    return MaskedModel(RECIPE, SIZE).eval()


def test_tokens_that_are_not_used_change_nothing(model):
    given = batch()
    loss = loss_of(model, given)
    other = batch(2)
    changed = {name: dict(value) for name, value in given.items()}
    tokens = given["tokens"]
    unused = (tokens["input_mask"] & tokens["target_mask"]).view(N, 2, 2)
    changed["tokens"]["tensor"] = torch.where(unused, other["tokens"]["tensor"], tokens["tensor"])
    hidden = given["S2L2A"]["input_mask"].view(N, 1, 2, 1, 2, 1).expand(N, 2, 2, 4, 2, 4).reshape(N, 2, 8, 8)
    changed["S2L2A"]["tensor"] = torch.where(hidden, other["S2L2A"]["tensor"], given["S2L2A"]["tensor"])
    assert (changed["S2L2A"]["tensor"] != given["S2L2A"]["tensor"]).any()
    assert (changed["tokens"]["tensor"] != tokens["tensor"]).any()
    assert loss_of(model, changed) == loss
    changed["S2L2A"]["tensor"] = other["S2L2A"]["tensor"]
    assert loss_of(model, changed) != loss, "those that are used do"


def test_a_target_is_not_seen_by_what_predicts_it(model):
    """The gradient of the loss by the embedding of a token that is a target only is 0."""
    given = batch()
    tokens = given["tokens"]
    target_only = (~tokens["target_mask"] & tokens["input_mask"]).view(N, 2, 2)
    only = set(tokens["tensor"][target_only].tolist()) - set(
        tokens["tensor"][~tokens["input_mask"].view(N, 2, 2)].tolist()
    )
    assert len(only) > 5
    model.zero_grad()
    loss_of(model, given).backward()
    gradient = model.tokens["tokens"].weight.grad
    assert (gradient[sorted(only)] == 0).all()
    assert (gradient != 0).any()


def test_samples_do_not_look_at_each_other(model):
    given = batch()

    def of(rows: list[int]) -> torch.Tensor:
        cut = {name: {k: v[rows] for k, v in value.items()} for name, value in given.items()}
        return loss_of(model, cut)

    # Each sample has two targets, so that the mean over samples is the mean of what each alone gives.
    alone = torch.stack([of([row]) for row in range(N)])
    torch.testing.assert_close(alone.mean(), of(list(range(N))))


def test_first_weights_follow_from_the_seed_alone():
    first = MaskedModel(RECIPE, SIZE).state_dict()
    torch.rand(7)
    again = MaskedModel(RECIPE, SIZE).state_dict()
    other = MaskedModel(replace(RECIPE, seed=5), SIZE).state_dict()
    assert list(first) == list(again)
    assert all((first[name] == again[name]).all() for name in first)
    assert not (first["encoder.0.mlp.0.weight"] == other["encoder.0.mlp.0.weight"]).any()


def test_every_parameter_has_a_gradient_though_nothing_is_asked_for(model):
    """DDP waits for the gradients of all parameters."""
    given = batch()
    given["tokens"]["target_mask"] = torch.ones(N, 4, dtype=torch.bool)
    model.zero_grad()
    loss = loss_of(model, given)
    loss.backward()
    assert loss == 0
    lacking = [name for name, p in model.named_parameters() if p.grad is None]
    assert lacking == []


def test_patches_are_cut_row_by_row():
    pixels = torch.arange(2 * 8 * 8).reshape(1, 2, 8, 8)
    found = patches(pixels, 4)
    assert found.shape == (1, 4, 32)
    assert (found[0, 1] == pixels[0, :, :4, 4:].flatten()).all()


def test_places_differ():
    found = positions(14, 96)
    assert found.shape == (196, 96)
    distances = torch.cdist(found, found) + torch.eye(196) * 100
    assert distances.min() > 0.1
