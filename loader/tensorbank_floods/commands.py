"""The command ``tensorbank demo-floods``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from tensorbank.cli import say

__all__ = ["demo_floods"]


def demo_floods(
    samples: Annotated[int, typer.Option(help="Samples of each of 12 events.", min=2)] = 16,
    epochs: Annotated[int, typer.Option(help="Epochs of the training.", min=1)] = 8,
    out: Annotated[Path, typer.Option(help="Folder for the picture.")] = Path("demo-output"),
    seed: Annotated[int, typer.Option(help="Seed of the made-up floods and of the training.")] = 7,
) -> None:
    """Train a network that maps floods on some events, and measure it on events that it has never seen."""
    from tensorbank.cli import progress_bar
    from tensorbank.opening import create
    from tensorbank_floods.demo import HELD_OUT, draw, fill, fine_tune
    from tensorbank_floods.flood_archive import CLASSES, FloodArchive

    with tempfile.TemporaryDirectory(prefix="tensorbank-floods-") as scratch:
        bank = create(Path(scratch) / "bank")
        with progress_bar() as progress:
            progress("ingest", 0, 1)
            fill(bank, FloodArchive(n_samples=samples, seed=seed))
            progress("ingest", 1, 1)
            tuned = fine_tune(bank, n_epochs=epochs, seed=seed, progress=progress)
        picture = out / "floods.png"
        draw(bank, tuned, picture)
        first, last = tuned.history[0], tuned.history[-1]
        say(
            f"trained on {tuned.n_train} samples, measured on {tuned.n_val} of {len(HELD_OUT)} events that were held out"
        )
        say(
            f"mean intersection over union {first['miou']:.2f} after the first epoch, {last['miou']:.2f} at the end"
        )
        of_classes = (f"{name} {last.get(str(code), 0.0):.2f}" for code, name in enumerate(CLASSES))
        say(f"of the classes: {', '.join(of_classes)}")
        say(f"the picture: {picture}")
