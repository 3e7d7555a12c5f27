"""The demonstration: a small pretraining on two ranks that is killed half way, and goes on with three to the same end."""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorbank.bank import Bank
from tensorbank.errors import IntegrityError, TensorBankError
from tensorbank_loader import lineage
from tensorbank_loader.terramind import Crop
from tensorbank_pretraining.checkpoints import Checkpoints
from tensorbank_pretraining.patch_tokens import CLASS_TOKENS, COLOUR_TOKENS, tokenize

__all__ = ["CROPS", "SQL", "Consumed", "consumed", "draw_losses", "losses", "pretrain", "tokenized"]

Progress = Callable[[str, int, int], None]
CROPS = (Crop(0, 0), Crop(40, 40), Crop(20, 20, flip=True))
SQL = "SELECT sample_id, S2L2A, S1RTC, S2L2A_tokens, LULC_tokens FROM terramesh"
GLOBAL_BATCH_SIZE = 12
END_S = 600.0
"""Seconds after which a run that has not ended is taken for hung."""
LOOK_S = 0.2


@dataclass(frozen=True, slots=True)
class Consumed:
    """The samples that the optimiser has seen, by the logs of all ranks.

    Parameters
    ----------
    n_samples
        Samples of all steps.
    n_epochs
        Epochs that have begun.
    ranks
        Numbers of ranks that have shared steps, in their order.
    """

    n_samples: int
    n_epochs: int
    ranks: tuple[int, ...]


def tokenized(bank: Bank, table: str, progress: Progress) -> None:
    """Give a table of TerraMesh the tokens that the run sees and predicts."""
    rules = {"S2L2A": COLOUR_TOKENS, "LULC": CLASS_TOKENS}
    for number, (modality, rule) in enumerate(rules.items()):
        progress("tokenize", number, len(rules))
        tokenize(bank, table, modality, rule, crops=CROPS)
    progress("tokenize", len(rules), len(rules))


def pretrain(
    bank: str, folder: Path, n_steps: int, n_ranks: int, *, until: int | None = None, progress: Progress
) -> None:
    """Run the recipe on some ranks of this machine, from where it stands; kill all of them once step ``until`` is over.

    Raises
    ------
    TensorBankError
        A rank failed, or nothing happens any more.
    """
    with _ranks(_command(bank, folder, n_steps), n_ranks, folder) as ranks:
        ends_s = time.monotonic() + END_S
        said = -1
        while True:
            step = min(_last_step(folder), n_steps)
            if step != said:
                said = step
                progress("train", step, n_steps)
            if until is not None and step >= until:
                return  # the block kills them
            codes = [rank.poll() for rank in ranks]
            if any(codes):
                text = "\n".join(path.read_text()[-2000:] for path in sorted(folder.glob("rank-*.err")))
                raise TensorBankError(f"a rank of the run failed: {text}")
            if None not in codes:
                return
            if time.monotonic() > ends_s:
                raise TensorBankError(f"the run has not ended after {END_S:.0f} s; {folder} has its logs")
            time.sleep(LOOK_S)


def _command(bank: str, folder: Path, n_steps: int) -> list[str]:
    crops = [f"--crop={c.y},{c.x}{',flip' if c.flip else ''}" for c in CROPS]
    tokens = [
        f"--tokens=S2L2A_tokens:{COLOUR_TOKENS.vocabulary}",
        f"--tokens=LULC_tokens:{CLASS_TOKENS.vocabulary}",
    ]
    numbers = {
        "n-input": 64,
        "n-target": 64,
        "global-batch-size": GLOBAL_BATCH_SIZE,
        "n-steps": n_steps,
        "warmup-steps": n_steps // 10,
        "checkpoint-steps": max(n_steps // 12, 1),
        "learning-rate": 3e-3,
    }
    command = [sys.executable, "-m", "tensorbank_pretraining", bank, SQL, *tokens, *crops, "--model=micro"]
    return [*command, f"--folder={folder}", *(f"--{name}={value}" for name, value in numbers.items())]


@contextmanager
def _ranks(command: Sequence[str], n_ranks: int, folder: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start ranks as a launcher does; those that run at the end of the block are killed."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ranks: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(n_ranks):
            told = {
                "RANK": str(rank),
                "WORLD_SIZE": str(n_ranks),
                "LOCAL_RANK": str(rank),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "OMP_NUM_THREADS": "1",
            }
            with (folder / f"rank-{rank}.err").open("wb") as said:
                ranks.append(subprocess.Popen(command, env={**os.environ, **told}, stdout=said, stderr=said))
        yield ranks
    finally:
        for process in ranks:
            process.kill()
        for process in ranks:
            process.wait()


def losses(folder: Path) -> list[dict[str, float]]:
    """Return what a run has logged, a row for each step."""
    path = folder / "losses.csv"
    if not path.exists():
        return []
    with path.open(newline="") as log:
        whole = [
            line for line in log if line.endswith("\n")
        ]  # the last may be in the middle of being written
    return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(whole)]


def _last_step(folder: Path) -> int:
    rows = losses(folder)
    return int(rows[-1]["step"]) if rows else 0


def consumed(bank: Bank, folder: Path, n_steps: int) -> Consumed:
    """Check that every sample was seen exactly once an epoch, and that the checkpoint's lineage says the same.

    Raises
    ------
    IntegrityError
        A step is missing or came twice, a sample came twice in an epoch, or the lineage differs.
    """
    by_step: dict[int, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("seen-*.jsonl")):
        for line in path.read_text().splitlines():
            seen = json.loads(line)
            by_step.setdefault(seen["step"], []).append(seen)
    if sorted(by_step) != list(range(1, n_steps + 1)):
        raise IntegrityError(f"the logs have the steps {sorted(by_step)}, not 1 to {n_steps}")
    per_epoch = len(bank.sql(SQL).plan()) // GLOBAL_BATCH_SIZE
    counts: Counter[str] = Counter()
    ranks: list[int] = []
    for first in range(1, n_steps + 1, per_epoch):
        ids: list[str] = []
        for step in range(first, min(first + per_epoch, n_steps + 1)):
            shares = by_step[step]
            n_ranks = shares[0]["n_ranks"]
            if len(shares) != n_ranks:
                raise IntegrityError(f"step {step} was logged by {len(shares)} of {n_ranks} ranks")
            ranks += [] if ranks[-1:] == [n_ranks] else [n_ranks]
            for share in shares:
                ids += share["ids"]
        if len(set(ids)) != len(ids):
            twice = [name for name, n in Counter(ids).items() if n > 1]
            raise IntegrityError(f"{', '.join(twice[:5])} came more than once in an epoch")
        counts.update(ids)
    place = Checkpoints(folder).newest()
    if place is None:
        raise IntegrityError(f"{folder} has no checkpoint")
    (run,) = lineage(place, bank)
    rows = run.tables[0].samples.select(["sample_id", "n_seen"]).to_pylist()
    told = {row["sample_id"]: row["n_seen"] for row in rows}
    if told != dict(counts):
        raise IntegrityError(
            "the lineage of the last checkpoint tells other samples than the logs of the ranks"
        )
    return Consumed(sum(counts.values()), -(-n_steps // per_epoch), tuple(ranks))


def draw_losses(folder: Path, killed_at: int, path: Path) -> None:
    """Draw the losses of a run, and where it was killed."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    rows = losses(folder)
    steps = [row["step"] for row in rows]
    figure, axis = plt.subplots(figsize=(8, 4.2), layout="constrained")
    colours = {"loss_S2L2A_tokens": "#2a6f97", "loss_LULC_tokens": "#2f6b3a"}
    names = {"loss_S2L2A_tokens": "colour tokens of Sentinel-2", "loss_LULC_tokens": "land cover tokens"}
    for name, colour in colours.items():
        axis.plot(steps, [row[name] for row in rows], color=colour, label=names[name], linewidth=1.4)
    axis.axvline(killed_at, color="#b8373d", linestyle="--", linewidth=1.2)
    axis.annotate(
        "killed on 2 ranks,\nwent on with 3",
        (killed_at, axis.get_ylim()[1]),
        xytext=(6, -30),
        textcoords="offset points",
        color="#b8373d",
        fontsize=9,
    )
    axis.set(xlabel="step", ylabel="cross-entropy, nats a token", ylim=(0, None))
    axis.legend(frameon=False, loc="lower left")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", alpha=0.25)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
