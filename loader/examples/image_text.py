"""Images and texts by a contrastive loss, as MS-CLIP; the texts are a table that SQL joins and filters.

    python loader/examples/image_text.py BANK TABLE texts.parquet [--task caption] [--epochs 10]

Texts have the columns ``sample_id``, ``text`` and ``task``, as BigEarthNet.txt, GAIA and the captions of SSL4EO-S12 can be
written: several texts of an image, of several tasks. The query keeps one task and draws one text of each image, and only
images that have one are read. The loss is that of CLIP (Radford et al., arXiv 2103.00020), which MS-CLIP takes over for
multispectral images (Marimo et al., arXiv 2503.15969).
"""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Sequence

import torch
from torch import nn

import tensorbank as tb

# %% One text of each image: another seed draws others (hash(text, seed) would move all images' draws alike)
SQL = """
SELECT t.sample_id, t.S2L2A, x.text
FROM {table} t JOIN texts x USING (sample_id)
WHERE x.task = $task
QUALIFY row_number() OVER (PARTITION BY t.sample_id ORDER BY hash(concat(x.text, $seed)), x.text) = 1
"""
N_WORDS = 4096


# %% Two encoders; put pretrained ones here
class Images(nn.Module):
    """An encoder of pixels (n, band, y, x)."""

    def __init__(self, n_bands: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(n_bands, 32, 8, 8),
            nn.GELU(),
            nn.Conv2d(32, width, 4, 4),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(self.layers(pixels), dim=1)


class Texts(nn.Module):
    """An encoder of texts: the mean of the embeddings of their words, whose numbers are hashes."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.words = nn.EmbeddingBag(N_WORDS, width, mode="mean")

    def forward(self, texts: Sequence[str]) -> torch.Tensor:
        numbers = [[zlib.crc32(word.encode()) % N_WORDS for word in text.lower().split()] for text in texts]
        starts = torch.tensor([0, *(len(n) for n in numbers)]).cumsum(0)[:-1]
        flat = torch.tensor([number for some in numbers for number in some])
        return nn.functional.normalize(self.words(flat, starts), dim=1)


def clip_loss(images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return the mean of the cross-entropies of finding the text of each image, and the image of each text, in the batch."""
    logits = scale.exp() * images @ texts.T
    right = torch.arange(len(logits))
    return (nn.functional.cross_entropy(logits, right) + nn.functional.cross_entropy(logits.T, right)) / 2


def main() -> list[float]:
    """Train, and return the losses."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bank")
    parser.add_argument("table")
    parser.add_argument("texts", help="Parquet or CSV file")
    parser.add_argument("--task", default="caption")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=10)
    given = parser.parse_args()
    bank = tb.open(given.bank)
    bank.register("texts", given.texts)
    known = bank.sql(f"SELECT S2L2A FROM {given.table}").statistics(
        "S2L2A"
    )  # from the index: no pixel is read
    mean, std = torch.tensor(known.mean)[:, None, None], torch.tensor(known.std)[:, None, None]
    torch.manual_seed(0)
    images, texts, scale = Images(len(mean), 64), Texts(64), nn.Parameter(torch.tensor(2.66))
    optimizer = torch.optim.AdamW([*images.parameters(), *texts.parameters(), scale], lr=3e-3)
    losses: list[float] = []
    for epoch in range(given.epochs):
        plan = bank.sql(SQL.format(table=given.table), task=given.task, seed=epoch).plan()
        with plan.dataloader(batch_size=given.batch_size, seed=epoch, drop_last=True) as loader:
            for batch in loader:
                seen = images((batch["S2L2A"].float() - mean) / std)
                loss = clip_loss(seen, texts(batch["text"]), scale)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(float(loss.detach()))
    print(
        f"loss {losses[0]:.3f} at first, {losses[-1]:.3f} at last; {len(plan)} images have a text of the task {given.task}"
    )
    return losses


if __name__ == "__main__":
    main()
