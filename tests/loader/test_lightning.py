"""Lightning's Trainer over our loaders: an epoch, and a checkpoint in the middle of one that goes on where it was."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from tensorbank_loader import DataLoader, World

sys.path.insert(0, str(Path(__file__).parent))
from handmade import HANDLES, Handmade, make

sys.path.pop(0)

# Lightning and torch warn of each other.
pytestmark = [pytest.mark.filterwarnings("ignore")]

N = 23


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Handmade:
    return make(tmp_path_factory.mktemp("part"), N, handles=HANDLES[:1])


def model_of():  # Lightning is imported where the filters of warnings are in force
    import lightning

    class Model(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)
            self.seen: list[list[str]] = []

        def training_step(self, batch: dict, _: int) -> torch.Tensor:
            self.seen.append(list(batch["sample_id"]))
            return self.layer(batch["S2"].float().mean((2, 3))).square().mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=1e-6)

    return Model()


def trainer_of(folder: Path, **options: object):
    import lightning

    return lightning.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def loader_of(made: Handmade) -> DataLoader:
    return DataLoader(made.plan, batch_size=4, seed=2, world=World())


def test_a_trainer_sees_epoch_after_epoch(made, tmp_path):
    model = model_of()
    with loader_of(made) as loader:
        trainer_of(tmp_path, max_epochs=2, enable_checkpointing=False).fit(model, loader)
    with loader_of(made) as alone:
        expected = [list(b["sample_id"]) for _ in range(2) for b in alone]
    assert model.seen == expected


def test_a_checkpoint_in_the_middle_of_an_epoch_goes_on_where_it_was(made, tmp_path):
    from lightning.pytorch.callbacks import ModelCheckpoint

    every_step = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    model = model_of()
    with loader_of(made) as loader:
        trainer_of(tmp_path, max_epochs=2, callbacks=[every_step]).fit(model, loader)
    for step in (1, 4, 6, 7, 11):  # an epoch has 6
        resumed = model_of()
        with loader_of(made) as loader:
            trainer_of(tmp_path, max_epochs=2, enable_checkpointing=False).fit(
                resumed, loader, ckpt_path=tmp_path / f"step={step}.ckpt", weights_only=False
            )
        assert resumed.seen == model.seen[step:], f"after {step} steps"
