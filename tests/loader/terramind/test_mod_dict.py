"""Batches for TerraMind: names, masks that agree with the budget, pixels and tokens of one crop, in any world."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from support.handmade import make
from tensorbank import Band, InvalidInputError, Modality, Normalization, NotFoundError
from tensorbank.plans.handle import Handle
from tensorbank_loader import DataLoader, ModalityTokens, Normalize, TokenBudget, World
from tensorbank_loader.terramind import Crop, Crops, ModDict

S2L2A = Handle(
    "S2L2A", Modality("S2L2A", "int16", tuple(Band(f"b{i}") for i in range(3)), 1, 12, 10), (0, 1, 2)
)
LULC = Handle(
    "LULC_tokens", Modality("LULC_tokens", "int16", tuple(Band(f"b{i}") for i in range(2)), 1, 2, 2), (0, 1)
)
CROPS = Crops(size=8, listed=(Crop(0, 1), Crop(4, 2, flip=True)))
BUDGET = TokenBudget(
    (
        ModalityTokens("S2L2A", 4, target_alphas=(0.0,)),
        ModalityTokens("LULC_tokens", 4),
    ),
    n_input=3,
    n_target=2,
)
N = 29


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    """Samples of 12 x 10 pixels, and tokens of two crops of each."""
    return make(tmp_path_factory.mktemp("part"), N, handles=(S2L2A, LULC))


def batches(plan, world: World, transform) -> list[dict]:
    options = {"global_batch_size": 6, "seed": 4, "budget": BUDGET, "transform": transform}
    with DataLoader(plan, world=world, **options) as loader:
        return list(loader)


def test_a_batch_is_what_the_model_takes(made):
    ids = made.plan.table["sample_id"].to_pylist()
    n_seen = 0
    for batch in batches(made.plan, World(), ModDict(BUDGET, crops=CROPS)):
        found = batch["mod_dict"]
        assert list(found) == ["untok_sen2l2a@224", "tok_lulc@224"]
        assert not {"S2L2A", "LULC_tokens"} & set(batch)
        chosen = CROPS.chosen(batch["draw_key"]).tolist()
        for name, modality in zip(("S2L2A", "LULC_tokens"), found.values(), strict=True):
            assert list(modality) == ["tensor", "input_mask", "target_mask", "decoder_attention_mask"]
            assert ((~modality["input_mask"]).sum(1) == batch["input_tokens"][name]).all()
            assert ((~modality["target_mask"]).sum(1) == batch["target_tokens"][name]).all()
            assert (modality["decoder_attention_mask"].sum(1) == batch["target_tokens"][name]).all()
        for i, (sample, number) in enumerate(zip(batch["sample_id"], chosen, strict=True)):
            crop, position = CROPS.listed[number], ids.index(sample)
            if batch["mask"]["S2L2A"][i]:
                pixels = made.truth["S2L2A"][position][0, :, crop.y : crop.y + 8, crop.x : crop.x + 8]
                pixels = pixels[..., ::-1] if crop.flip else pixels
                np.testing.assert_array_equal(found["untok_sen2l2a@224"]["tensor"][i].numpy(), pixels)
                n_seen += 1
            if batch["mask"]["LULC_tokens"][i]:
                tokens = made.truth["LULC_tokens"][position][0, number]
                np.testing.assert_array_equal(found["tok_lulc@224"]["tensor"][i].numpy(), tokens)
        assert found["tok_lulc@224"]["tensor"].dtype == torch.int64
    assert n_seen > N / 2


def test_ranks_make_the_batches_of_one_process(made):
    transform = ModDict(BUDGET, crops=CROPS)
    alone = batches(made.plan, World(), transform)
    shares = [batches(made.plan, World(rank, 3), transform) for rank in range(3)]
    assert len(alone) == 5
    for whole, *parts in zip(alone, *shares, strict=True):
        assert [name for part in parts for name in part["sample_id"]] == whole["sample_id"]
        for name, modality in whole["mod_dict"].items():
            for what, tensor in modality.items():
                assert (torch.cat([part["mod_dict"][name][what] for part in parts]) == tensor).all()


def test_it_follows_a_normalisation(made):
    constants = {
        "S2L2A": Normalization((10.0,) * 3, (2.0,) * 3),
        "LULC_tokens": Normalization((0.0,) * 2, (1.0,) * 2),
    }
    transform = nn.Sequential(Normalize(made.plan, constants, fill=0.0), ModDict(BUDGET, crops=CROPS))
    plain = batches(made.plan, World(), ModDict(BUDGET, crops=CROPS))
    assert len(plain) == 5
    for batch, raw in zip(batches(made.plan, World(), transform), plain, strict=True):
        there = batch["mask"]["S2L2A"]
        mine, stored = (b["mod_dict"]["untok_sen2l2a@224"]["tensor"] for b in (batch, raw))
        torch.testing.assert_close(mine[there], (stored[there].float() - 10) / 2)
        assert (mine[~there] == 0).all()


def test_tokens_beyond_their_vocabulary_are_named_with_their_sample(made):
    """The tokens of this bank are below 200."""
    batch = batches(made.plan, World(), None)[1]
    tokens = batch["LULC_tokens"]
    there = batch["mask"]["LULC_tokens"].nonzero()[:, 0].tolist()
    assert len(there) > 1
    make_dict = ModDict(BUDGET, crops=CROPS, vocabularies={"LULC_tokens": 200})
    tokens.clamp_(max=150)
    make_dict(batch)
    for i, place in enumerate(there[:2]):
        tokens[place, :, 1, 0] = (200, -3)[i]
    sample = batch["sample_id"][there[0]]
    with pytest.raises(
        InvalidInputError,
        match=f"LULC_tokens of sample {sample} has tokens from [0-9]+ to 200, and the vocabulary is 200, tokens 0 to 199, "
        "and 1 more samples",
    ):
        make_dict(batch)
    tokens[there[0], :, 1, 0] = 199
    with pytest.raises(
        InvalidInputError, match=f"of sample {batch['sample_id'][there[1]]} has tokens from -3 to "
    ):
        make_dict(batch)
    del batch["sample_id"]
    with pytest.raises(InvalidInputError, match=f"of sample number {there[1]} of the batch has"):
        make_dict(batch)
    ModDict(BUDGET, crops=CROPS)(batch)  # nobody said what the model knows
    with pytest.raises(NotFoundError, match=r"no modality 'LULC_token'.*Did you mean 'LULC_tokens'"):
        ModDict(BUDGET, vocabularies={"LULC_token": 200})
    with pytest.raises(InvalidInputError, match="the vocabulary of LULC_tokens"):
        ModDict(BUDGET, vocabularies={"LULC_tokens": 0})


def test_what_cannot_be_made_is_refused(made):
    with pytest.raises(InvalidInputError, match=r"no modality of the name 'S2L2'.*Did you mean 'S2L2A'"):
        ModDict(TokenBudget((ModalityTokens("S2L2"),)))
    loader = DataLoader(made.plan, batch_size=6, transform=ModDict(BUDGET, crops=CROPS))
    with loader, pytest.raises(InvalidInputError, match="this batch has no budget"):
        next(iter(loader))
    named = ModDict(TokenBudget((ModalityTokens("S2L2"),)), names={"S2L2": "untok_sen2l2a@224"})
    assert named.names == {"S2L2": "untok_sen2l2a@224"}
