"""Labels where a model is least sure: its uncertainty is written back, and SQL picks what a person labels next.

    python loader/examples/few_shot.py BANK TABLE [--rounds 3] [--each 8]

Uncertainty sampling (Lewis and Gale, 1994) with a person in the loop. Here the person is a column of the table, the share of
trees; put your own labels in its place. Each round scores all samples that have no label yet, writes the entropies to the
column ``uncertainty`` of a new version, and asks for the highest ones, one a place so that near-duplicates are not labelled
twice.
"""

from __future__ import annotations

import argparse

import pyarrow as pa
import torch
from torch import nn

import tensorbank as tb

# %% What is labelled next
NEXT = """
SELECT sample_id FROM {table}
WHERE sample_id NOT IN $labelled
QUALIFY row_number() OVER (PARTITION BY coalesce(location_id, cell_id, sample_id) ORDER BY uncertainty DESC, sample_id) = 1
ORDER BY uncertainty DESC, sample_id
LIMIT $n
"""
LABELLED = (
    "SELECT sample_id, S2L2A, (LULC.share.trees > 0.25) AS label FROM {table} WHERE sample_id IN $labelled"
)


def features(batch: dict) -> torch.Tensor:
    """Return the mean and deviation of each band, (n, 2 * band); the features of a pretrained model belong here."""
    pixels = batch["S2L2A"].float().flatten(2) / 1e4
    return torch.cat((pixels.mean(2), pixels.std(2)), dim=1)


def trained(query: tb.Query) -> nn.Module:
    """Return a classifier of the samples that have labels."""
    plan = query.plan()
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.LayerNorm(2 * len(plan.handles[0].bands)), nn.Linear(2 * len(plan.handles[0].bands), 1)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-2)
    with plan.dataloader(batch_size=64, seed=0) as loader:
        for _ in range(30):
            for batch in loader:
                loss = nn.functional.binary_cross_entropy_with_logits(
                    model(features(batch))[:, 0], batch["label"].float()
                )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return model


# %% The uncertainty of all others
def scored(query: tb.Query, model: nn.Module) -> pa.Table:
    """Return the entropy of the model's answer for each sample, in bits, with its name."""
    names, entropies = [], []
    with query.dataloader(batch_size=64, shuffle=False) as loader, torch.no_grad():
        for batch in loader:
            p = model(features(batch))[:, 0].sigmoid().clamp(1e-6, 1 - 1e-6)
            names += batch["sample_id"]
            entropies += (-(p * p.log2() + (1 - p) * (1 - p).log2())).tolist()
    return pa.table({"sample_id": names, "uncertainty": entropies})


def main() -> list[str]:
    """Label some samples, round by round, and return their names in the order in which they were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bank")
    parser.add_argument("table")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--each", type=int, default=8)
    given = parser.parse_args()
    bank = tb.open(given.bank)
    table = bank.table(given.table)
    first = f"SELECT sample_id FROM {given.table} ORDER BY hash(sample_id, 0), sample_id LIMIT $n"
    labelled: list[str] = bank.sql(first, n=given.each).arrow()["sample_id"].to_pylist()
    for number in range(given.rounds):
        model = trained(bank.sql(LABELLED.format(table=given.table), labelled=labelled))
        scores = scored(bank.sql(f"SELECT sample_id, S2L2A FROM {given.table}"), model)
        table.add_columns(scores, replace=True)  # a version of its own: the history has each round
        table = bank.table(given.table)
        asked = (
            bank.sql(NEXT.format(table=given.table), labelled=labelled, n=given.each)
            .arrow()["sample_id"]
            .to_pylist()
        )
        done = f"round {number + 1}, version {table.version}: {len(labelled)} samples have labels"
        print(f"{done}; asks for {', '.join(asked[:3])} ...")
        labelled += asked
    return labelled


if __name__ == "__main__":
    main()
