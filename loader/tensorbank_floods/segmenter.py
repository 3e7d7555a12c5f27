"""A compact network that maps classes from several modalities and dates, as a LightningModule in plain PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.nn import functional

__all__ = ["Segmenter", "mean_iou"]

Image = Mapping[str, torch.Tensor]


class Segmenter(LightningModule):
    """A network of convolutions that halves its input twice, and comes back with what it saw at each size.

    Modalities and dates are laid side by side as channels, so that it sees what has changed.

    Parameters
    ----------
    n_channels
        Channels of each modality: its bands times its dates.
    n_classes
        Number of classes.
    width
        Channels at full size; twice and four times as many at half and at a quarter.
    learning_rate
        Peak of the rate, which rises and falls within the run.
    ignore
        Value of the mask that counts neither for the loss nor for the measure.
    """

    def __init__(
        self,
        n_channels: Mapping[str, int],
        n_classes: int = 3,
        *,
        width: int = 24,
        learning_rate: float = 3e-3,
        ignore: int = -1,
    ) -> None:
        super().__init__()
        self.names = tuple(sorted(n_channels))
        self.n_classes, self.ignore, self.learning_rate = n_classes, ignore, learning_rate
        self.first = _convolutions(sum(n_channels.values()), width)
        self.second = _convolutions(width, 2 * width)
        self.third = _convolutions(2 * width, 4 * width)
        self.back = _convolutions(6 * width, 2 * width)
        self.last = _convolutions(3 * width, width)
        self.head = nn.Conv2d(width, n_classes, 1)
        self.confusion: torch.Tensor
        self.register_buffer("confusion", torch.zeros(n_classes, n_classes, dtype=torch.int64), False)
        self.history: list[dict[str, float]] = []

    def forward(self, image: Image) -> torch.Tensor:
        """Return scores, (n, class, y, x), of modalities (n, band, y, x) or (n, band, time, y, x)."""
        x = torch.cat([image[name].flatten(1, -3) for name in self.names], dim=1)
        full = self.first(x)
        half = self.second(functional.max_pool2d(full, 2))
        quarter = self.third(functional.max_pool2d(half, 2))
        half = self.back(torch.cat([half, functional.interpolate(quarter, scale_factor=2)], dim=1))
        scores: torch.Tensor = self.head(
            self.last(torch.cat([full, functional.interpolate(half, scale_factor=2)], dim=1))
        )
        return scores

    def training_step(self, batch: dict[str, Any], _: int) -> torch.Tensor:
        loss = functional.cross_entropy(self(batch["image"]), batch["mask"], ignore_index=self.ignore)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: dict[str, Any], _: int) -> None:
        found, truth = self(batch["image"]).argmax(1), batch["mask"]
        counts = truth != self.ignore
        pairs = truth[counts] * self.n_classes + found[counts]
        self.confusion += torch.bincount(pairs, minlength=self.n_classes**2).view_as(self.confusion)

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            ious = iou_of_classes(self.confusion)
            self.log("val_miou", mean_iou(self.confusion))
            self.history.append({"epoch": self.current_epoch, "miou": mean_iou(self.confusion), **ious})
        self.confusion.zero_()

    def configure_optimizers(self) -> Any:
        steps = int(self.trainer.estimated_stepping_batches)
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.learning_rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def iou_of_classes(confusion: torch.Tensor) -> dict[str, float]:
    """Return intersection over union of each class that is there or was found, by its code.

    Parameters
    ----------
    confusion
        Pixels by true and by found class, (class, class) int64.
    """
    right = confusion.diagonal()
    either = confusion.sum(0) + confusion.sum(1) - right
    return {str(code): float(right[code] / either[code]) for code in range(len(right)) if either[code]}


def mean_iou(confusion: torch.Tensor) -> float:
    """Return the mean of the intersections over unions of the classes; 0 of no pixels."""
    ious = iou_of_classes(confusion)
    return sum(ious.values()) / len(ious) if ious else 0.0


def _convolutions(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(),
        nn.Conv2d(n_out, n_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(),
    )
