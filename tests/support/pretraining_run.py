"""A run of the recipe small enough for tests: 29 samples of 12 x 10 pixels and tokens of two crops of each."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist

from support.handmade import Handmade, make
from tensorbank import Band, Modality, Normalization, Plan, TensorBankError
from tensorbank.plans.handle import Handle
from tensorbank_loader.terramind import Crop
from tensorbank_pretraining import InputPixels, ModelSize, Recipe, TokenModality
from tensorbank_pretraining.training import TrainingRun, train

PIXELS = Handle(
    "S2L2A", Modality("S2L2A", "int16", tuple(Band(f"b{i}") for i in range(2)), 1, 12, 10), (0, 1)
)
TOKENS = Handle(
    "tokens", Modality("tokens", "uint8", tuple(Band(f"b{i}") for i in range(2)), 1, 2, 2), (0, 1)
)
N = 29
RECIPE = Recipe(
    pixels=(InputPixels("S2L2A", 2),),
    tokens=(TokenModality("tokens", 200),),
    crops=(Crop(0, 1), Crop(4, 2, flip=True)),
    crop_size=8,
    patch=4,
    n_input=3,
    n_target=2,
    global_batch_size=5,
    n_steps=12,
    warmup_steps=3,
    seed=4,
)
SIZE = ModelSize(32, 2, 2, 1)
CONSTANTS = {"S2L2A": Normalization((100.0, 100.0), (60.0, 60.0))}


def made(folder: Path) -> Handmade:
    """Write the samples."""
    return make(folder, N, handles=(PIXELS, TOKENS))


def run_of(plan: Plan, folder: Path, **more: Any) -> TrainingRun:
    """Return a run; ``n_steps`` ends it early, as a run of the same recipe that is interrupted there."""
    given: dict[str, Any] = {"checkpoint_steps": 4, **more}
    return TrainingRun(RECIPE, SIZE, plan, folder, CONSTANTS, **given)


def rank(number: int, n_ranks: int, plan: Path, folder: Path, port: int, more: dict[str, Any]) -> None:
    """Run one of some ranks, in a process of its own."""
    os.environ |= {"RANK": str(number), "WORLD_SIZE": str(n_ranks)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    recipe = replace(RECIPE, **more.pop("recipe", {}))
    dist.init_process_group("gloo", rank=number, world_size=n_ranks)
    try:
        train(replace(run_of(Plan.load(plan), folder, **more), recipe=recipe))
    finally:
        dist.destroy_process_group()


def rank_told(number: int, n_ranks: int, plans: list[Path], folder: Path, port: int) -> None:
    """Run one of some ranks, each with a plan of its own, and write the error that ends it to ``told-RANK``."""
    try:
        rank(number, n_ranks, plans[number], folder, port, {})
    except TensorBankError as error:
        (folder / f"told-{number}").write_text(f"{error.kind}: {error}")


def numbers(folder: Path) -> np.ndarray:
    """Return steps and losses, (steps, 2)."""
    head, *lines = (folder / "losses.csv").read_text().splitlines()
    place = head.split(",").index("loss")
    return np.array([[float(line.split(",")[0]), float(line.split(",")[place])] for line in lines])


def seen(folder: Path) -> dict[int, list[str]]:
    """Return the ids of each step, rank after rank."""
    found: dict[int, dict[int, list[str]]] = {}
    for path in folder.glob("seen-*.jsonl"):
        for line in path.read_text().splitlines():
            told = json.loads(line)
            found.setdefault(told["step"], {})[told["rank"]] = told["ids"]
    return {step: [n for r in sorted(ranks) for n in ranks[r]] for step, ranks in sorted(found.items())}
