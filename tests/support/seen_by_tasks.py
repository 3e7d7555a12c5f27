"""Tasks of Lightning that write down what they see, and a program that runs one on the ranks that Lightning starts itself.

python seen_by_tasks.py '{"plan": PATH, "out": FOLDER, "devices": 2, ...}'
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Lightning and torch warn of each other
    import lightning
    from lightning.pytorch.callbacks import ModelCheckpoint

from tensorbank import Plan
from tensorbank_lightning import TensorBankDataModule
from tensorbank_loader import DataLoader, World

SIZE, SEED = 4, 3
N_STEPS = 5
"""The steps of an epoch of 23 samples: a last batch that is shorter is left out."""


def data_of(plan: Plan, **more: Any) -> TensorBankDataModule:
    return TensorBankDataModule(
        "unused",
        **{
            "train": plan,
            "mask": "LULC",
            "global_batch_size": SIZE,
            "batch_size": SIZE,
            "seed": SEED,
            **more,
        },
    )


def epochs_of(plan: Plan, n: int) -> list[list[list[str]]]:
    """Return the global batches of the first epochs, by the loader alone."""
    with DataLoader(plan, batch_size=SIZE, seed=SEED, drop_last=True, world=World()) as alone:
        return [[list(b["sample_id"]) for b in alone] for _ in range(n)]


class Task(lightning.LightningModule):
    """A task that learns nothing.

    Parameters
    ----------
    out
        Folder where each rank writes what it has seen, at the end of a training.
    """

    def __init__(self, out: Path | None = None) -> None:
        super().__init__()
        self.out = out
        self.layer = torch.nn.Linear(4, 1)
        self.seen: list[list[str]] = []
        self.tested: list[list[str]] = []
        self.validated: list[list[list[str]]] = []
        self.keys: set[tuple[str, ...]] = set()

    def training_step(self, batch: dict[str, Any], _: int) -> torch.Tensor:
        self.seen.append(list(batch["filename"]["S2"]))
        self.keys.add(tuple(sorted(batch)))
        return self.layer(batch["image"]["S2"].mean((2, 3))).square().mean()

    def on_validation_epoch_start(self) -> None:
        self.validated.append([])

    def validation_step(self, batch: dict[str, Any], _: int) -> None:
        self.validated[-1].append(list(batch["filename"]["S2"]))

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.tested.append(list(batch["filename"]["S2"]))

    def predict_step(self, batch: dict[str, Any], _: int) -> list[str]:
        return list(batch["filename"]["S2"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-6)

    def on_train_end(self) -> None:
        if self.out is not None:
            sanity, validated, *_ = self.validated
            told = {"seen": self.seen, "sanity": sanity, "validated": validated}
            (self.out / f"{self.global_rank}.json").write_text(json.dumps(told))


def trainer_of(folder: Path, **options: Any) -> Any:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return lightning.Trainer(
        **{"default_root_dir": folder, "accelerator": "cpu", "devices": 1, **quiet, **options}
    )


def main() -> None:
    told = json.loads(sys.argv[1])
    plan, out, checkpoint = (Path(told.pop(name)) for name in ("plan", "out", "checkpoint"))
    every = ModelCheckpoint(checkpoint.parent, checkpoint.stem, every_n_train_steps=told["max_steps"])
    trainer = trainer_of(out, callbacks=[every], **told)
    data = data_of(Plan.load(plan), val=Plan.load(plan), batch_size=SIZE // told["devices"])
    trainer.fit(Task(out), datamodule=data)


if __name__ == "__main__":
    main()
