"""The demonstration: a bank of made-up floods, a network that is trained on some events and measured on others, and a picture."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import Callback, Trainer, seed_everything

from tensorbank.bank import Bank
from tensorbank_floods.flood_archive import CLASSES, MASK, MISSING, N_DATES, FloodArchive
from tensorbank_floods.segmenter import Segmenter
from tensorbank_indexer import IngestOptions, ingest, open_source
from tensorbank_lightning import TensorBankDataModule

__all__ = ["HELD_OUT", "TABLE", "FineTuning", "data_of", "draw", "fine_tune", "fill"]

TABLE = "floods"
HELD_OUT = ("event09", "event10", "event11")
"""The events that are never trained on."""
N_CHANNELS = {"S2L2A": 12 * N_DATES, "S1RTC": 2 * N_DATES, "DEM": 1}
CONSTANTS = {
    "S2L2A": {"mean": [2000.0] * 12, "std": [1500.0] * 12},
    "S1RTC": {"mean": [-12.0, -18.5], "std": [5.0, 5.0]},
    "DEM": {"mean": [40.0], "std": [12.0]},
}
COLOURS = np.array([[120, 120, 120], [214, 178, 120], [30, 50, 110], [60, 110, 200]], np.uint8)
"""The colours of no class, and of the classes in their order."""

Progress = Callable[[str, int, int], None]
Pixels = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class FineTuning:
    """The course of a fine-tuning.

    Parameters
    ----------
    model
        Network at the end.
    history
        Measures of the held-out events after each epoch: ``miou``, and the intersection over union of each class by its code.
    n_train, n_val
        Samples that were trained and measured on.
    """

    model: Segmenter
    history: tuple[dict[str, float], ...]
    n_train: int
    n_val: int


def fill(bank: Bank, archive: FloodArchive) -> None:
    """Write the archive, and ingest it into a table of the bank as the published one is."""
    with tempfile.TemporaryDirectory(prefix="tensorbank-floods-") as folder:
        archive.write(Path(folder))
        report = ingest(open_source(folder), bank, TABLE, IngestOptions(n_workers=1, samples_per_shard=32))
    if report.findings:
        raise RuntimeError(f"the made-up archive is not sound: {report.findings[0]}")


def data_of(bank: Bank, *, batch_size: int = 8, seed: int = 7) -> TensorBankDataModule:
    """Return the splits: the events that are held out, and all others."""
    held_out = ", ".join(f"'{event}'" for event in HELD_OUT)
    select = f"SELECT sample_id, S2L2A, S1RTC, DEM, {MASK} FROM {TABLE} WHERE subset"
    return TensorBankDataModule(
        bank,
        train=f"{select} NOT IN ({held_out})",
        val=f"{select} IN ({held_out}) ORDER BY sample_id",
        mask=MASK,
        normalize=CONSTANTS,
        nodata={"S2L2A": MISSING},
        batch_size=batch_size,
        seed=seed,
    )


def fine_tune(bank: Bank, *, n_epochs: int, width: int = 24, seed: int = 7, progress: Progress) -> FineTuning:
    """Train a network on the events that are not held out, and measure it on those that are, after each epoch."""
    with warnings.catch_warnings(), _quiet():
        warnings.filterwarnings("ignore", module="lightning")
        seed_everything(seed)
        model = Segmenter(N_CHANNELS, len(CLASSES), width=width)
        data = data_of(bank, seed=seed)
        trainer = Trainer(
            max_epochs=n_epochs,
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[_Told(n_epochs, progress)],
        )
        trainer.fit(model, datamodule=data)
    n_train, n_val = (len(bank.sql(str(data.questions[split]))) for split in ("train", "val"))
    return FineTuning(model, tuple(model.history), n_train, n_val)


class _Told(Callback):
    """A callback that tells how many epochs are over."""

    def __init__(self, n_epochs: int, progress: Progress) -> None:
        self.n_epochs, self.progress = n_epochs, progress

    def on_train_epoch_end(self, trainer: Trainer, _: Any) -> None:
        self.progress("train", trainer.current_epoch + 1, self.n_epochs)


@contextmanager
def _quiet() -> Iterator[None]:
    """Let Lightning say nothing about devices and itself."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def draw(bank: Bank, tuned: FineTuning, path: Path, *, n_rows: int = 4) -> None:
    """Draw what the network makes of samples of held-out events, and how the measure rose."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    data = data_of(bank, batch_size=n_rows)
    batch = next(iter(data.val_dataloader()))
    data.teardown("validate")
    model = tuned.model.eval()
    with torch.no_grad():
        found = model({name: x.to(model.device) for name, x in batch["image"].items()}).argmax(1).cpu()
    truth = batch["mask"].numpy()
    colours = _true_colour(batch["image"]["S2L2A"].numpy())
    radar = batch["image"]["S1RTC"].numpy()[:, 0]
    columns = {
        "before": colours[:, 0],
        "after": colours[:, -1],
        "VV before": radar[:, 0],
        "VV after": radar[:, -1],
        "truth": COLOURS[truth + 1],
        "found": COLOURS[np.where(truth < 0, -1, found.numpy()) + 1],
    }
    figure = plt.figure(figsize=(12.5, 1.62 * n_rows + 0.4), layout="constrained")
    parts: Any = figure.subfigures(1, 2, width_ratios=(2.1, 1))
    images, curve = parts
    axes = images.subplots(n_rows, len(columns), squeeze=False)
    for column, (title, pixels) in enumerate(columns.items()):
        axes[0][column].set_title(title, fontsize=9)
        for row in range(n_rows):
            axes[row][column].imshow(pixels[row], cmap="gray", vmin=-2.5, vmax=1.5)
            axes[row][column].set_axis_off()
    _draw_curve(curve.subplots(), tuned)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_curve(axis: Any, tuned: FineTuning) -> None:
    epochs = [row["epoch"] + 1 for row in tuned.history]
    colours = [tuple(colour / 255) for colour in COLOURS[1:]]
    for code, (name, colour) in enumerate(zip(CLASSES, colours, strict=True)):
        axis.plot(epochs, [row.get(str(code), 0.0) for row in tuned.history], color=colour, label=name)
    axis.plot(epochs, [row["miou"] for row in tuned.history], color="black", linewidth=2.2, label="mean")
    axis.set(xlabel="epoch", ylabel="intersection over union, events never trained on", ylim=(0, 1))
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(frameon=False, loc="lower right")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", alpha=0.25)


def _true_colour(normalised: Pixels) -> Pixels:
    """Return (n, time, y, x, 3) of normalised S2L2A (n, band, time, y, x)."""
    mean, std = (np.array(CONSTANTS["S2L2A"][key])[[3, 2, 1]] for key in ("mean", "std"))
    red_green_blue = normalised[:, [3, 2, 1]].transpose(0, 2, 3, 4, 1) * std + mean
    pixels: Pixels = np.clip(red_green_blue / 4000, 0, 1)
    return pixels
