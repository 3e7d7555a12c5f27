"""A training program: a tiny model on all ranks of a process group, which goes on where its checkpoint stands.

python train.py BANK FOLDER [--wrap ddp|fsdp] [--n-epochs N] [--pause SECONDS] [--hold STEP] [--late SECONDS]

The checkpoint is replaced after each step, whole, by rank 0: the position of the loader, the weights, the samples of each global
batch so far in the order of the ranks, and the number of ranks of each step.
"""

from __future__ import annotations

import argparse
import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    set_model_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import tensorbank as tb

SQL = "SELECT sample_id, S2 FROM t"
GLOBAL_BATCH_SIZE = 10
WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def tiny_model() -> torch.nn.Module:
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))


def wrapped(model: torch.nn.Module, wrap: str) -> torch.nn.Module:
    if wrap == "ddp":
        return DistributedDataParallel(model)
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in (model[0], model[2], model):
        fully_shard(layer, mesh=mesh)
    return model


def loss_of(model: torch.nn.Module, batch: dict[str, Any]) -> torch.Tensor:
    """Return this rank's part of the mean over the global batch, however it is shared; ranks are averaged afterwards."""
    pixels = batch["S2"].float().mean((1, 3, 4)) / 100
    return (model(pixels) - 1).square().sum() * dist.get_world_size() / GLOBAL_BATCH_SIZE


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bank")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--wrap", default="ddp")
    parser.add_argument("--n-epochs", type=int, default=1)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument(
        "--hold", type=int, default=-1, help="wait in front of this step until the file 'go' is there"
    )
    parser.add_argument(
        "--late",
        type=float,
        default=0.0,
        help="seconds that rank 0 comes later than others, once it is started again",
    )
    given = parser.parse_args()
    if os.environ.get("RANK") == "0" and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0":
        time.sleep(given.late)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=90))
    rank, n_ranks = dist.get_rank(), dist.get_world_size()
    path = given.folder / "checkpoint.pt"
    model = wrapped(tiny_model(), given.wrap)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    had: list[list[str]] = []
    sizes: list[int] = []
    with tb.open(given.bank).sql(SQL).dataloader(global_batch_size=GLOBAL_BATCH_SIZE, seed=9) as loader:
        if path.exists():
            saved = torch.load(path, weights_only=True)
            loader.load_state_dict(saved["loader"])
            set_model_state_dict(model, saved["model"], options=WHOLE)
            had, sizes = saved["had"], saved["sizes"]
        while loader.state_dict()["epoch"] < given.n_epochs:
            for batch in loader:
                if len(had) == given.hold:
                    while not (given.folder / "go").exists():
                        time.sleep(0.05)
                loss_of(model, batch).backward()
                optimizer.step()
                optimizer.zero_grad()
                shares: list[list[str]] = [[]] * n_ranks
                dist.all_gather_object(shares, list(batch["sample_id"]))
                had.append([name for share in shares for name in share])
                sizes.append(n_ranks)
                whole = get_model_state_dict(model, options=WHOLE)
                if rank == 0:
                    new = path.with_suffix(".new")
                    torch.save(
                        {"loader": loader.state_dict(), "model": whole, "had": had, "sizes": sizes}, new
                    )
                    new.replace(path)
                time.sleep(given.pause)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
