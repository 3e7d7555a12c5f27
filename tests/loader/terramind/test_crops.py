"""Crops: pixels and tokens of one key are of one window, as plain slices say."""

from __future__ import annotations

import pytest
import torch

from tensorbank import InvalidInputError
from tensorbank_loader.terramind import Crop, Crops
from tensorbank_loader.terramind.keyed import below

KEYS = torch.arange(1, 60) * 7919
LISTED = Crops(size=16, listed=(Crop(0, 0), Crop(3, 4), Crop(3, 4, flip=True), Crop(8, 1)))


def image(n: int) -> torch.Tensor:
    return torch.arange(n * 2 * 24 * 20).reshape(n, 2, 24, 20)


def test_listed_crops_are_slices():
    tensor = image(len(KEYS))
    found = LISTED.pixels(tensor, KEYS)
    chosen = LISTED.chosen(KEYS)
    assert {*chosen.tolist()} == {0, 1, 2, 3}
    assert found.shape == (len(KEYS), 2, 16, 16)
    for sample, crop, number in zip(tensor, found, chosen.tolist(), strict=True):
        c = LISTED.listed[number]
        window = sample[:, c.y : c.y + 16, c.x : c.x + 16]
        assert (crop == (window.flip(-1) if c.flip else window)).all()


def test_tokens_are_of_the_crop_that_the_pixels_are_of():
    """Tokens that are means of patches, of each crop: the model must get those of the pixels that it gets."""
    tensor = image(len(KEYS)).double()
    windows = [tensor[:, :, c.y : c.y + 16, c.x : c.x + 16] for c in LISTED.listed]
    windows = [w.flip(-1) if c.flip else w for w, c in zip(windows, LISTED.listed, strict=True)]
    pooled = torch.stack([torch.nn.functional.avg_pool2d(w, 4)[:, 0] for w in windows], dim=1)
    found = LISTED.tokens(pooled, KEYS, "tokens")
    assert (found == torch.nn.functional.avg_pool2d(LISTED.pixels(tensor, KEYS), 4)[:, 0]).all()


def test_all_modalities_and_dates_have_one_crop():
    tensor = image(len(KEYS))
    crops = Crops(size=16)
    series = torch.stack([tensor, tensor + 1], dim=1)
    assert (crops.pixels(series, KEYS)[:, 0] == crops.pixels(tensor, KEYS)).all()
    assert (crops.pixels(series, KEYS)[:, 1] == crops.pixels(tensor, KEYS) + 1).all()


def test_random_crops_reach_everything():
    crops = Crops(size=16)
    keys = torch.arange(4000)
    tensor = image(1).expand(4000, -1, -1, -1)
    corners = crops.pixels(tensor, keys)[:, 0, 0, [0, -1]]
    flipped = corners[:, 0] > corners[:, 1]
    left = torch.where(flipped, corners[:, 1], corners[:, 0])
    assert len({*left.tolist()}) == (24 - 16 + 1) * (20 - 16 + 1)
    assert 0.46 < flipped.double().mean() < 0.54
    assert (flipped == (below(keys, "flip", 2) > 0)).all()


def test_what_does_not_fit_is_refused():
    with pytest.raises(InvalidInputError, match="reach to 24 x 20, and samples have 20 x 20"):
        LISTED.pixels(torch.zeros(2, 1, 20, 20), KEYS[:2])
    with pytest.raises(InvalidInputError, match="LULC_tokens has tokens of 3 crops, and 4 are listed"):
        LISTED.tokens(torch.zeros(2, 3, 4, 4), KEYS[:2], "LULC_tokens")
    with pytest.raises(InvalidInputError, match="1 crops, and 0 are listed"):
        Crops(size=16).tokens(torch.zeros(2, 4, 4), KEYS[:2], "LULC_tokens")
    with pytest.raises(InvalidInputError, match="y of a crop"):
        Crops(listed=(Crop(-1, 0),))
