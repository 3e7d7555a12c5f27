"""Images found by images: embeddings and binary codes are columns, SQL finds the nearest, and their precision is measured.

    python loader/examples/retrieval.py BANK TABLE [--label "dominant_class(LULC)"] [--bits 32] [--at 10]

As Blumenstiel et al. (arXiv 2403.02059) have it with Prithvi: the embedding of a pretrained encoder, cut to bits by signs of
random projections so that a Hamming distance stands for an angle (Charikar, 2002), and the mean average precision of the
first ``--at`` answers, of which one is right if it has the query's label. ``embedded`` takes statistics of bands for want of
an encoder.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import pyarrow as pa
import torch

import tensorbank as tb

# %% The nearest by angle, and by bits; the answer to a query is every other sample
NEAREST = """
SELECT q.sample_id AS query, q.{label} = a.{label} AS is_right
FROM {table} q JOIN {table} a ON q.sample_id <> a.sample_id
QUALIFY row_number() OVER (PARTITION BY q.sample_id ORDER BY {distance}, a.sample_id) <= $n
ORDER BY query, row_number() OVER (PARTITION BY q.sample_id ORDER BY {distance}, a.sample_id)
"""
DISTANCES = {
    "embeddings": "-list_cosine_similarity(q.embedding, a.embedding)",
    "binary codes": "bit_count(xor(q.code, a.code))",
}


def embedded(batch: dict[str, Any]) -> torch.Tensor:
    """Return an embedding of each sample, (n, width) float32; put a pretrained encoder here."""
    pixels = batch["S2L2A"].float().flatten(2)
    return torch.cat((pixels.mean(2), pixels.std(2)), dim=1).clamp(min=1.0).log()


def codes_of(embeddings: np.ndarray, n_bits: int) -> np.ndarray:
    """Return (n,) int64 codes: a bit says on which side of a random plane through the mean an embedding lies."""
    planes = np.random.default_rng(0).standard_normal((embeddings.shape[1], n_bits))
    bits = (embeddings - embeddings.mean(0)) @ planes > 0
    return (bits @ (1 << np.arange(n_bits, dtype=np.int64))).astype(np.int64)


# %% The score
def average_precision(right: np.ndarray) -> float:
    """Return the mean, over the places of right answers, of the share of right ones up to there; 0 if none is right."""
    found = np.flatnonzero(right)
    return float(np.mean(np.arange(1, len(found) + 1) / (found + 1))) if len(found) else 0.0


def main() -> dict[str, float]:
    """Write the columns, ask, and return the mean average precision of each distance and of answers by chance."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bank")
    parser.add_argument("table")
    parser.add_argument("--label", default="label", help="column whose equality makes an answer right")
    parser.add_argument("--bits", type=int, default=32)
    parser.add_argument("--at", type=int, default=10)
    given = parser.parse_args()
    bank = tb.open(given.bank)
    names: list[str] = []
    found: list[torch.Tensor] = []
    with bank.sql(f"SELECT sample_id, S2L2A FROM {given.table}").dataloader(
        batch_size=64, shuffle=False
    ) as loader:
        for batch in loader:
            names += batch["sample_id"]
            found.append(embedded(batch))
    if len(names) <= given.at:
        raise SystemExit(
            f"{given.table} has {len(names)} samples, and {given.at} answers besides the query are asked for"
        )
    embeddings = torch.cat(found).numpy()
    embeddings = embeddings - embeddings.mean(0)
    codes = codes_of(embeddings, given.bits)
    columns = pa.table({"sample_id": names, "embedding": list(embeddings), "code": codes})
    bank.table(given.table).add_columns(columns, replace=True)
    scores = {}
    for name, distance in DISTANCES.items():
        sql = NEAREST.format(table=given.table, label=given.label, distance=distance)
        rows = bank.sql(sql, n=given.at).arrow()
        right = rows["is_right"].to_numpy(zero_copy_only=False).astype(bool).reshape(-1, given.at)
        scores[name] = float(np.mean([average_precision(row) for row in right]))
        print(f"mAP@{given.at} of {len(right)} queries by {name}: {scores[name]:.3f}")
    print(f"bytes a sample: {embeddings[0].nbytes} of the embedding, {given.bits // 8} of the code")
    return scores


if __name__ == "__main__":
    main()
