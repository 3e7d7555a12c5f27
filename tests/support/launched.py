"""One rank of a run as a program: makes its loader first, as users do, and writes down what it had.

python launched.py MODE PLAN OUT [RANK]
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed

from tensorbank import InvalidInputError, Plan
from tensorbank_loader import DataLoader, StreamingDataset, World

BATCH_SIZE = 4


def ids(batch: dict[str, Any]) -> list[str]:
    return list(batch["sample_id"])


def by_environment(plan: Plan, _: str) -> dict[str, Any]:
    """Read an epoch without a process group, by the launcher's variables alone."""
    with DataLoader(plan, batch_size=BATCH_SIZE, seed=1) as loader:
        had = [ids(b) for b in loader]
        return {"rank": loader.world.rank, "had": had}


def by_group(plan: Plan, rank: str) -> dict[str, Any]:
    """A process group that no variable tells of, and workers that see nothing of it."""
    loader = torch.utils.data.DataLoader(
        StreamingDataset(plan, global_batch_size=2 * BATCH_SIZE, seed=1),
        batch_size=None,
        num_workers=2,
        multiprocessing_context="forkserver",
        timeout=100,
    )
    place = Path(os.environ["MEETING_PLACE"]).as_uri()
    torch.distributed.init_process_group("gloo", init_method=place, rank=int(rank), world_size=2)
    had = [ids(b) for b in loader]
    other = DataLoader(plan, batch_size=BATCH_SIZE, world=World())
    try:
        next(iter(other))
    except InvalidInputError as error:
        refused = error.kind
    everything = DataLoader(plan, batch_size=BATCH_SIZE, world=World(subgroup=True), seed=1)
    mine = World.of_group(torch.distributed.group.WORLD)
    share = DataLoader(plan, batch_size=BATCH_SIZE, world=mine, seed=1)
    return {
        "rank": int(rank),
        "had": had,
        "refused": refused,
        "everything": len(list(everything)),
        "share": [ids(b) for b in share],
    }


def by_lightning(plan: Plan, out: str) -> dict[str, Any]:
    """Start this program again for rank 1 when it fits, by Lightning's own launcher."""
    import lightning

    loader = DataLoader(plan, batch_size=BATCH_SIZE, seed=1)
    validation = StreamingDataset(plan, global_batch_size=2 * BATCH_SIZE, shuffle=None)
    seen: dict[str, list[list[str]]] = {"had": [], "sanity": [], "validated": []}

    class Model(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)

        def training_step(self, batch: dict[str, Any], _: int) -> torch.Tensor:
            seen["had"].append(ids(batch))
            return self.layer(batch["S2"].float().mean((2, 3))).square().mean()

        def validation_step(self, batch: dict[str, Any], _: int) -> None:
            seen["sanity" if self.trainer.sanity_checking else "validated"].append(ids(batch))

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=1e-6)

    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=out,
    )
    trainer.fit(Model(), loader, torch.utils.data.DataLoader(validation, batch_size=None))
    loader.close()
    return {"rank": trainer.global_rank, **seen}


def by_accelerate(plan: Plan, _: str) -> dict[str, Any]:
    """Read as accelerate prepares a loader: shared out a second time; as it is meant; and left out."""
    from accelerate import Accelerator, DataLoaderConfiguration

    accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(dispatch_batches=False))
    numbers = plan.without("sample_id")
    found: dict[str, Any] = {"rank": accelerator.process_index, "warned": []}
    for name, world in (("prepared", None), ("meant", World(subgroup=True))):
        loader = torch.utils.data.DataLoader(
            StreamingDataset(numbers, seed=1, world=world), batch_size=BATCH_SIZE
        )
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            batches = list(accelerator.prepare(loader))
        found[name] = [b["count"].tolist() for b in batches]
        found["warned"].append(sum("accelerate's" in str(w.message) for w in warned))
    dispatching = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(dispatch_batches=True))
    floats = StreamingDataset(
        numbers, seed=1, transform=lambda s: {"S2": s["S2"].float(), "count": s["count"]}
    )
    loader = torch.utils.data.DataLoader(floats, batch_size=BATCH_SIZE)  # gloo sends no int16
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found["dispatched"] = [b["count"].tolist() for b in dispatching.prepare(loader)]
    with DataLoader(plan, batch_size=BATCH_SIZE, seed=1) as ours:
        found["had"] = [ids(b) for b in accelerator.prepare(ours)]
    return found


MODES = {
    "environment": by_environment,
    "group": by_group,
    "lightning": by_lightning,
    "accelerate": by_accelerate,
}


def main() -> None:
    mode, plan, out, *rest = sys.argv[1:]
    found = MODES[mode](Plan.load(plan), rest[0] if rest else out)
    (Path(out) / f"{found['rank']}.json").write_text(json.dumps(found))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
