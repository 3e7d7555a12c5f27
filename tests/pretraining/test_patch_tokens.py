"""Tokens beside pixels: of the crops that they are said to be of, aligned in a loader, and refused where they are none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import tensorbank as tb
from tensorbank import InvalidInputError
from tensorbank.cli import main
from tensorbank_indexer import IngestOptions, ingest, open_source
from tensorbank_loader import DataLoader, ModalityTokens, TokenBudget, World
from tensorbank_loader.terramind import Crop, Crops, ModDict
from tensorbank_pretraining import CLASS_TOKENS, COLOUR_TOKENS, tokenize

CROPS = (Crop(0, 0), Crop(40, 8), Crop(20, 20, flip=True))


@pytest.fixture(scope="module")
def bank(make_archives, tmp_path_factory: pytest.TempPathFactory) -> tb.Bank:
    source, _ = make_archives("terramesh", "--samples", "6", "--per-tar", "6", "--subset", "majortom")
    bank = tb.create(tmp_path_factory.mktemp("tokens"))
    ingest(open_source(str(source)), bank, "t", IngestOptions(n_workers=1, samples_per_shard=4))
    tokenize(bank, "t", "S2L2A", COLOUR_TOKENS, crops=CROPS)
    tokenize(bank, "t", "LULC", CLASS_TOKENS, crops=CROPS)
    return bank


def test_a_model_sees_the_pixels_that_its_tokens_were_made_of(bank):
    plan = bank.sql("SELECT sample_id, S2L2A, S2L2A_tokens, LULC, LULC_tokens FROM t").plan()
    alphas = {"input_alphas": 1.0, "target_alphas": 1.0}
    names = ("S2L2A", "S2L2A_tokens", "LULC", "LULC_tokens")
    budget = TokenBudget(tuple(ModalityTokens(n, min_input=1, **alphas) for n in names))
    stored = Crops.of(plan, ["S2L2A_tokens", "LULC_tokens"])
    assert stored == Crops(224, CROPS), "the tokens say what they are of"
    make = ModDict(budget, names={n: n for n in names}, crops=stored)
    crops = set()
    n_samples = 0
    for epoch in range(4):
        loader = DataLoader(plan, batch_size=4, seed=epoch, budget=budget, transform=make, world=World())
        with loader:
            for batch in loader:
                found = {name: value["tensor"].numpy() for name, value in batch["mod_dict"].items()}
                crops |= {*Crops(224, CROPS).chosen(batch["draw_key"]).tolist()}
                n_samples += len(batch["sample_id"])
                for pixels, rule in (("S2L2A", COLOUR_TOKENS), ("LULC", CLASS_TOKENS)):
                    np.testing.assert_array_equal(found[f"{pixels}_tokens"], rule(found[pixels]))
    assert n_samples == 24
    assert crops == {0, 1, 2}


def test_tokens_tell_samples_apart(bank):
    tokens = bank.sql("SELECT S2L2A_tokens FROM t").plan()
    with DataLoader(tokens, batch_size=6, world=World()) as loader:
        (batch,) = loader
    assert batch["S2L2A_tokens"].shape == (6, 3, 14, 14)
    assert len(np.unique(batch["S2L2A_tokens"].numpy())) > 10


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (lambda pixels: np.zeros((len(pixels), 7, 7), np.int64), r"returned int64 \(\d+, 7, 7\)"),
        (lambda pixels: np.zeros((len(pixels), 14, 14)), "returned float64"),
        (lambda pixels: np.full((len(pixels), 14, 14), 40_000), "tokens from 40000 to 40000"),
    ],
)
def test_what_are_no_tokens_is_refused(bank, rule, words):
    with pytest.raises(InvalidInputError, match=words):
        tokenize(bank, "t", "DEM", rule, crops=CROPS)
    assert "DEM_tokens" not in bank.table("t").schema.names


def test_fixed_rules_refuse_what_they_are_not_for(bank):
    with pytest.raises(InvalidInputError, match="the 12 bands of Sentinel-2 level 2A, got 1"):
        tokenize(bank, "t", "DEM", COLOUR_TOKENS, crops=CROPS)
    with pytest.raises(InvalidInputError, match="codes from 0 to 15, got"):
        tokenize(bank, "t", "S2L2A", CLASS_TOKENS, name="classes", crops=CROPS)


def test_a_crop_beyond_the_pixels_is_refused(bank):
    with pytest.raises(InvalidInputError, match=r"a crop of 224 pixels at \(41, 0\) reaches beyond DEM"):
        tokenize(bank, "t", "DEM", COLOUR_TOKENS, crops=(Crop(41, 0),))


def test_a_tokenizer_on_a_device_is_given_tensors(bank):
    def mean_sign(pixels: torch.Tensor) -> torch.Tensor:
        patches = pixels.float().reshape(len(pixels), -1, 14, 16, 14, 16).mean((1, 3, 5))
        return (patches > patches.mean((1, 2), keepdim=True)).long()

    tokenize(bank, "t", "DEM", mean_sign, name="high", crops=CROPS, device="cpu")
    plan = bank.sql("SELECT sample_id, DEM, high FROM t").plan()
    with DataLoader(plan, batch_size=6, shuffle=False, world=World()) as loader:
        (batch,) = loader
    for number, crop in enumerate(CROPS):
        window = batch["DEM"][:, 0, crop.y : crop.y + 224, crop.x : crop.x + 224]
        window = window.flip(-1) if crop.flip else window
        patches = window.double().reshape(6, 14, 16, 14, 16).mean((2, 4))
        high = patches > patches.mean((1, 2), keepdim=True)
        assert (batch["high"][:, number] == high).float().mean() > 0.99, "but for what is rounded"
    assert set(batch["high"].unique().tolist()) == {0, 1}


@pytest.fixture
def own_bank(make_archives, tmp_path: Path) -> Path:
    source, _ = make_archives("terramesh", "--samples", "2", "--per-tar", "2", "--subset", "majortom")
    ingest(open_source(str(source)), tb.create(tmp_path / "bank"), "t", IngestOptions(n_workers=1))
    return tmp_path / "bank"


def test_the_command_writes_tokens_of_its_crops(own_bank, capsys):
    table = ("--table", "t", "--modality", "LULC")
    command = ["tokenize", str(own_bank), *table, "--with", "tensorbank_pretraining:CLASS_TOKENS"]
    assert main([*command, "--crop", "0,0", "--crop", "40,8,flip", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_given"] == 2
    plan = tb.open(own_bank).sql("SELECT LULC, LULC_tokens FROM t").plan()
    assert Crops.of(plan, ["LULC_tokens"]) == Crops(224, (Crop(0, 0), Crop(40, 8, flip=True)))
    with DataLoader(plan, batch_size=2, world=World()) as loader:
        (batch,) = loader
    seen = batch["LULC"].numpy()[:, :, 40:264, 8:232][..., ::-1]
    np.testing.assert_array_equal(batch["LULC_tokens"][:, 1].numpy(), CLASS_TOKENS(seen))
    for given, words in (
        (["--crop", "0"], "--crop '0' is no crop"),
        (["--with", "tensorbank_pretraining:CLAS"], "--with 'tensorbank_pretraining:CLAS' leads to nothing"),
    ):
        assert main([*command, *given]) == 2
        assert words in capsys.readouterr().err.replace("\n", " ")
