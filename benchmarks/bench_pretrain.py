"""Measure whether a pretraining keeps its accelerator busy, and what a budget of tokens saves.

    make bench-pretrain
    python benchmarks/bench_pretrain.py [--only busy,budget,gpu] [--quick]

The loop is that of ``tensorbank_pretraining``. Without a GPU its step is the forward and backward pass of the smallest model, and
sleep up to a fixed length: while a GPU works, the cores of its host are free to read and decode, as they are beside one that
sleeps, and a step that kept them busy would measure how cores are shared. The network is a server of given rate and latency.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median

import numpy as np
import torch
from rich.console import Console

import tensorbank as tb
from bench_stream import as_table, as_text
from stream.figure import Figure, Missing, paired
from stream.runs import Run, fetched, interleaved
from stream.serving import fault_server, loopback
from stream.setup import make_bank
from tensorbank import Plan, normalization
from tensorbank.reading import ranges_of
from tensorbank.testing import Faults
from tensorbank_loader import FetchOptions, StreamingDataset, TokenBudget, World
from tensorbank_pretraining import (
    CLASS_TOKENS,
    COLOUR_TOKENS,
    SIZES,
    InputPixels,
    ModelSize,
    Recipe,
    TokenModality,
)
from tensorbank_pretraining.demo import CROPS, tokenized
from tensorbank_pretraining.training import TrainingRun, train

RESULTS = Path(__file__).parent / "results"
PIXELS = ("S2L2A", "S1RTC", "DEM")
TOKENS = {"S2L2A_tokens": COLOUR_TOKENS.vocabulary, "LULC_tokens": CLASS_TOKENS.vocabulary}
SMALLEST = ModelSize(32, 2, 1, 1)
RATE_MB_S = 10
LATENCY_MS = 20
DEMANDS = (0.5, 0.85, 1.3)
"""Demands as shares of the network's rate; the last is more than it carries, to show what the figure is then."""
KEEPS_UP = 0.9
BUSY = 0.98
N_FIRST = 8
"""Steps that are not counted: nothing is read ahead at first, and a pretraining takes days."""
GPU_BATCH = 64
SECTIONS = ("busy", "budget", "gpu")


@dataclass(frozen=True, slots=True)
class Amounts:
    """The size of the measurement: samples of the bank, of a batch; steps of a run; rounds; epochs whose bytes
    are counted.
    """

    n_samples: int = 48
    batch_size: int = 8
    n_steps: int = 40
    n_rounds: int = 2
    n_epochs: int = 2


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps of one run of the recipe, without the first ones: seconds, those of waits for batches, and the longest wait."""

    n: int
    total_s: float
    wait_s: float
    longest_wait_s: float = 0.0

    @property
    def busy(self) -> float:
        """The share of the time in which the loop had a batch in hand."""
        return 1.0 - self.wait_s / self.total_s

    @property
    def step_s(self) -> float:
        """The seconds of a step that waits for nothing."""
        return (self.total_s - self.wait_s) / self.n


def recipe_of(amounts: Amounts) -> Recipe:
    """Return the recipe: pixels of three modalities, tokens of two, the recipe's own numbers of tokens."""
    bands = {name: len(normalization("terramind-v1", name).mean) for name in PIXELS}
    return Recipe(
        pixels=tuple(InputPixels(name, n) for name, n in bands.items()),
        tokens=tuple(TokenModality(name, n) for name, n in TOKENS.items()),
        crops=CROPS,
        global_batch_size=amounts.batch_size,
        n_steps=amounts.n_steps + N_FIRST,
        warmup_steps=1,
        seed=1,
    )


def run_of_steps(run: TrainingRun) -> Steps:
    """Run the recipe in a folder of its own, and return what its log says of the steps."""
    with tempfile.TemporaryDirectory() as folder:
        train(replace(run, folder=Path(folder)))
        with Path(folder, "losses.csv").open(newline="") as log:
            rows = list(csv.DictReader(log))[N_FIRST:]
    seconds = [run.recipe.global_batch_size / float(row["samples_per_s"]) for row in rows]
    waits = [s * float(row["wait_share"]) for s, row in zip(seconds, rows, strict=True)]
    return Steps(len(rows), sum(seconds), sum(waits), max(waits))


def read_of(
    plan: Plan, recipe: Recipe, budget: TokenBudget | None, n_epochs: int
) -> tuple[list[list[str]], int]:
    """Read some epochs, and return the ids of each batch and the bytes of the modalities that came with any pixels, each read
    alone.
    """
    place = {name: at for at, name in enumerate(plan.table["sample_id"].to_pylist())}
    ids: list[list[str]] = []
    needed = 0
    dataset = StreamingDataset(
        plan, global_batch_size=recipe.global_batch_size, seed=recipe.seed, budget=budget, world=World()
    )
    for _ in range(n_epochs):
        for batch in dataset:
            ids.append(list(batch["sample_id"]))
            at = np.array([place[name] for name in ids[-1]])
            for handle in plan.handles:
                there = batch.get("mask", {}).get(handle.name)
                used = at if there is None else at[there.numpy()]
                alone = ranges_of(plan.addresses.only(handle.name), [used], FetchOptions())
                needed += sum(r.n_bytes for r in alone)
    return ids, needed


def budgets(plan: Plan, folder: Path, recipe: Recipe, n_epochs: int) -> Iterator[Figure]:
    """Yield the bytes that the server sent for a sample, with the recipe's budget and without, for the same batches."""
    sent, batches = {}, {}
    with fault_server(folder, Faults()) as (server, origin):
        for name, budget in (("without", None), ("with", recipe.budget())):
            server.set(Faults())
            batches[name], needed = read_of(origin.plan(plan), recipe, budget, n_epochs)
            n = sum(map(len, batches[name]))
            sent[name] = server.stats()["counts"]["body_bytes"] / n
            yield Figure(
                "budget",
                f"a sample {name} a budget",
                sent[name] / 1e6,
                "MB",
                needed / n / 1e6,
                sent[name] / (needed / n),
                1.05,
                "<=",
                detail={"samples": n, "requests": server.stats()["counts"]["requests"]},
            )
    if batches["with"] != batches["without"]:
        raise RuntimeError("the batches differ, so that their bytes cannot be compared")
    yield Figure(
        "budget",
        "of the bytes without, at equal batches",
        sent["with"] / sent["without"],
        "x",
        detail={"alpha": recipe.alpha, "modalities": len(recipe.names)},
    )


def busy(
    plan: Plan, folder: Path, recipe: Recipe, amounts: Amounts, bytes_a_batch: float
) -> Iterator[Figure]:
    """Yield the share of time that the accelerator is busy, at some demands beside the rate of the network."""
    faults = Faults(latency_ms=LATENCY_MS, bandwidth_bytes_s=RATE_MB_S * 1e6)
    constants = {name: normalization("terramind-v1", name) for name in PIXELS}
    with fault_server(folder, faults) as (_, origin):
        far = origin.plan(plan)
        works: dict[str, Callable[[], Run | Steps]] = {"raw": fetched(far, amounts.batch_size)}
        for demand in DEMANDS:
            step_s = bytes_a_batch / (demand * RATE_MB_S * 1e6)
            run = TrainingRun(recipe, SMALLEST, far, Path(), constants, checkpoint_steps=10**9, step_s=step_s)
            works[f"{demand}"] = partial(run_of_steps, run)
        found = interleaved(works, amounts.n_rounds)
    rates: list[float] = [r.n_bytes / r.wall_s for r in found.pop("raw")]
    for runs in found.values():
        # What was asked for, as it came out: a step may take longer than it should, and asks for less then.
        demands = [bytes_a_batch / s.step_s / rate for s, rate in zip(runs, rates, strict=True)]
        ceilings = [min(1.0, 1.0 / d) for d in demands]
        shares = [s.busy for s in runs]
        keeps_up = median(demands) <= KEEPS_UP
        yield Figure(
            "busy",
            f"a demand of {median(demands):.2f} of the network",
            median(shares),
            "of the time",
            median(ceilings),
            paired(shares, ceilings),
            BUSY if keeps_up else None,
            judged="value",
            detail={
                "step_ms": median(s.step_s for s in runs) * 1e3,
                "raw_mb_s": median(rates) / 1e6,
                "longest_waits_ms": [s.longest_wait_s * 1e3 for s in runs],
                "shares": shares,
                "demands": demands,
            },
        )


def gpu(plan: Plan, folder: Path, recipe: Recipe, n_steps: int) -> Iterator[Figure | Missing]:
    """Yield the step of a model of the size of TerraMind's base on a GPU, and the share of time that it waits for batches."""
    if not torch.cuda.is_available():
        yield Missing("gpu", "a model of the size of TerraMind's base", "no GPU")
        return
    constants = {name: normalization("terramind-v1", name) for name in PIXELS}
    recipe = replace(
        recipe, global_batch_size=GPU_BATCH, precision="bfloat16", n_steps=n_steps, warmup_steps=1
    )
    with loopback(folder) as origin:
        run = TrainingRun(
            recipe,
            SIZES["base"],
            origin.plan(plan),
            Path(),
            constants,
            device="cuda",
            checkpoint_steps=10**9,
        )
        steps = run_of_steps(run)
    yield Figure(
        "gpu",
        f"base, batches of {GPU_BATCH}, {torch.cuda.get_device_name()}",
        steps.busy,
        "of the time",
        1.0,
        steps.busy,
        BUSY,
        judged="value",
        detail={"step_ms": steps.step_s * 1e3, "served by": origin.server},
    )


def measured(
    folder: Path, table: str, amounts: Amounts, sections: Sequence[str]
) -> Iterator[Figure | Missing]:
    """Yield the figures of some sections, of a bank on the local disk."""
    bank = tb.open(str(folder))
    tokenized(bank, table, lambda *_: None)
    plan = bank.sql(f"SELECT sample_id, {', '.join((*PIXELS, *TOKENS))} FROM {table}").plan()
    recipe = recipe_of(amounts)
    found = list(budgets(plan, folder, recipe, amounts.n_epochs))
    with_budget = next(f for f in found if f.what == "a sample with a budget")
    if "budget" in sections:
        yield from found
    if "busy" in sections:
        yield from busy(plan, folder, recipe, amounts, with_budget.value * 1e6 * amounts.batch_size)
    if "gpu" in sections:
        yield from gpu(plan, folder, recipe, amounts.n_steps)


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, separated by commas")
    parser.add_argument("--quick", action="store_true", help="a look: fewer steps, one round")
    parser.add_argument("--out", type=Path, default=RESULTS / "pretrain.json")
    given = parser.parse_args()
    sections = given.only.split(",")
    if unknown := {*sections} - {*SECTIONS}:
        parser.error(f"no such section: {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    amounts = Amounts(n_steps=6, n_rounds=1) if given.quick else Amounts()
    torch.set_num_threads(1)  # one core for the step, the others for reading
    console = Console(width=None if sys.stdout.isatty() else 140)
    started_s = time.perf_counter()
    load = os.getloadavg()[2]
    found: list[Figure | Missing] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder, table = make_bank(Path(scratch), n_samples=amounts.n_samples)
        for item in measured(folder.resolve(), table, amounts, sections):
            found.append(item)
            seen = item.reason if isinstance(item, Missing) else as_text(item.value, item.unit)
            console.print(
                f"[dim]{time.perf_counter() - started_s:5.0f} s[/]  {item.section}: {item.what}: {seen}"
            )
    console.print(as_table(found))
    facts = {
        "command": "make bench-pretrain",
        "machine": {
            "cores": len(os.sched_getaffinity(0)),
            "platform": platform.platform(),
            "load_before": load,
        },
        "versions": {
            "python": platform.python_version(),
            **{n: version(n) for n in ("tensorbank", "torch", "numpy")},
        },
        "setup": {**asdict(amounts), "rate_mb_s": RATE_MB_S, "latency_ms": LATENCY_MS},
        "elapsed_s": time.perf_counter() - started_s,
        "figures": [f.to_dict() for f in found if isinstance(f, Figure)],
        "missing": [m.to_dict() for m in found if isinstance(m, Missing)],
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(facts, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
