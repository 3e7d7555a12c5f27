"""The batch of a task: what TerraTorch 1.2 documents, compared with the pixels as they were written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from support.handmade import HANDLES, MISSING, Handmade, make, modality
from tensorbank import InvalidInputError, NotFoundError
from tensorbank.plans.handle import Handle
from tensorbank_lightning import TaskBatch
from tensorbank_lightning.task_batch import DETAILS
from tensorbank_loader import DataLoader, World

N = 23
NAMED = {h.name: h for h in HANDLES}
CHOSEN = tuple(NAMED[name] for name in ("S2", "both", "LULC"))
S2_CONSTANTS = {"S2": {"mean": [10.0, 20.0, 30.0, 40.0], "std": [1.0, 2.0, 4.0, 8.0]}}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Handmade:
    """S2 of four bands, S1 of two bands and four dates, and LULC, of which samples 0 and 13 have none."""
    return make(tmp_path_factory.mktemp("part"), N, handles=CHOSEN)


def whole(made: Handmade, **options: object) -> dict:
    """All samples as one batch, in the order of the plan."""
    form = TaskBatch(made.plan, **options)
    with DataLoader(made.plan, batch_size=N, shuffle=None, world=World(), transform=form) as loader:
        (batch,) = loader
    return batch


def test_images_are_floats_with_the_bands_before_the_dates(made):
    image = whole(made, mask="LULC")["image"]
    assert {name: (tuple(x.shape), x.dtype) for name, x in image.items()} == {
        "S2": ((N, 4, 12, 10), torch.float32),
        "both": ((N, 2, 4, 12, 10), torch.float32),
    }
    np.testing.assert_array_equal(image["S2"].numpy(), made.truth["S2"][:, 0].astype(np.float32))
    expected = np.nan_to_num(made.truth["both"].transpose(0, 2, 1, 3, 4).astype(np.float32))
    assert not (expected == made.truth["both"].transpose(0, 2, 1, 3, 4)).all()  # some have no value
    np.testing.assert_array_equal(image["both"].numpy(), expected)
    assert image["both"].is_contiguous()


def test_masks_are_classes_and_minus_one_where_there_is_none(made):
    mask = whole(made, mask="LULC", no_label=5)["mask"]
    expected = made.truth["LULC"][:, 0, 0].astype(np.int64)
    assert (expected == 5).any()
    expected[expected == 5] = -1
    ids = made.plan.table["sample_id"].to_pylist()
    lacking = [int(name[1:]) in MISSING["LULC"] for name in ids]
    assert sum(lacking) == 2
    expected[lacking] = -1
    assert mask.dtype == torch.int64
    np.testing.assert_array_equal(mask.numpy(), expected)


def test_a_mask_of_floats_has_no_class_where_it_has_no_value(tmp_path):
    heights = Handle("heights", modality("heights", "float32", 1), (0,))
    made = make(tmp_path, N, handles=(NAMED["S2"], heights))
    mask = whole(made, mask="heights")["mask"]
    stored = made.truth["heights"][:, 0, 0]
    assert np.isnan(stored).any()
    np.testing.assert_array_equal(mask.numpy(), np.where(np.isnan(stored), -1, stored).astype(np.int64))


def test_a_mask_of_several_dates_or_bands_is_refused(made):
    with pytest.raises(InvalidInputError, match="2 bands and 4 dates"):
        TaskBatch(made.plan, mask="both")


def test_nothing_else_lies_beside_what_a_task_takes(made):
    batch = whole(made, mask="LULC", label="count")
    assert set(batch) == {"image", "mask", "label", "filename", DETAILS}
    assert batch["label"].dtype == torch.int64
    assert batch["label"].tolist() == made.plan.table["count"].to_pylist()
    ids = made.plan.table["sample_id"].to_pylist()
    assert batch["filename"] == {"S2": ids, "both": ids, "LULC": ids}
    assert set(batch[DETAILS]) == {"sample_id", "cloud_cover", "maybe", "time", "mask"}


def test_pixels_are_normalised_band_by_band_and_the_others_stay(made):
    image = whole(made, mask="LULC", constants=S2_CONSTANTS)["image"]
    stored = made.truth["S2"][:, 0].astype(np.float64)
    mean, std = (np.array(S2_CONSTANTS["S2"][key])[:, None, None] for key in ("mean", "std"))
    np.testing.assert_allclose(image["S2"].numpy(), (stored - mean) / std, rtol=1e-6)
    plain = whole(made, mask="LULC")["image"]["both"]
    assert torch.equal(image["both"], plain)


def test_pixels_without_a_value_are_filled(made):
    image = whole(made, mask="LULC", constants=S2_CONSTANTS, fill=0.5, nodata={"S2": 7})["image"]
    seven = made.truth["S2"][:, 0] == 7
    assert seven.any()
    assert set(image["S2"].numpy()[seven].tolist()) == {0.5}
    gone = np.isnan(made.truth["both"].transpose(0, 2, 1, 3, 4))
    assert gone.any()
    assert set(image["both"].numpy()[gone].tolist()) == {0.5}


def test_one_date_is_repeated_beside_several_where_that_is_asked_for(made):
    image = whole(made, mask="LULC", repeat_dates=True)["image"]
    assert tuple(image["S2"].shape) == (N, 4, 4, 12, 10)
    for date in range(4):
        np.testing.assert_array_equal(image["S2"][:, :, date].numpy(), made.truth["S2"][:, 0])


def test_an_augmentation_gets_what_is_normalised_and_moves_the_mask(made):
    def upside_down(batch: dict) -> dict:
        return batch | {name: batch[name].flip(-2) for name in ("S2", "both", "LULC")}

    plain, turned = whole(made, mask="LULC"), whole(made, mask="LULC", augment=upside_down)
    assert torch.equal(turned["image"]["S2"], plain["image"]["S2"].flip(-2))
    assert torch.equal(turned["mask"], plain["mask"].flip(-2))


def test_what_the_query_lacks_is_named_with_what_is_near(made):
    for options, words in (
        ({"mask": "LULK"}, "no modality 'LULK' for the mask.*LULC"),
        ({"label": "counts"}, "no column 'counts' for the label.*count"),
        ({"constants": {"S3": {}}}, "no modality 'S3' to normalise.*S2"),
    ):
        with pytest.raises(NotFoundError, match=words):
            TaskBatch(made.plan, **options)
    with pytest.raises(InvalidInputError, match="mean and std, got mean"):
        TaskBatch(made.plan, constants={"S2": {"mean": [0.0]}})
    with pytest.raises(InvalidInputError, match="nulls"):
        whole(made, label="maybe")


def test_a_query_of_nothing_but_the_mask_is_refused(tmp_path: Path):
    made = make(tmp_path, 8, handles=(NAMED["LULC"],))
    with pytest.raises(InvalidInputError, match="no modality for the image"):
        TaskBatch(made.plan, mask="LULC")
