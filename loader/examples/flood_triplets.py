"""Two images before a flood and one after it, with the mask of the water, as in Kuro Siwo; events are held out whole.

    python loader/examples/flood_triplets.py BANK TABLE [--epochs 10]

Kuro Siwo (Bountos et al., arXiv 2311.12056) has for each patch of a flood two radar images from before and one from after.
Here each image is a sample of its own, as it comes from an archive, with the columns ``event``, ``patch`` and ``phase``
(``before_2``, ``before_1``, ``after``) that ``table.add_columns`` gave it; the triplets are a join. Patches of an event are
near-duplicates, so that an event is either trained on or held out.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

import tensorbank as tb

# %% A triplet is a row: three handles of one modality, and the mask
SQL = """
SELECT after.sample_id, after.event, before_2.S1GRD AS before_2, before_1.S1GRD AS before_1, after.S1GRD AS after, after.WATER
FROM {table} after
JOIN {table} before_1 ON before_1.event = after.event AND before_1.patch = after.patch AND before_1.phase = 'before_1'
JOIN {table} before_2 ON before_2.event = after.event AND before_2.patch = after.patch AND before_2.phase = 'before_2'
WHERE after.phase = 'after'
"""
IGNORED = -1


# %% A small model of the change
def pixels_of(batch: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return decibels (n, 3 * band, y, x) in the order of time, scaled, and the classes (n, y, x)."""
    x = torch.cat([batch[phase].float() for phase in ("before_2", "before_1", "after")], dim=1)
    return x.nan_to_num(-25.0) / 10 + 1.5, batch["WATER"][:, 0].long()


def network(n_bands: int, n_classes: int) -> nn.Sequential:
    """Return a small convolutional network from triplets to classes of pixels."""
    return nn.Sequential(
        nn.Conv2d(3 * n_bands, 32, 3, padding=1),
        nn.GELU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.GELU(),
        nn.Conv2d(32, n_classes, 1),
    )


def main() -> dict[str, float]:
    """Train on some events, and return the share of pixels of the others that are right."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bank")
    parser.add_argument("table")
    parser.add_argument("--classes", type=int, default=3, help="0 land, 1 permanent water, 2 flood")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=10)
    given = parser.parse_args()
    query = tb.open(given.bank).sql(SQL.format(table=given.table))
    parts = query.split_by("event", {"train": 0.7, "held_out": 0.3}, seed=3)
    train, held_out = parts["train"].plan(), parts["held_out"].plan()
    torch.manual_seed(0)
    model = network(len(train.handles[0].bands), given.classes)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    with train.dataloader(batch_size=given.batch_size, seed=0) as loader:
        for _ in range(given.epochs):
            for batch in loader:
                x, classes = pixels_of(batch)
                loss = nn.functional.cross_entropy(model(x), classes, ignore_index=IGNORED)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    right = n_pixels = 0
    with held_out.dataloader(batch_size=given.batch_size, shuffle=False) as loader, torch.no_grad():
        for batch in loader:
            x, classes = pixels_of(batch)
            known = classes != IGNORED
            right += int((model(x).argmax(1) == classes)[known].sum())
            n_pixels += int(known.sum())
    events = [sorted({*plan.table["event"].to_pylist()}) for plan in (train, held_out)]
    print(
        f"trained on {len(train)} triplets of {len(events[0])} events; {right / n_pixels:.1%} of the pixels of {len(held_out)} "
        f"triplets of {len(events[1])} other events are right"
    )
    return {"right": right / n_pixels, "n_train": len(train), "n_held_out": len(held_out)}


if __name__ == "__main__":
    main()
