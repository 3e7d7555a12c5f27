"""Stacks of any number of dates and any sensors of a cell, as Copernicus-FM takes them.

    python loader/examples/ragged_cells.py BANK TABLE [--modalities S1GRD S2L1C DEM] [--epochs 10]

Copernicus-Pretrain (Wang et al., arXiv 2503.11849) has cells of a quarter of a degree: some sensors each, and a stack of its
own length of each sensor. Batches are padded, and ``mask`` says what is there: (n,) of a sensor that some cells lack, (n,
time) where some have fewer dates. The loss below, of a random pair of sensors of each cell, looks at nothing that is padding.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

import tensorbank as tb


# %% What is there
def there(batch: Mapping[str, Any], name: str) -> torch.Tensor:
    """Return which dates a sample has of a sensor, (n, time) bool."""
    n, n_times = batch[name].shape[0], batch[name].shape[1] if batch[name].ndim == 5 else 1
    mask = batch.get("mask", {}).get(name, torch.ones(n, dtype=torch.bool))
    return mask if mask.ndim == 2 else mask[:, None].expand(n, n_times)


# %% One encoder for each sensor, and one vector of a stack
class Cells(nn.Module):
    """A model of cells: the mean over the dates that are there of what an encoder makes of each."""

    def __init__(self, n_bands: Mapping[str, int], width: int = 64) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.BatchNorm2d(n),
                    nn.Conv2d(n, 32, 4, 4),
                    nn.GELU(),
                    nn.Conv2d(32, width, 2, 2),
                    nn.AdaptiveAvgPool2d(1),
                )
                for name, n in n_bands.items()
            }
        )

    def forward(self, batch: Mapping[str, Any], name: str) -> torch.Tensor:
        """Return a vector of each cell, (n, width), of length 1; 0 of a cell without the sensor."""
        stack = batch[name] if batch[name].ndim == 5 else batch[name][:, None]
        known = there(batch, name)
        found = self.encoders[name](stack[known].float().nan_to_num()).flatten(
            1
        )  # of the dates that are there
        cell = known.nonzero()[:, 0]
        sums = torch.zeros(len(known), found.shape[1]).index_add(0, cell, found)
        return nn.functional.normalize(sums / known.sum(1, keepdim=True).clamp(min=1), dim=1)


def pair_loss(model: Cells, batch: Mapping[str, Any], pair: Sequence[str]) -> torch.Tensor | None:
    """Return the contrastive loss of the cells that have both sensors; None if fewer than two do."""
    both = there(batch, pair[0]).any(1) & there(batch, pair[1]).any(1)
    if int(both.sum()) < 2:
        return None
    one, other = (model(batch, name)[both] for name in pair)
    return nn.functional.cross_entropy(10 * one @ other.T, torch.arange(len(one)))


def main() -> list[float]:
    """Train, and return the losses."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bank")
    parser.add_argument("table")
    parser.add_argument("--modalities", nargs="+", default=["S1GRD", "S2L1C", "DEM"])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=10)
    given = parser.parse_args()
    plan = (
        tb.open(given.bank).sql(f"SELECT sample_id, {', '.join(given.modalities)} FROM {given.table}").plan()
    )
    torch.manual_seed(0)
    model = Cells({handle.name: len(handle.bands) for handle in plan.handles})
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    with plan.dataloader(batch_size=given.batch_size, seed=0) as loader:
        for _ in range(given.epochs):
            for batch in loader:
                names = [given.modalities[i] for i in torch.randperm(len(given.modalities))[:2].tolist()]
                if (loss := pair_loss(model, batch, names)) is None:
                    continue
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(float(loss.detach()))
    print(f"loss {losses[0]:.3f} at first, {losses[-1]:.3f} at last of {len(losses)} steps")
    return losses


if __name__ == "__main__":
    main()
