"""The fit of a plan to a recipe: what a plan lacks or has otherwise is named."""

from __future__ import annotations

from dataclasses import replace

import pytest

from support.handmade import make
from support.pretraining_run import PIXELS, RECIPE, TOKENS, N, made
from tensorbank import Band, InvalidInputError
from tensorbank_loader.terramind import Crop, Crops
from tensorbank_pretraining import InputPixels, TokenModality
from tensorbank_pretraining.plan_fit import require_fit


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory):
    return made(tmp_path_factory.mktemp("fit") / "bank").plan


def tokens_of(crops: Crops):
    """Return a handle of tokens whose bands are named after crops."""
    return replace(TOKENS, modality=replace(TOKENS.modality, bands=tuple(map(Band, crops.band_names))))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tokens": (TokenModality("token", 9),)}, "needs token, which the plan does not select. .*tokens"),
        ({"global_batch_size": N + 1}, "29 samples, fewer than a batch of 30"),
        ({"pixels": (InputPixels("S2L2A", 3),)}, "3 bands of S2L2A, and the plan selects 2"),
        ({"crops": (Crop(5, 1), Crop(4, 2))}, "crops reach to 13 x 10, and S2L2A has 12 x 10 pixels"),
        ({"patch": 2}, "tokens has 2 x 2 tokens, and crops of 8 pixels in patches of 2 have 4 x 4"),
        ({"crops": RECIPE.crops[:1]}, "tokens has tokens of 2 crops, and the recipe lists 1"),
    ],
)
def test_what_does_not_fit_is_named(plan, change, words):
    require_fit(plan, RECIPE)  # the recipe itself fits
    with pytest.raises(InvalidInputError, match=words):
        require_fit(plan, replace(RECIPE, **change))


def test_tokens_of_other_crops_are_named(tmp_path):
    same = make(tmp_path / "same", 9, handles=(PIXELS, tokens_of(RECIPE.crop_settings()))).plan
    require_fit(same, RECIPE)
    for number, crops in enumerate(((Crop(0, 0), Crop(4, 2, flip=True)), RECIPE.crops[::-1])):
        other = make(tmp_path / str(number), 9, handles=(PIXELS, tokens_of(Crops(8, crops)))).plan
        with pytest.raises(
            InvalidInputError, match=r"tokens has tokens of the crops y\d_x.*recipe has y0_x1_s8, y4"
        ):
            require_fit(other, RECIPE)


def test_the_names_of_bands_say_the_crops(tmp_path):
    crops = Crops(224, (Crop(0, 0), Crop(40, 8), Crop(20, 20, flip=True)))
    assert crops.band_names == ("y0_x0_s224", "y40_x8_s224", "y20_x20_s224_flip")
    small = Crops(8, RECIPE.crops)
    named, others = tokens_of(small), tokens_of(Crops(8, RECIPE.crops[::-1]))
    others = replace(others, name="others", modality=replace(others.modality, name="others"))
    plan = make(tmp_path, 3, handles=(PIXELS, named, others)).plan
    assert Crops.of(plan, ["tokens"]) == small
    assert Crops.of(plan, ["S2L2A"]) is None, "pixels are no tokens"
    with pytest.raises(
        InvalidInputError, match=r"others has tokens of the crops y4_x2_s8_flip, .*and tokens of y0_x1_s8"
    ):
        Crops.of(plan, ["tokens", "others"])
