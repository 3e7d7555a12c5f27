"""Some bands of a hyperspectral sensor by wavelength, dead ones left out, whole bands masked: EnMAP, EMIT.

    python loader/examples/hyperspectral.py BANK TABLE [--modality ENMAP] [--from-nm 420 --to-nm 2450] [--epochs 10]

Names of bands end in their wavelength, such as ``B001_0423nm``. Bands without light (127 to 141 and 161 to 167 of EnMAP's in
HySpecNet-11k) are found in the index: their values do not vary. Bands that are not asked for are not read. Whole bands are
masked at random and predicted from the others, pixel by pixel, as models of spectra are pretrained (SpectralEarth: Braham et
al., arXiv 2408.08447).
"""

from __future__ import annotations

import argparse
import re

import torch
from torch import nn

import tensorbank as tb

MASKED = 0.5
_NM = re.compile(r"_(\d+)nm$")


# %% The bands: by wavelength, and alive
def wavelength_nm(band: str) -> int:
    """Return the wavelength in a band's name."""
    found = _NM.search(band)
    if found is None:
        raise SystemExit(f"band {band} does not end in a wavelength, such as B001_0423nm")
    return int(found[1])


def living_bands(bank: tb.Bank, table: str, modality: str, from_nm: int, to_nm: int) -> list[str]:
    """Return the bands with ``from_nm <= wavelength < to_nm`` whose values vary, by the statistics of the whole table."""
    known = bank.sql(f"SELECT {modality} FROM {table}").statistics(modality)
    names = bank.table(table).schema[modality].band_names
    within = [name for name in names if from_nm <= wavelength_nm(name) < to_nm]
    return [name for name in within if (known[name].std or 0.0) > 0.0]


# %% A model of spectra of any bands
class Spectra(nn.Module):
    """A transformer over the bands of a pixel; a band is told by its wavelength."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.value, self.hidden = nn.Linear(1, width), nn.Parameter(torch.zeros(width))
        self.where = nn.Linear(16, width)
        self.mix = nn.TransformerEncoderLayer(width, 4, 2 * width, batch_first=True, dropout=0.0)
        self.out = nn.Linear(width, 1)

    def forward(self, values: torch.Tensor, nm: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
        """Return what each band has, (m, band), of values (m, band), of which those of ``masked`` (band,) are not seen."""
        waves = nm[:, None] / 2500 * 2.0 ** torch.arange(8) * torch.pi
        seen = torch.where(masked[:, None], self.hidden, self.value(values[..., None]))
        return self.out(self.mix(seen + self.where(torch.cat((waves.sin(), waves.cos()), dim=1))))[..., 0]


def main() -> tuple[list[str], list[float]]:
    """Train, and return the bands and the losses."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bank")
    parser.add_argument("table")
    parser.add_argument("--modality", default="ENMAP")
    parser.add_argument("--from-nm", type=int, default=420)
    parser.add_argument("--to-nm", type=int, default=2450)
    parser.add_argument("--pixels", type=int, default=64, help="pixels of each sample in a step")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=10)
    given = parser.parse_args()
    bank = tb.open(given.bank)
    bands = living_bands(bank, given.table, given.modality, given.from_nm, given.to_nm)
    listed = ", ".join(f"'{band}'" for band in bands)
    query = bank.sql(f"SELECT sample_id, bands({given.modality}, [{listed}]) AS spectra FROM {given.table}")
    known = bank.sql(f"SELECT {given.modality} FROM {given.table}").statistics(given.modality)
    mean = torch.tensor([known[band].mean for band in bands])
    std = torch.tensor([known[band].std for band in bands])
    nm = torch.tensor([wavelength_nm(band) for band in bands], dtype=torch.float32)
    torch.manual_seed(0)
    model = Spectra()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    with query.dataloader(batch_size=given.batch_size, seed=0) as loader:
        for _ in range(given.epochs):
            for batch in loader:
                every = batch["spectra"].float().flatten(2).transpose(1, 2).flatten(0, 1)  # (pixel, band)
                some = every[torch.randperm(len(every))[: given.pixels * given.batch_size]]
                values = (some - mean) / std
                masked = torch.rand(len(bands)) < MASKED
                masked[torch.randint(len(bands), (1,))] = True
                made = model(values, nm, masked)
                loss = nn.functional.smooth_l1_loss(made[:, masked], values[:, masked])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(float(loss.detach()))
        stats = loader.stats()
    n_all = len(bank.table(given.table).schema[given.modality].band_names)
    print(f"{len(bands)} of {n_all} bands, {stats.bytes_read / stats.samples / 1e3:.0f} kB a sample")
    print(f"loss {losses[0]:.3f} at first, {losses[-1]:.3f} at last")
    return bands, losses


if __name__ == "__main__":
    main()
