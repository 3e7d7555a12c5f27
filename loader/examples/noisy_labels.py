"""Labels of which some are wrong: losses are written back, and the next epoch draws by weights that SQL makes of them.

    python loader/examples/noisy_labels.py BANK TABLE [--label label] [--epochs 6] [--wrong 0.2]

Samples that a model still gets wrong after some epochs tend to have wrong labels (small-loss selection: Han et al.,
"Co-teaching", arXiv 1804.06872). After each epoch the loss of every sample goes to the column ``loss``, and the weight of a
sample in the next epoch is 0 for the share of samples that has the highest losses. Nothing is deleted; the history of the
table has each epoch.
"""

from __future__ import annotations

import argparse

import pyarrow as pa
import torch
from torch import nn

import tensorbank as tb

# %% The weights: samples above a quantile of the losses are left out of the epoch
WEIGHTED = """
SELECT sample_id, S2L2A, {label} AS label,
       CASE WHEN loss <= (SELECT quantile_cont(loss, 1.0 - $wrong) FROM {table}) THEN 1.0 ELSE 0.0 END AS weight
FROM {table}
"""


def features(batch: dict) -> torch.Tensor:
    """Return the mean and deviation of each band, (n, 2 * band); the features of a pretrained model belong here."""
    pixels = batch["S2L2A"].float().flatten(2) / 1e4
    return torch.cat((pixels.mean(2), pixels.std(2)), dim=1)


def losses_of(model: nn.Module, batch: dict) -> torch.Tensor:
    """Return the loss of each sample, (n,)."""
    return nn.functional.binary_cross_entropy_with_logits(
        model(features(batch))[:, 0], batch["label"].float(), reduction="none"
    )


def main() -> list[str]:
    """Train, and return the names of the samples that the last epoch left out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bank")
    parser.add_argument("table")
    parser.add_argument("--label", default="label", help="column or expression of 0 and 1")
    parser.add_argument("--wrong", type=float, default=0.2, help="share of labels that are taken for wrong")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=6)
    given = parser.parse_args()
    bank = tb.open(given.bank)
    every = bank.sql(f"SELECT sample_id, S2L2A, {given.label} AS label FROM {given.table}")
    n = 2 * len(every.plan().handles[0].bands)
    torch.manual_seed(0)
    model = nn.Sequential(nn.LayerNorm(n), nn.Linear(n, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-2)
    for epoch in range(given.epochs):
        query = (
            every
            if not epoch
            else bank.sql(WEIGHTED.format(label=given.label, table=given.table), wrong=given.wrong)
        )
        with query.dataloader(batch_size=given.batch_size, seed=epoch) as loader:
            for batch in loader:
                optimizer.zero_grad()
                losses_of(model, batch).mean().backward()
                optimizer.step()
        names, losses = [], []
        with every.dataloader(batch_size=64, shuffle=False) as loader, torch.no_grad():
            for batch in loader:
                names += batch["sample_id"]
                losses += losses_of(model, batch).tolist()
        bank.table(given.table).add_columns(pa.table({"sample_id": names, "loss": losses}), replace=True)
        print(f"epoch {epoch + 1}: mean loss {sum(losses) / len(losses):.3f}")
    rows = bank.sql(WEIGHTED.format(label=given.label, table=given.table), wrong=given.wrong).arrow()
    return [
        name
        for name, weight in zip(rows["sample_id"].to_pylist(), rows["weight"].to_pylist(), strict=True)
        if not weight
    ]


if __name__ == "__main__":
    main()
