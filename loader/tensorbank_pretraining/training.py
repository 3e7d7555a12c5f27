"""The training loop: batches of a plan, steps of an optimiser, checkpoints of both, and a log."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from tensorbank import Normalization, Plan
from tensorbank.errors import ErrorKind, TensorBankError
from tensorbank_loader import DataLoader, Normalize, World
from tensorbank_loader.terramind import ModDict
from tensorbank_pretraining.checkpoints import Checkpoints
from tensorbank_pretraining.masked_model import MaskedModel, ModelSize
from tensorbank_pretraining.plan_fit import require_fit
from tensorbank_pretraining.recipe import Recipe
from tensorbank_pretraining.terramind_model import TerraMindModel, TerraMindSize

__all__ = ["Parallel", "TrainingRun", "train"]

Parallel = Literal["ddp", "fsdp"]
TRANSFORM_AHEAD = 2
"""The number of batches that are cropped and masked while the model works: one to hand over, and one against a late read."""


@dataclass(frozen=True)
class TrainingRun:
    """The values by which a rank runs a recipe.

    Parameters
    ----------
    recipe, size
        What is trained.
    plan
        Plan with the modalities of the recipe and ``sample_id``, the same on all ranks.
    folder
        Folder of checkpoints and logs, which all ranks see. A run whose folder has a checkpoint goes on from it.
    constants
        Constants of normalisation by name of pixels.
    parallel
        Way in which ranks share the model.
    device
        Device of this rank.
    checkpoint_steps
        Steps from one checkpoint to the next; there is one at the end in any case.
    step_s
        Seconds that each forward pass takes at least, for measurements.
    """

    recipe: Recipe
    size: ModelSize | TerraMindSize
    plan: Plan
    folder: Path
    constants: Mapping[str, Normalization] = field(default_factory=dict)
    parallel: Parallel = "ddp"
    device: str = "cpu"
    checkpoint_steps: int = 100
    step_s: float = 0.0


def train(run: TrainingRun) -> None:
    """Run a recipe to its last step, from the newest checkpoint of its folder if there is one. Every rank calls it.

    Raises
    ------
    TensorBankError
        The loss is no number (kind ``not-finite``).
    InvalidInputError
        The plan does not fit the recipe, a token is beyond its vocabulary, the checkpoint is of another plan, recipe or model, or
        ranks differ.
    """
    recipe, device = run.recipe, torch.device(run.device)
    require_fit(run.plan, recipe)
    model = run.size.model(recipe).to(device)
    whole = _shared(model, run.parallel)
    optimizer = torch.optim.AdamW(
        whole.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=recipe.weight_decay
    )
    average = {n: p.detach().clone() for n, p in model.named_parameters()} if recipe.ema_decay else {}
    transform = nn.Sequential(
        *([Normalize(run.plan, dict(run.constants), fill=0.0)] if run.constants else []),
        ModDict(
            recipe.budget(),
            names={n: n for n in recipe.names},
            crops=recipe.crop_settings(),
            vocabularies={t.name: t.vocabulary for t in recipe.tokens},
        ),
    )
    checkpoints = Checkpoints(run.folder)
    identity = f"{recipe.digest}-{run.size.label}"
    options: dict[str, Any] = {
        "global_batch_size": recipe.global_batch_size,
        "seed": recipe.seed,
        "drop_last": True,
        "budget": recipe.budget(),
        "transform": transform,
        "transform_ahead": TRANSFORM_AHEAD,
        "device": device,
    }
    run.folder.mkdir(parents=True, exist_ok=True)
    log = _Log(run.folder)
    with DataLoader(run.plan, **options) as loader:
        step = 0
        if (place := checkpoints.newest()) is not None:
            told = checkpoints.load(place, model, optimizer, average, identity)
            loader.load_state_dict(told["loader"])
            step = int(told["step"])
            log.cut(step)
        batches = _endless(loader)
        while step < recipe.n_steps:
            rate = recipe.rate_at(step)
            for group in optimizer.param_groups:
                group["lr"] = rate
            begun, waited_s, n_samples = time.perf_counter(), _waited_s(loader), 0
            losses: dict[str, float] = {}
            ids: list[str] = []
            optimizer.zero_grad(set_to_none=True)
            for part in range(recipe.accumulate):
                batch = next(batches)
                ids += batch["sample_id"]
                n_samples += recipe.global_batch_size
                last = part == recipe.accumulate - 1
                for name, value in _forward(run, whole, batch, loader.world, synchronises=last).items():
                    losses[name] = losses.get(name, 0.0) + value / recipe.accumulate
            norm = nn.utils.clip_grad_norm_(whole.parameters(), recipe.clip_norm)
            optimizer.step()
            _follow(average, model, recipe.ema_decay)
            step += 1
            elapsed_s = time.perf_counter() - begun
            log.write(
                step,
                ids,
                loader.world,
                {
                    "epoch": loader.state_dict()["epoch"],
                    "learning_rate": rate,
                    "gradient_norm": float(norm),
                    "samples_per_s": n_samples / elapsed_s,
                    "wait_share": (_waited_s(loader) - waited_s) / elapsed_s,
                    **losses,
                },
            )
            if step % run.checkpoint_steps == 0 or step == recipe.n_steps:
                said = {
                    "step": step,
                    "recipe": identity,
                    "loader": loader.state_dict(),
                    "values": asdict(recipe),
                }
                checkpoints.save(step, model, optimizer, average, said)


def _shared(model: MaskedModel | TerraMindModel, parallel: Parallel) -> nn.Module:
    """Return the model as ranks share it: replicas, or a shard of every parameter on each."""
    if not dist.is_initialized():
        return model
    if parallel == "ddp":
        return DistributedDataParallel(model)
    for block in (*model.encoder, *model.decoder):
        fully_shard(block)
    fully_shard(model)  # in place
    return model


def _forward(
    run: TrainingRun, model: nn.Module, batch: Mapping[str, Any], world: World, *, synchronises: bool
) -> dict[str, float]:
    """Add the gradients of one batch, and return its losses.

    The loss is the mean over modalities of the mean over all targets of all ranks, whichever rank has how many, so that
    ranks of any number train as one does.
    """
    recipe = run.recipe
    begun = time.perf_counter()
    precise = recipe.precision == "float32"
    casts = nullcontext() if precise else torch.autocast(torch.device(run.device).type, torch.bfloat16)
    with ExitStack() as stack:
        if not synchronises and isinstance(model, DistributedDataParallel):
            stack.enter_context(model.no_sync())
        with casts:
            totals, counts = model(batch["mod_dict"])
        if not torch.isfinite(totals).all():
            raise TensorBankError(
                f"the loss is {totals.sum().item()} on rank {world.rank}, of the samples "
                f"{', '.join(map(str, batch['sample_id']))}; look at them with tensorbank verify, or lower the learning rate",
                kind=ErrorKind.NOT_FINITE,
            )
        weights = 1.0 / (_summed(counts).clamp(min=1) * len(counts))
        # Ranks' gradients are averaged, and it is their sum that is wanted.
        ((totals * weights).sum() * world.n_ranks / recipe.accumulate).backward()
    if (left_s := run.step_s - (time.perf_counter() - begun)) > 0:
        time.sleep(left_s)
    means = (_summed(totals.detach()) * weights).tolist()
    names = [t.name for t in recipe.tokens]
    return {"loss": sum(means), **{f"loss_{n}": m * len(names) for n, m in zip(names, means, strict=True)}}


def _summed(values: torch.Tensor) -> torch.Tensor:
    """Return the sum of a tensor over all ranks."""
    found = values.clone()
    if dist.is_initialized():
        dist.all_reduce(found)
    return found


@torch.no_grad()
def _follow(average: Mapping[str, torch.Tensor], model: nn.Module, decay: float) -> None:
    """Move the average towards the parameters."""
    for name, parameter in model.named_parameters() if average else ():
        average[name].lerp_(parameter.detach(), 1.0 - decay)


def _waited_s(loader: DataLoader) -> float:
    """Return the seconds so far in which the loop had no batch in hand: it waited for one, or made it."""
    stats = loader.stats()
    return stats.wait_s + stats.transform_s


def _endless(loader: DataLoader) -> Iterator[Mapping[str, Any]]:
    while True:
        yield from loader


class _Log:
    """The log of a run: ``losses.csv`` of rank 0, and the ids that each rank has had, step by step.

    What a run wrote after the checkpoint from which it goes on is cut off: those steps come again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rank = dist.get_rank() if dist.is_initialized() else 0

    def write(self, step: int, ids: list[str], world: World, values: Mapping[str, float]) -> None:
        seen = {"step": step, "rank": world.rank, "n_ranks": world.n_ranks, "ids": ids}
        with (self.folder / f"seen-{world.rank}.jsonl").open("a") as out:
            out.write(json.dumps(seen) + "\n")
        if world.rank:
            return
        path = self.folder / "losses.csv"
        begins = not path.exists()
        with path.open("a", newline="") as out:
            table = csv.writer(out)
            if begins:
                table.writerow(["step", *values])
            table.writerow([step, *(f"{value:.6g}" for value in values.values())])

    def cut(self, step: int) -> None:
        """Drop what is later than a step."""
        if self.rank == 0:
            for path in self.folder.glob("seen-*.jsonl"):
                lines = [line for line in path.read_text().splitlines() if json.loads(line)["step"] <= step]
                _replace(path, "".join(f"{line}\n" for line in lines))
            path = self.folder / "losses.csv"
            if path.exists():
                head, *lines = path.read_text().splitlines()
                kept = [line for line in lines if int(line.split(",")[0]) <= step]
                _replace(path, "".join(f"{line}\n" for line in (head, *kept)))
        if dist.is_initialized():
            dist.barrier()


def _replace(path: Path, text: str) -> None:
    half = path.with_suffix(".half")
    half.write_text(text)
    half.replace(path)
