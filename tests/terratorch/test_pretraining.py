"""Continual pretraining of TerraMind itself by ``python -m tensorbank_pretraining``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import tensorbank as tb
from tensorbank import InvalidInputError
from tensorbank_demo.landscape import write_archives
from tensorbank_indexer import IngestOptions, ingest, open_source
from tensorbank_loader.terramind import Crop
from tensorbank_pretraining import CLASS_TOKENS, InputPixels, Recipe, TerraMindSize, TokenModality, tokenize
from tensorbank_pretraining.__main__ import main
from tensorbank_pretraining.demo import losses
from tensorbank_pretraining.terramind_model import TerraMindModel

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(900)]

SQL = "SELECT sample_id, S2L2A, S1RTC, LULC_tokens FROM terramesh WHERE S1RTC IS NOT NULL"
RECIPE = Recipe(
    pixels=(InputPixels("S2L2A", 12), InputPixels("S1RTC", 2)),
    tokens=(TokenModality("LULC_tokens", 16),),
)


@pytest.fixture(scope="module")
def terramesh(tmp_path_factory: pytest.TempPathFactory) -> tb.Bank:
    folder = tmp_path_factory.mktemp("terramesh")
    truth = write_archives(folder / "archives", n_samples=12, samples_per_tar=6, seed=3)
    bank = tb.create(folder / "bank")
    ingest(open_source(str(truth.root)), bank, "terramesh", IngestOptions(n_workers=1))
    tokenize(bank, "terramesh", "LULC", CLASS_TOKENS, crops=[Crop(0, 0), Crop(40, 40)])
    return bank


def run(monkeypatch: pytest.MonkeyPatch, bank: tb.Bank, folder: Path, *more: str) -> int:
    words = [bank.url, SQL, "--tokens=LULC_tokens:16", "--crop=0,0", "--crop=40,40", f"--folder={folder}"]
    numbers = [
        "--global-batch-size=4",
        "--n-input=64",
        "--n-target=64",
        "--checkpoint-steps=2",
        "--warmup-steps=1",
    ]
    monkeypatch.setattr(sys, "argv", ["tensorbank_pretraining", *words, *numbers, *more])
    return main()


def test_terramind_trains_from_random_weights(terramesh, tmp_path, monkeypatch):
    more = ("--model=terratorch:tiny", "--n-steps=4", "--learning-rate=3e-3")
    assert run(monkeypatch, terramesh, tmp_path / "whole", *more) == 0
    whole = [row["loss"] for row in losses(tmp_path / "whole")]
    assert len(whole) == 4
    assert whole[-1] < whole[0]


def test_terramind_begins_with_the_weights_of_a_file(terramesh, tmp_path, monkeypatch):
    first = TerraMindModel(RECIPE, TerraMindSize("tiny"))
    same = TerraMindModel(RECIPE, TerraMindSize("tiny"))
    name = "encoder.0.mlp.fc1.weight"
    assert torch.equal(first.terramind.state_dict()[name], same.terramind.state_dict()[name])
    changed = {k: v + 1 if v.is_floating_point() else v for k, v in first.terramind.state_dict().items()}
    torch.save(changed, tmp_path / "weights.pt")
    loaded = TerraMindModel(RECIPE, TerraMindSize("tiny", tmp_path / "weights.pt"))
    assert torch.equal(loaded.terramind.state_dict()[name], changed[name])
    more = ("--model=terratorch:tiny", "--n-steps=1", f"--checkpoint={tmp_path / 'weights.pt'}")
    assert run(monkeypatch, terramesh, tmp_path / "run", *more) == 0


def test_weights_that_a_file_lacks_are_not_made_up_in_silence(tmp_path, caplog):
    weights = TerraMindModel(RECIPE, TerraMindSize("tiny")).terramind.state_dict()
    path = tmp_path / "weights.pt"
    for gone in ({"encoder.0.mlp.fc1.weight"}, set(weights)):
        torch.save({"other": torch.zeros(3)} | {k: v for k, v in weights.items() if k not in gone}, path)
        with pytest.raises(
            InvalidInputError, match="weights of the layers of this TerraMind, such as encoder"
        ):
            TerraMindModel(RECIPE, TerraMindSize("tiny", path))
    other_size = TerraMindModel(RECIPE, TerraMindSize("small")).terramind.state_dict()
    torch.save(other_size, path)
    with pytest.raises(InvalidInputError, match="another shape"):
        TerraMindModel(RECIPE, TerraMindSize("tiny", path))
    embedding = next(k for k in weights if k.startswith("encoder_embeddings."))
    torch.save({k: v for k, v in weights.items() if k != embedding}, path)
    TerraMindModel(RECIPE, TerraMindSize("tiny", path))
    assert embedding in caplog.text


@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_each_size_has_a_loss_and_gradients(size):
    model = TerraMindModel(RECIPE, TerraMindSize(size))
    n, tokens = 2, 196
    seen = torch.zeros(n, tokens, dtype=torch.bool)
    attention = torch.zeros(n, tokens, dtype=torch.int32)
    attention[:, 0] = 50
    pixels = {"input_mask": seen, "target_mask": ~seen, "decoder_attention_mask": torch.zeros_like(attention)}
    first = torch.arange(tokens) < 50
    classes = {
        "tensor": torch.randint(16, (n, 14, 14)),
        "input_mask": ~seen,
        "target_mask": (~first).expand(n, -1),
        "decoder_attention_mask": attention,
    }
    given = {
        "S2L2A": pixels | {"tensor": torch.randn(n, 12, 224, 224)},
        "S1RTC": pixels | {"tensor": torch.randn(n, 2, 224, 224)},
        "LULC_tokens": classes,
    }
    totals, counts = model(given)
    assert counts.tolist() == [100]
    assert 5 < float(totals / counts) < 12  # of 4,375 tokens: 8.4 by chance
    totals.sum().backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_what_terramind_has_otherwise_is_refused():
    for recipe, words in (
        (Recipe(pixels=(InputPixels("S2L2A", 3),), tokens=RECIPE.tokens), "sees 12 bands of S2L2A"),
        (Recipe(pixels=(), tokens=(TokenModality("LULC_tokens", 9000),)), "knows 4375 tokens"),
        (Recipe(pixels=(), tokens=(TokenModality("colours", 9),)), "no modality 'colours'"),
    ):
        with pytest.raises(InvalidInputError, match=words):
            TerraMindModel(recipe, TerraMindSize("tiny"))
