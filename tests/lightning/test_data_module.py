"""The data module in real Trainers on the processor: what Lightning does by itself comes out right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

from support import SUPPORT, WITH_SUPPORT
from support.handmade import HANDLES, Handmade, make
from support.seen_by_tasks import N_STEPS, SIZE, Task, data_of, epochs_of, trainer_of
from tensorbank import InvalidInputError, Plan
from tensorbank_lightning import TensorBankDataModule

# Lightning and torch warn of each other.
pytestmark = [pytest.mark.filterwarnings("ignore")]

N = 23
CHOSEN = (HANDLES[0], HANDLES[4])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Handmade:
    return make(tmp_path_factory.mktemp("part"), N, handles=CHOSEN)


@pytest.fixture(scope="module")
def epochs(made: Handmade) -> list[list[list[str]]]:
    """The batches of the first epochs, by the loader alone."""
    return epochs_of(made.plan, 5)


def in_order(plan: Plan) -> list[list[str]]:
    ids = plan.table["sample_id"].to_pylist()
    return [ids[i : i + SIZE] for i in range(0, N, SIZE)]


def flat(batches: list[list[list[str]]]) -> list[list[str]]:
    return list(chain(*batches))


def test_a_task_sees_epoch_after_epoch_and_nothing_but_what_it_takes(made, epochs, tmp_path):
    task = Task()
    trainer_of(tmp_path, max_epochs=3, enable_checkpointing=False).fit(task, datamodule=data_of(made.plan))
    assert task.seen == flat(epochs[:3])
    assert task.keys == {("filename", "image", "mask")}


def test_the_sanity_check_takes_nothing_from_training_or_validation(made, epochs, tmp_path):
    task = Task()
    data = data_of(made.plan, val=made.plan)
    trainer_of(tmp_path, max_epochs=2, enable_checkpointing=False).fit(task, datamodule=data)
    assert task.seen == flat(epochs[:2])
    whole = in_order(made.plan)
    assert task.validated == [whole[:2], whole, whole]


@pytest.mark.parametrize(("limit", "n"), [(2, 2), (0.5, 2), (4, 4)])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_limited_epochs_go_through_all_samples_one_part_after_the_other(
    made, epochs, tmp_path, limit, n, num_workers
):
    task = Task()
    data = data_of(made.plan, val=made.plan, num_workers=num_workers)
    options = {"limit_train_batches": limit, "limit_val_batches": limit, "num_sanity_val_steps": 0}
    trainer_of(tmp_path, max_epochs=4, enable_checkpointing=False, **options).fit(task, datamodule=data)
    assert task.seen == flat(epochs)[: 4 * n]
    n_val = int(limit * 6) if isinstance(limit, float) else limit
    assert task.validated == [in_order(made.plan)[:n_val]] * 4


def test_overfitting_sees_the_same_first_batches_in_the_order_of_the_query(made, tmp_path):
    task = Task()
    data = data_of(made.plan, val=made.plan)
    options = {"overfit_batches": 2, "num_sanity_val_steps": 0}
    trainer_of(tmp_path, max_epochs=3, enable_checkpointing=False, **options).fit(task, datamodule=data)
    assert task.seen == in_order(made.plan)[:2] * 3
    assert task.validated == [in_order(made.plan)[:2]] * 3


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_run_goes_on_at_any_step_with_what_it_would_have_had(made, epochs, tmp_path, num_workers):
    from lightning.pytorch.callbacks import ModelCheckpoint

    every_step = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    task = Task()
    data = data_of(made.plan, num_workers=num_workers)
    trainer_of(tmp_path, max_epochs=2, callbacks=[every_step]).fit(task, datamodule=data)
    assert task.seen == flat(epochs[:2])
    for step in (1, 3, N_STEPS, N_STEPS + 1) if num_workers == 0 else (3, N_STEPS):
        resumed = Task()
        trainer = trainer_of(tmp_path, max_epochs=3, enable_checkpointing=False)
        data = data_of(made.plan, num_workers=num_workers)
        trainer.fit(resumed, datamodule=data, ckpt_path=tmp_path / f"step={step}.ckpt", weights_only=False)
        assert resumed.seen == flat(epochs[:3])[step:], f"after {step} steps"


def test_a_limited_run_goes_on_where_it_was(made, epochs, tmp_path):
    from lightning.pytorch.callbacks import ModelCheckpoint

    every_step = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    options = {"limit_train_batches": 3}
    trainer = trainer_of(tmp_path, max_epochs=3, callbacks=[every_step], **options)
    trainer.fit(Task(), datamodule=data_of(made.plan))
    for step in (2, 3, 5, 7):
        resumed = Task()
        trainer = trainer_of(tmp_path, max_epochs=4, enable_checkpointing=False, **options)
        trainer.fit(
            resumed,
            datamodule=data_of(made.plan),
            ckpt_path=tmp_path / f"step={step}.ckpt",
            weights_only=False,
        )
        assert resumed.seen == flat(epochs)[step:12], f"after {step} steps"


def test_a_checkpoint_has_the_place_once_and_lineage_finds_it(made, tmp_path):
    import torch

    from tensorbank_loader.lineages.checkpoint import states_in

    trainer = trainer_of(tmp_path, max_steps=3, enable_checkpointing=False)
    trainer.fit(Task(), datamodule=data_of(made.plan))
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    saved = torch.load(tmp_path / "one.ckpt", weights_only=True)
    assert saved["loops"]["fit_loop"]["state_dict"]["combined_loader"] == [{}]
    assert saved["TensorBankDataModule"]["train"]["position"] == 3
    (state,) = states_in(tmp_path / "one.ckpt")
    assert (state["epoch"], state["position"]) == (0, 3)


def test_a_checkpoint_that_is_saved_after_a_training_has_its_place(made, epochs, tmp_path):
    trainer = trainer_of(tmp_path, max_epochs=1, enable_checkpointing=False)
    trainer.fit(Task(), datamodule=data_of(made.plan))
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    task = Task()
    trainer = trainer_of(tmp_path, max_epochs=2, enable_checkpointing=False)
    trainer.fit(task, datamodule=data_of(made.plan), ckpt_path=tmp_path / "one.ckpt", weights_only=False)
    assert task.seen == epochs[1]


def test_a_test_of_a_checkpoint_does_not_move_the_next_training(made, epochs, tmp_path):
    data = data_of(made.plan, test=made.plan)
    trainer = trainer_of(tmp_path, max_steps=3)
    trainer.fit(Task(), datamodule=data)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    task = Task()
    trainer.test(task, datamodule=data, ckpt_path=tmp_path / "one.ckpt", weights_only=False)
    assert task.tested == in_order(made.plan)
    trainer_of(tmp_path, max_epochs=1, enable_checkpointing=False).fit(task, datamodule=data)
    assert task.seen == epochs[0]


def test_a_state_of_another_plan_is_refused(made, tmp_path):
    trainer = trainer_of(tmp_path, max_steps=3)
    trainer.fit(Task(), datamodule=data_of(made.plan))
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    trainer = trainer_of(tmp_path, max_epochs=1)
    with pytest.raises(InvalidInputError, match="this state has fingerprint"):
        trainer.fit(
            Task(),
            datamodule=data_of(made.plan.take(range(12))),
            ckpt_path=tmp_path / "one.ckpt",
            weights_only=False,
        )


def test_loaders_that_are_asked_for_anew_go_on(made, epochs, tmp_path):
    task = Task()
    trainer = trainer_of(
        tmp_path, max_epochs=3, enable_checkpointing=False, reload_dataloaders_every_n_epochs=1
    )
    trainer.fit(task, datamodule=data_of(made.plan, val=made.plan))
    assert task.seen == flat(epochs[:3])


def test_predictions_come_in_the_order_of_the_query_without_a_mask(made, tmp_path):
    with pytest.raises(
        InvalidInputError, match="does not select epsg, bounds; begin it with SELECT sample_id"
    ):
        trainer_of(tmp_path).predict(Task(), datamodule=data_of(made.plan, predict=made.plan))


def test_what_makes_no_sense_is_refused(made):
    with pytest.raises(InvalidInputError, match="the query of a split at least"):
        TensorBankDataModule("bank")
    with pytest.raises(InvalidInputError, match="batch_size"):
        TensorBankDataModule("bank", made.plan, batch_size=0)
    with pytest.raises(InvalidInputError, match="no query of the split 'train'"):
        TensorBankDataModule("bank", val=made.plan).train_dataloader()


# Ranks, as Lightning starts them itself.


@pytest.fixture
def run(made: Handmade, tmp_path: Path) -> Iterator[object]:
    """A function that runs the program of one rank, which starts the others, and returns what each has seen."""
    plan = made.plan.save(tmp_path / "plan.arrow")

    def started(name: str, **options: object) -> list[dict]:
        out = tmp_path / name
        out.mkdir()
        told = json.dumps({"plan": str(plan), "out": str(out), **options})
        prefixes = ("SLURM_", "OMPI_", "PMI_", "RANK", "WORLD_SIZE", "LOCAL_RANK", "NODE_RANK", "MASTER_")
        env = {k: v for k, v in WITH_SUPPORT.items() if not k.startswith(prefixes)} | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-W", "ignore", SUPPORT / "seen_by_tasks.py", told],
            env=env,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return [json.loads(path.read_text()) for path in sorted(out.glob("*.json"))]

    yield started
    assert "RANK" not in os.environ


def together(ranks: list[dict], what: str) -> list[list[str]]:
    """Return the shares of ranks as global batches."""
    return [list(chain(*shares)) for shares in zip(*(r[what] for r in ranks), strict=True)]


@pytest.mark.slow
@pytest.mark.timeout(280)
@pytest.mark.parametrize("strategy", ["ddp", pytest.param("ddp_spawn", marks=pytest.mark.thorough)])
def test_two_ranks_share_each_batch_and_one_goes_on_for_them(made, epochs, tmp_path, run, strategy):
    ranks = run("two", devices=2, strategy=strategy, max_steps=8, checkpoint=str(tmp_path / "two.ckpt"))
    assert len(ranks) == 2
    assert together(ranks, "seen") == flat(epochs[:2])[:8]
    assert all(len(share) == SIZE // 2 for rank in ranks for share in rank["seen"])
    whole = in_order(made.plan)
    assert together(ranks, "sanity") == whole[:2]
    assert together(ranks, "validated") == whole
    resumed = Task()
    trainer_of(tmp_path, max_epochs=3, enable_checkpointing=False).fit(
        resumed, datamodule=data_of(made.plan), ckpt_path=tmp_path / "two.ckpt", weights_only=False
    )
    assert resumed.seen == flat(epochs[:3])[8:]
