"""A training run on any number of ranks, under torchrun or plain srun, that goes on from its last checkpoint.

The model is a stand-in: put your own into :func:`make_model` and :func:`loss_of`. The rest is what a run needs: ranks that find
each other, one order of samples whatever their number, and a checkpoint that has the place in the data beside the weights.

Status 75 says that the run was asked to stop (SIGTERM or SIGUSR1), has saved, and is to be started again.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import tensorbank as tb

AGAIN = 75
"""Exit status of a run that is to be started again (EX_TEMPFAIL of sysexits.h)."""
LOG = logging.getLogger("train")


def make_model(n_bands: int) -> torch.nn.Module:
    """Make the model, the same on all ranks."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(n_bands, 8, 3, stride=4), torch.nn.GELU(), torch.nn.Conv2d(8, n_bands, 1)
    )


def loss_of(model: torch.nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """Return the loss of a batch, (n, band, y, x)."""
    means = pixels.mean((2, 3))
    return (model(pixels).mean((2, 3)) - means).square().mean()


def join_ranks() -> tuple[int, int, torch.device]:
    """Join the other ranks, as torchrun or srun started them; return rank, number of ranks, and device."""
    if "RANK" not in os.environ and "SLURM_PROCID" in os.environ:
        names = {"RANK": "SLURM_PROCID", "WORLD_SIZE": "SLURM_NTASKS", "LOCAL_RANK": "SLURM_LOCALID"}
        os.environ.update({name: os.environ[slurm] for name, slurm in names.items()})
    for name, alone in (
        ("RANK", "0"),
        ("WORLD_SIZE", "1"),
        ("MASTER_ADDR", "127.0.0.1"),
        ("MASTER_PORT", "29400"),
    ):
        os.environ.setdefault(name, alone)
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return dist.get_rank(), dist.get_world_size(), device


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint; the one before stays until this is whole."""
    torch.save(state, folder / "last.part")
    (folder / "last.part").replace(folder / "last.pt")


def main() -> int:
    """Train; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bank", required=True, help="Address of a service, or URL of a bank.")
    parser.add_argument("--table", required=True)
    parser.add_argument(
        "--where", help="Condition on samples, such as `cloud_cover < 0.1`; all if not given."
    )
    parser.add_argument("--select", required=True, help="Modality, with bands if not all: `S2L2A[B04,B08]`.")
    parser.add_argument("--checkpoints", required=True, type=Path, help="Folder that all nodes see.")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=64, help="Samples a step, of all ranks together.")
    parser.add_argument("--save-every", type=int, default=100, help="Steps between two checkpoints.")
    options = parser.parse_args()
    logging.basicConfig(level="INFO", format="%(asctime)s %(message)s")
    stops: list[int] = []
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda n, _: stops.append(n))

    rank, n_ranks, device = join_ranks()
    options.checkpoints.mkdir(parents=True, exist_ok=True)
    bank = tb.open(options.bank, key=os.environ.get("TENSORBANK_KEY"))
    query = bank.query(options.table).select("sample_id", options.select)
    if options.where:
        query = query.where(options.where)
    last = options.checkpoints / "last.pt"
    known = torch.load(last, map_location=device) if last.exists() else None
    with query.dataloader(global_batch_size=options.batch_size, seed=7, drop_last=True) as loader:
        modality = loader.plan.handles[0]
        model = DistributedDataParallel(make_model(len(modality.bands)).to(device))
        optimizer = torch.optim.AdamW(model.parameters())
        step = 0
        if known is not None:
            model.module.load_state_dict(known["model"])
            optimizer.load_state_dict(known["optimizer"])
            loader.load_state_dict(json.loads(known["loader"]))
            step = known["step"]
            LOG.info("rank %d of %d goes on at step %d", rank, n_ranks, step)

        def checkpoint() -> None:
            if rank == 0:
                state = {"model": model.module.state_dict(), "optimizer": optimizer.state_dict()}
                save(options.checkpoints, state | {"loader": json.dumps(loader.state_dict()), "step": step})
            dist.barrier()

        first = 0 if known is None else json.loads(known["loader"])["epoch"]
        for epoch in range(first, options.epochs):
            loader.set_epoch(epoch)
            for batch in loader:
                pixels = batch[modality.name].to(device, torch.float32).flatten(1, -3) / 10_000
                loss = loss_of(model, pixels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
                # ranks stop at the same step, whichever was told
                asked = torch.tensor([len(stops)], device=device)
                dist.all_reduce(asked, dist.ReduceOp.MAX)
                if asked.item():
                    checkpoint()
                    LOG.info("rank %d stops after step %d", rank, step)
                    dist.destroy_process_group()
                    return AGAIN
                if step % options.save_every == 0:
                    checkpoint()
                    LOG.info("step %d loss %.6f", step, loss.item())
        checkpoint()
    LOG.info("rank %d is done after step %d", rank, step)
    dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
