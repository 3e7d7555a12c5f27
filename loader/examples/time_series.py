"""Some dates of each sample with the days between them, as TerraFlow takes its sequences.

    python loader/examples/time_series.py BANK TABLE [--dates 4] [--epochs 10]

TerraFlow is pretrained on sequences of dates with true differences of time. Here as many dates of each sample are drawn anew
in each epoch, in the order of time, and only their bytes are read. A small model is shown all of them but the last, and the
days from each to the last, and predicts the mean of each band on the last date.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

import tensorbank as tb


# %% The dates that were read, as days before the last of them
def days_before_last(batch: Mapping[str, Any]) -> torch.Tensor:
    """Return (n, k) float32, of ``S2_times``: (n, k) int64 microseconds since 1970 UTC, those of the drawn dates."""
    times = batch["S2_times"]
    return ((times[:, -1:] - times).double() / 86_400e6).float()


# %% A model of sequences of any length
class Forecast(nn.Module):
    """A transformer over dates: what each date looks like, and how long before the last it was."""

    def __init__(self, n_bands: int, width: int = 64) -> None:
        super().__init__()
        self.look, self.when = nn.Linear(n_bands, width), nn.Linear(2, width)
        self.mix = nn.TransformerEncoderLayer(width, 4, 2 * width, batch_first=True, dropout=0.0)
        self.out = nn.Linear(width, n_bands)

    def forward(self, means: torch.Tensor, days: torch.Tensor) -> torch.Tensor:
        """Return (n, band) of means (n, k - 1, band) and days (n, k - 1)."""
        season = 2 * torch.pi * days / 365.25
        waves = torch.stack((season.sin(), season.cos()), dim=-1)
        return means[:, -1] + self.out(self.mix(self.look(means) + self.when(waves)).mean(1))


def main() -> list[float]:
    """Train, and return the losses."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bank")
    parser.add_argument("table")
    parser.add_argument("--dates", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=10)
    given = parser.parse_args()
    query = tb.open(given.bank).sql(f"SELECT sample_id, S2L2A, S2_times FROM {given.table}")
    plan = query.plan(by_date=True)  # each date can be read alone
    torch.manual_seed(0)
    model = Forecast(len(plan.handles[0].bands))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses: list[float] = []
    with plan.dataloader(batch_size=given.batch_size, times=given.dates, seed=0, drop_last=True) as loader:
        for _ in range(given.epochs):
            for batch in loader:
                days = days_before_last(batch)
                means = batch["S2L2A"].float().mean((3, 4)) / 1e4  # (n, k, band)
                loss = nn.functional.smooth_l1_loss(model(means[:, :-1], days[:, :-1]), means[:, -1])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(float(loss.detach()))
        read, all_dates = loader.stats().bytes_asked / loader.stats().samples, plan.read_bytes / len(plan)
    print(
        f"loss {losses[0]:.4f} at first, {losses[-1]:.4f} at last; {read / all_dates:.0%} of a sample's bytes were asked for"
    )
    return losses


if __name__ == "__main__":
    main()
