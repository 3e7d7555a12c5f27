"""Lightning's Trainer over our loaders: an epoch, and a checkpoint in the middle of one that goes on where it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from support.handmade import HANDLES, Handmade, make
from tensorbank_loader import DataLoader, StreamingDataset, World

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


# What a trainer does with an epoch besides going through it.


def epochs_of(made: Handmade, n: int) -> list[list[list[str]]]:
    with loader_of(made) as alone:
        return [[list(b["sample_id"]) for b in alone] for _ in range(n)]


def validating(made: Handmade, folder: Path, *, as_dataset: bool, **options: object) -> list[list[list[str]]]:
    """Return what the sanity check and each validation have seen of a shuffled loader."""
    seen: list[list[list[str]]] = []

    class Model(type(model_of())):
        def on_validation_epoch_start(self) -> None:
            seen.append([])

        def validation_step(self, batch: dict, _: int) -> None:
            seen[-1].append(list(batch["sample_id"]))

    dataset = StreamingDataset(made.plan, global_batch_size=4, seed=2, world=World())
    with loader_of(made) as training, loader_of(made) as native:
        validation = torch.utils.data.DataLoader(dataset, batch_size=None) if as_dataset else native
        trainer = trainer_of(folder, max_epochs=2, enable_checkpointing=False, **options)
        trainer.fit(Model(), training, validation)
    return seen


@pytest.mark.parametrize("as_dataset", [False, True], ids=["loader", "dataset"])
def test_the_sanity_check_eats_nothing_of_the_first_validation(made, tmp_path, as_dataset):
    expected = epochs_of(made, 2)
    seen = validating(made, tmp_path, as_dataset=as_dataset)
    assert seen == [expected[0][:2], *expected]


@pytest.mark.parametrize("as_dataset", [False, True], ids=["loader", "dataset"])
def test_a_limit_gives_the_same_first_batches_each_time(made, tmp_path, as_dataset):
    (expected,) = epochs_of(made, 1)
    seen = validating(made, tmp_path, as_dataset=as_dataset, limit_val_batches=4)
    assert seen == [expected[:2], expected[:4], expected[:4]]


def test_overfitting_sees_the_same_batches_each_epoch(made, tmp_path):
    (expected,) = epochs_of(made, 1)
    model = model_of()
    with loader_of(made) as loader:
        trainer_of(tmp_path, max_epochs=3, enable_checkpointing=False, overfit_batches=2).fit(model, loader)
    assert model.seen == expected[:2] * 3


def test_a_limit_of_training_with_the_old_way_goes_through_the_epoch_in_pieces(made, tmp_path):
    (expected,) = epochs_of(made, 1)
    model = model_of()
    with DataLoader(made.plan, batch_size=4, seed=2, world=World(), on_iter="continue") as loader:
        trainer_of(tmp_path, max_epochs=2, enable_checkpointing=False, limit_train_batches=3).fit(
            model, loader
        )
    assert model.seen == expected


@pytest.mark.parametrize("persistent", [False, True], ids=["fresh", "persistent"])
def test_epochs_of_workers_follow_each_other_in_a_trainer(made, tmp_path, persistent):
    dataset = StreamingDataset(made.plan, global_batch_size=4, seed=2, world=World())
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_size=None,
        num_workers=2,
        multiprocessing_context="forkserver",
        persistent_workers=persistent,
    )
    model = model_of()
    trainer_of(tmp_path, max_epochs=3, enable_checkpointing=False).fit(model, loader)
    assert model.seen == [batch for epoch in epochs_of(made, 3) for batch in epoch]


def test_a_stateful_loader_of_workers_resumes_at_each_boundary(made, tmp_path):
    from lightning.pytorch.callbacks import ModelCheckpoint
    from torchdata.stateful_dataloader import StatefulDataLoader

    def loader() -> StatefulDataLoader:
        dataset = StreamingDataset(made.plan, global_batch_size=4, seed=2, world=World())
        return StatefulDataLoader(
            dataset, batch_size=None, num_workers=2, multiprocessing_context="forkserver"
        )

    every_step = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    model = model_of()
    trainer_of(tmp_path, max_epochs=2, callbacks=[every_step]).fit(model, loader())
    assert model.seen == [batch for epoch in epochs_of(made, 2) for batch in epoch]
    for step in (5, 6, 7):  # an epoch has 6
        resumed = model_of()
        trainer_of(tmp_path, max_epochs=3, enable_checkpointing=False).fit(
            resumed, loader(), ckpt_path=tmp_path / f"step={step}.ckpt", weights_only=False
        )
        expected = [batch for epoch in epochs_of(made, 3) for batch in epoch]
        assert resumed.seen == expected[step:], f"after {step} steps"
