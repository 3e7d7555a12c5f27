"""Six bands of some dates with metadata that is left out at random, as Prithvi-EO-2.0 is pretrained.

    python loader/examples/prithvi.py BANK TABLE [--modality S2L2A] [--dates 4] [--epochs 10]

Prithvi-EO-2.0 (Szwarcman et al., arXiv 2412.02732) is a masked autoencoder over (n, 6, time, 224, 224) with the year and day
of each date and the place of the sample, each left out of some samples so that the model works without. ``inputs`` makes what
it takes of a batch; a small autoencoder stands for it below.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import torch
from torch import nn

import tensorbank as tb

BANDS = ("B02", "B03", "B04", "B8A", "B11", "B12")
PATCH = 16
P_NO_DATES, P_NO_PLACE = 0.3, 0.3
MASKED = 0.75


# %% What the model takes
def inputs(
    batch: Mapping[str, Any], modality: str, size: int, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """Return ``x`` (n, 6, time, size, size), ``temporal_coords`` (n, time, 2) of year and day of the year from 0 on, and
    ``location_coords`` (n, 2) of latitude and longitude; coordinates that are left out are 0, for all dates of a sample.
    """
    pixels = batch[modality].float() / 1e4  # (n, time, band, y, x)
    top = (pixels.shape[-1] - size) // 2
    x = pixels.permute(0, 2, 1, 3, 4)[..., top : top + size, top : top + size]
    dates = [[datetime.fromtimestamp(us / 1e6, UTC) for us in row] for row in batch["S2_times"].tolist()]
    when = torch.tensor(
        [[[d.year, d.timetuple().tm_yday - 1] for d in row] for row in dates], dtype=torch.float32
    )
    where = torch.stack((batch["lat"], batch["lon"]), dim=1).float()
    keep_dates, keep_place = torch.rand(2, len(x), generator=generator) >= torch.tensor(
        [[P_NO_DATES], [P_NO_PLACE]]
    )
    return {
        "x": x,
        "temporal_coords": when * keep_dates[:, None, None],
        "location_coords": where * keep_place[:, None],
    }


# %% A small masked autoencoder in its place
class Autoencoder(nn.Module):
    """An encoder of patches of all dates, a quarter of which it sees; a coordinate that is 0 adds nothing."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        n = len(BANDS) * PATCH**2
        self.embed, self.hidden = nn.Linear(n, width), nn.Parameter(torch.zeros(width))
        self.when, self.where = nn.Linear(2, width, bias=False), nn.Linear(2, width, bias=False)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, batch_first=True, dropout=0.0)
        self.mix, self.out = nn.TransformerEncoder(layer, 2), nn.Linear(width, n)

    def forward(self, given: Mapping[str, torch.Tensor], generator: torch.Generator) -> torch.Tensor:
        """Return the mean squared error of the patches that were hidden."""
        n, bands, time, size, _ = given["x"].shape
        cut = given["x"].reshape(n, bands, time, size // PATCH, PATCH, size // PATCH, PATCH)
        patches = cut.permute(0, 2, 3, 5, 1, 4, 6).reshape(n, time, -1, bands * PATCH**2)
        masked = torch.rand(patches.shape[:3], generator=generator) < MASKED
        seen = torch.where(masked[..., None], self.hidden, self.embed(patches))
        seen = (
            seen
            + self.when(given["temporal_coords"] / 366)[:, :, None]
            + self.where(given["location_coords"] / 180)[:, None, None]
        )
        made = self.out(self.mix(seen.flatten(1, 2)))
        return (made - patches.flatten(1, 2))[masked.flatten(1)].square().mean()


def main() -> list[float]:
    """Train, and return the losses."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bank")
    parser.add_argument("table")
    parser.add_argument("--modality", default="S2L2A")
    parser.add_argument("--dates", type=int, default=4)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=10)
    given = parser.parse_args()
    bands = ", ".join(f"'{band}'" for band in BANDS)
    sql = f"SELECT sample_id, bands({given.modality}, [{bands}]) AS {given.modality}, S2_times, lon, lat FROM {given.table}"
    plan = tb.open(given.bank).sql(sql).plan(by_date=True)
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = Autoencoder()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses: list[float] = []
    with plan.dataloader(batch_size=given.batch_size, times=given.dates, seed=0, drop_last=True) as loader:
        for _ in range(given.epochs):
            for batch in loader:
                loss = model(inputs(batch, given.modality, given.size, generator), generator)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(float(loss.detach()))
    print(f"loss {losses[0]:.4f} at first, {losses[-1]:.4f} at last")
    return losses


if __name__ == "__main__":
    main()
