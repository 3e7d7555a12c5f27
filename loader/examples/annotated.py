"""Images with annotated pixels: MESS, GEO-Bench, and other sets of semantic segmentation.

    python loader/examples/annotated.py BANK TABLE [--image S2L2A --labels LULC] [--epochs 10]

Labels are a modality beside the pixels. Weights of classes come from the shares that the index has of each, without a look at
a pixel, and augmentations turn image and labels together. The score is the mean of the intersections over unions of classes,
as MESS (Blumenstiel et al., arXiv 2306.15521) and GEO-Bench (Lacoste et al., arXiv 2306.03831) have it.
"""

from __future__ import annotations

import argparse

import torch
from torch import nn

import tensorbank as tb

IGNORED = 255


# %% Weights of classes, from the index
def class_weights(query: tb.Query, labels: tb.Modality) -> torch.Tensor:
    """Return a weight for each code, (codes,): the inverse of its share, 0 of a class that does not occur; their mean is 1."""
    shares = query.statistics(labels.name).shares
    if not labels.classes or shares is None:
        raise SystemExit(f"{labels.name} has no classes")
    weights = torch.zeros(max(code for code, _ in labels.classes) + 1)
    for code, name in labels.classes:
        if shares[name] > 0:
            weights[code] = 1.0 / shares[name]
    return weights / weights[weights > 0].mean()


def turned(
    image: torch.Tensor, labels: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return both turned by the same quarters and mirrored alike, anew for each batch."""
    quarters, mirrored = (int(torch.randint(n, (1,), generator=generator)) for n in (4, 2))
    image, labels = image.rot90(quarters, (-2, -1)), labels.rot90(quarters, (-2, -1))
    return (image.flip(-1), labels.flip(-1)) if mirrored else (image, labels)


def network(n_bands: int, n_classes: int) -> nn.Sequential:
    """Return a small convolutional network from pixels to classes of pixels; put a pretrained encoder here."""
    return nn.Sequential(
        nn.BatchNorm2d(n_bands),
        nn.Conv2d(n_bands, 32, 3, padding=1),
        nn.GELU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.GELU(),
        nn.Conv2d(32, n_classes, 1),
    )


# %% The score
def mean_iou(confusion: torch.Tensor) -> float:
    """Return the mean intersection over union of a matrix of pixels [right, found], of classes that occur in either."""
    both, either = confusion.diag(), confusion.sum(0) + confusion.sum(1) - confusion.diag()
    return float((both[either > 0] / either[either > 0]).mean())


def main() -> dict[str, float]:
    """Train on most places, and return the score on the others."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bank")
    parser.add_argument("table")
    parser.add_argument("--image", default="S2L2A")
    parser.add_argument("--labels", default="LULC")
    parser.add_argument(
        "--place",
        default="coalesce(location_id, cell_id, sample_id)",
        help="samples of a place stay together",
    )
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=10)
    given = parser.parse_args()
    bank = tb.open(given.bank)
    query = bank.sql(
        f"SELECT sample_id, {given.place} AS place, {given.image}, {given.labels} FROM {given.table}"
    )
    parts = query.split_by("place", {"train": 0.8, "test": 0.2})
    weights = class_weights(parts["train"], bank.table(given.table).schema[given.labels])
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    train, test = parts["train"].plan(), parts["test"].plan()
    model = network(len(train.handles[0].bands), len(weights))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    with train.dataloader(batch_size=given.batch_size, seed=0) as loader:
        for _ in range(given.epochs):
            for batch in loader:
                image, right = turned(batch[given.image].float(), batch[given.labels][:, 0].long(), generator)
                loss = nn.functional.cross_entropy(model(image), right, weights, ignore_index=IGNORED)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    model.eval()
    confusion = torch.zeros(len(weights), len(weights), dtype=torch.int64)
    with test.dataloader(batch_size=given.batch_size, shuffle=False) as loader, torch.no_grad():
        for batch in loader:
            found, right = model(batch[given.image].float()).argmax(1), batch[given.labels][:, 0].long()
            known = right != IGNORED
            pairs = right[known] * len(weights) + found[known]
            confusion += pairs.bincount(minlength=confusion.numel()).reshape(confusion.shape)
    score = mean_iou(confusion)
    print(f"trained on {len(train)} samples; mean IoU {score:.3f} on {len(test)} of other places")
    return {"mean_iou": score, "n_train": len(train), "n_test": len(test)}


if __name__ == "__main__":
    main()
