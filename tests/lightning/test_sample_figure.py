"""Figures of samples: what is drawn where, in which colours, by what TerraTorch's tasks hand over."""

from __future__ import annotations

import io

import numpy as np
import torch
from matplotlib import colormaps

from tensorbank_lightning.sample_figure import OVERLAY, SampleFigure

BANDS = {"S2L2A": ["B02", "B03", "B04", "B08"], "S1RTC": ["vv", "vh"]}
CLASSES = {0: "land", 2: "flood"}


def sample_of(**more: object) -> dict:
    """A sample as a task hands it over: modalities beside the rest. Red grows to the right, green downwards, blue is even."""
    along = torch.linspace(0, 1, 21)
    optical = torch.stack(
        [torch.ones(21, 21), along[:, None].expand(21, 21), along.expand(21, 21), torch.rand(21, 21)]
    )
    series = torch.stack([torch.rand(2, 21, 21), along.expand(2, 21, 21)], dim=1)
    return {"S2L2A": optical, "S1RTC": series, "filename": "folder/patch-7.tif", **more}


def axes_of(figure) -> dict:
    return {axis.get_title(): axis for axis in figure.axes}


def test_images_masks_and_predictions_stand_side_by_side():
    mask = torch.zeros(21, 21, dtype=torch.int64)
    mask[:, 10:], mask[0] = 2, -1
    found = torch.full((21, 21), 2)
    figure = SampleFigure(BANDS, CLASSES).plot(sample_of(mask=mask, prediction=found))
    axes = axes_of(figure)
    assert list(axes) == ["S2L2A", "S1RTC, the last of 2 dates", "truth", "prediction"]
    colours = axes["S2L2A"].images[0].get_array()
    assert colours.shape == (21, 21, 3)
    assert colours[10, 20, 0] == 1
    assert colours[10, 0, 0] == 0
    assert colours[20, 3, 1] == 1
    radar = axes["S1RTC, the last of 2 dates"].images[0].get_array()
    assert (np.diff(radar[5]) >= 0).all(), "the last date, not the first"
    base, over = (image.get_array() for image in axes["truth"].images)
    np.testing.assert_array_equal(base, colours)
    of_class = [(*colormaps["tab10"](code)[:3], OVERLAY) for code in (0, 2)]
    np.testing.assert_allclose(over[5, 3], of_class[0])
    np.testing.assert_allclose(over[5, 15], of_class[1])
    assert (over[0, :, 3] == 0).all(), "nothing is drawn where nobody knows the class"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["land", "flood"]
    assert figure.get_suptitle() == "patch-7.tif"
    out = io.BytesIO()
    figure.savefig(out)
    assert out.getvalue().startswith(b"\x89PNG")


def test_what_a_task_of_one_number_hands_over_is_drawn():
    """A regression: one modality under image, numbers that are no classes, and a pixel without any."""
    values = torch.linspace(0, 9, 441).reshape(21, 21)
    image = torch.rand(1, 21, 21)
    image[0, 3, 3] = torch.nan
    figure = SampleFigure(BANDS).plot({"image": image, "mask": values, "prediction": values + 0.5})
    axes = axes_of(figure)
    assert list(axes) == ["image", "truth", "prediction"]
    np.testing.assert_array_equal(axes["prediction"].images[1].get_array(), values + 0.5)
    assert np.isfinite(axes["image"].images[0].get_array()).all()
    assert not figure.legends


def test_a_class_of_a_whole_sample_stands_in_the_title():
    sample = sample_of(label=torch.tensor(3), prediction=torch.tensor(4))
    figure = SampleFigure(BANDS).plot(sample)
    assert figure.get_suptitle() == "patch-7.tif, label 3, prediction 4"
    assert len(figure.axes) == 2
    assert SampleFigure(BANDS).plot({"label": torch.tensor(3)}) is None
