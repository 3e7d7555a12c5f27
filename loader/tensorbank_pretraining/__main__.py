"""Run the recipe: ``torchrun --nproc-per-node 2 -m tensorbank_pretraining BANK SQL --tokens LULC_tokens:16 --folder RUN``.

Ranks are found as torchrun, srun and mpirun tell them. A run whose folder has checkpoints goes on from the newest, on any number
of ranks.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist

import tensorbank as tb
from tensorbank import Plan, normalization
from tensorbank.errors import InvalidInputError, TensorBankError
from tensorbank_loader import World, shared_plan
from tensorbank_loader.terramind import Crop, Crops
from tensorbank_pretraining.commands import crop_of
from tensorbank_pretraining.masked_model import SIZES, ModelSize
from tensorbank_pretraining.recipe import InputPixels, Recipe, TokenModality
from tensorbank_pretraining.terramind_model import TERRAMIND_SIZES, TerraMindSize
from tensorbank_pretraining.training import TrainingRun, train

__all__ = ["main"]

TERRATORCH = "terratorch:"
"""The beginning of the names of models that TerraTorch has."""


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tensorbank_pretraining", description=__doc__.splitlines()[0])
    parser.add_argument("bank", help="address of the bank, or of a service")
    parser.add_argument("sql", help="query of sample_id and the modalities")
    parser.add_argument("--tokens", action="append", required=True, metavar="NAME:VOCABULARY")
    parser.add_argument("--folder", type=Path, required=True, help="checkpoints and logs; all ranks see it")
    parser.add_argument(
        "--crop",
        action="append",
        metavar="Y,X[,flip]",
        help="a crop that tokens were made of; if none is given, those that the names of the tokens' bands say",
    )
    models = [*sorted(SIZES), *(f"{TERRATORCH}{name}" for name in TERRAMIND_SIZES)]
    parser.add_argument(
        "--model",
        choices=models,
        default="tiny",
        help="a model of ours, or TerraMind where TerraTorch is installed",
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="weights that TerraMind begins with; random ones if none",
    )
    parser.add_argument("--normalize", default="terramind-v1", metavar="PROFILE", help="constants of pixels")
    parser.add_argument("--parallel", choices=("ddp", "fsdp"), default="ddp")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    for name, default in (
        ("n-input", 128),
        ("n-target", 128),
        ("global-batch-size", 64),
        ("accumulate", 1),
        ("n-steps", 1000),
        ("warmup-steps", 50),
        ("checkpoint-steps", 100),
        ("seed", 0),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    return parser.parse_args()


def _run_of(given: argparse.Namespace, device: str) -> TrainingRun:
    plan = shared_plan(tb.open(given.bank).sql(given.sql))
    vocabularies = {}
    for text in given.tokens:
        name, _, size = text.partition(":")
        if not size.isdigit():
            raise InvalidInputError(
                f"--tokens {text!r}; give a name and its vocabulary, such as LULC_tokens:16"
            )
        vocabularies[name] = int(size)
    pixels = [h for h in plan.handles if h.name not in vocabularies]
    constants = {}
    for handle in pixels:
        whole = normalization(given.normalize, handle.modality.name)
        constants[handle.name] = tb.Normalization(
            tuple(whole.mean[b] for b in handle.bands), tuple(whole.std[b] for b in handle.bands)
        )
    recipe = Recipe(
        pixels=tuple(InputPixels(h.name, len(h.bands)) for h in pixels),
        tokens=tuple(TokenModality(name, n) for name, n in vocabularies.items()),
        crops=tuple(map(crop_of, given.crop)) if given.crop else _crops_of_tokens(plan, list(vocabularies)),
        n_input=given.n_input,
        n_target=given.n_target,
        global_batch_size=given.global_batch_size,
        accumulate=given.accumulate,
        n_steps=given.n_steps,
        learning_rate=given.learning_rate,
        warmup_steps=min(given.warmup_steps, given.n_steps),
        precision=given.precision,
        seed=given.seed,
    )
    return TrainingRun(
        recipe,
        _size_of(given),
        plan,
        given.folder,
        constants,
        given.parallel,
        device,
        given.checkpoint_steps,
    )


def _crops_of_tokens(plan: Plan, tokens: Sequence[str]) -> tuple[Crop, ...]:
    """Return the crops that the names of the tokens' bands say; one in the middle of 264 pixels if they say none."""
    found = Crops.of(plan, tokens)
    return (Crop(20, 20),) if found is None else found.listed


def _size_of(given: argparse.Namespace) -> ModelSize | TerraMindSize:
    name = given.model.removeprefix(TERRATORCH)
    if name != given.model:
        return TerraMindSize(name, given.checkpoint)
    if given.checkpoint is not None:
        raise InvalidInputError(
            f"--checkpoint has weights of TerraMind; give --model {TERRATORCH}tiny, {TERRATORCH}small or {TERRATORCH}base"
        )
    return SIZES[name]


def main() -> int:
    """Run one rank; the status is 1 with one sentence if it fails."""
    given = _parsed()
    world = World.detect()
    gpu = torch.cuda.is_available()
    device = (
        f"cuda:{int(os.environ.get('LOCAL_RANK', world.rank)) % torch.cuda.device_count()}" if gpu else "cpu"
    )
    if world.n_ranks > 1:
        if gpu:
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if gpu else "gloo", rank=world.rank, world_size=world.n_ranks)
    try:
        train(_run_of(given, device))
    except TensorBankError as error:
        sys.stderr.write(f"rank {world.rank}: {error}\n")
        return 1
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
