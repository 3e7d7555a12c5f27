"""Augmentations: modalities stay co-registered, classes stay classes."""

from __future__ import annotations

import subprocess
import sys

import kornia.augmentation as K  # noqa: N812 - as kornia's documentation does
import pytest
import torch

from support.handmade import make
from tensorbank import InvalidInputError, NotFoundError
from tensorbank_loader import Augment, DataLoader

N, H, W = 16, 24, 20
GEOMETRIC = [
    K.RandomHorizontalFlip(p=0.5),
    K.RandomVerticalFlip(p=0.5),
    K.RandomAffine(40.0, translate=(0.1, 0.1), scale=(0.8, 1.2), p=0.7),
    K.RandomResizedCrop((12, 12), p=1.0),
]


@pytest.fixture
def batch():
    """A batch with the same picture in every modality: what is not co-registered afterwards would differ."""
    generator = torch.Generator().manual_seed(5)
    one = torch.rand(N, 1, H, W, generator=generator)
    return {
        "S2": torch.cat([one, one * 2, one * 3], dim=1),
        "S1": torch.stack([torch.cat([one, one], dim=1)] * 3, dim=1),  # three dates of two bands
        "int": (one * 1000).round().to(torch.int16),
        "half": one.to(torch.bfloat16),
        "LULC": torch.randint(0, 9, (N, 1, H, W), generator=generator, dtype=torch.uint8) * 11,
        "mask": {"S1": torch.ones(N, dtype=torch.bool)},
        "sample_id": [f"s{i}" for i in range(N)],
    }


def test_all_modalities_and_dates_move_alike(batch):
    torch.manual_seed(0)
    done = Augment(GEOMETRIC, modalities=["S2", "S1", "int", "half"], masks=["LULC"])(batch)
    one = done["S2"][:, :1]
    assert one.shape == (N, 1, 12, 12)
    assert done["S1"].shape == (N, 3, 2, 12, 12)
    torch.testing.assert_close(done["S2"], torch.cat([one, one * 2, one * 3], dim=1))
    torch.testing.assert_close(done["S1"], one[:, None].expand(-1, 3, 2, -1, -1))
    torch.testing.assert_close(done["int"] / 1000, one, atol=1e-3, rtol=0)
    torch.testing.assert_close(done["half"].float(), one, atol=1e-2, rtol=0)
    assert (done["int"].dtype, done["half"].dtype) == (torch.float32, torch.bfloat16)
    assert done["sample_id"] is batch["sample_id"]
    assert done["mask"] is batch["mask"]


def test_masks_follow_their_images_pixel_by_pixel(batch):
    """A mask made of the image's own pixels must, where both were moved without interpolation, still be that image's."""
    flips = [
        K.RandomHorizontalFlip(p=0.5),
        K.RandomVerticalFlip(p=0.5),
        K.RandomRotation90((0, 3), p=0.5, resample="nearest"),
    ]
    square = {"image": batch["LULC"][..., :W, :].float(), "LULC": batch["LULC"][..., :W, :]}
    torch.manual_seed(1)
    done = Augment(flips, modalities=["image"], masks=["LULC"])(square)
    assert done["LULC"].dtype == torch.uint8
    assert torch.equal(done["image"].to(torch.uint8), done["LULC"])
    moved = (done["LULC"] != square["LULC"]).flatten(1).any(dim=1)
    assert moved.any(), "nothing was augmented"


def test_classes_stay_classes(batch):
    torch.manual_seed(2)
    done = Augment(GEOMETRIC, modalities=["S2"], masks=["LULC"])(batch)
    assert done["LULC"].dtype == torch.uint8
    assert set(done["LULC"].unique().tolist()) <= {i * 11 for i in range(9)}


def test_samples_of_a_batch_differ_and_draws_follow_torchs_seed(batch):
    augment = Augment(GEOMETRIC, modalities=["S2"])
    same = {"S2": batch["S2"][:1].expand(N, -1, -1, -1)}
    runs = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        runs.append(augment(same)["S2"])
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    assert len({tuple(sample.flatten().tolist()) for sample in runs[0]}) > N // 2


def test_values_change_for_each_modality_by_itself_and_never_for_masks(batch):
    torch.manual_seed(5)
    steps = [K.RandomHorizontalFlip(p=1.0), K.RandomGaussianNoise(p=1.0), K.RandomVerticalFlip(p=1.0)]
    done = Augment(steps, modalities=["S2", "half"], masks=["LULC"])(batch)
    turned = {name: batch[name].flip(-1).flip(-2) for name in ("S2", "half", "LULC")}
    assert torch.equal(done["LULC"], turned["LULC"])
    noise = {name: (done[name].float() - turned[name].float())[:, 0] for name in ("S2", "half")}
    assert all(n.std() > 0.5 for n in noise.values())
    assert not torch.allclose(noise["S2"], noise["half"], atol=0.1)


def test_the_batch_that_is_given_stays_as_it_is(batch):
    before = {name: value.clone() for name, value in batch.items() if isinstance(value, torch.Tensor)}
    steps = [*GEOMETRIC, K.RandomGaussianNoise(p=1.0), K.RandomErasing(p=1.0)]
    assert {"S2", "S1", "half", "LULC"} <= set(before)
    Augment(steps, modalities=["S2", "S1", "half"], masks=["LULC"])(batch)
    assert all(torch.equal(batch[name], value) for name, value in before.items())


def test_one_augmentation_of_one_modality(batch):
    done = Augment(K.RandomHorizontalFlip(p=1.0), modalities=["S2"])(batch)
    assert torch.equal(done["S2"], batch["S2"].flip(-1))


def test_an_empty_share_passes_in_the_same_dtypes(batch):
    done = Augment(GEOMETRIC, modalities=["S2", "int"], masks=["LULC"])(
        {name: batch[name][:0] for name in ("S2", "int", "LULC")}
    )
    assert {name: (len(t), t.dtype) for name, t in done.items()} == {
        "S2": (0, torch.float32),
        "int": (0, torch.float32),
        "LULC": (0, torch.uint8),
    }


def test_in_a_loader_on_whole_batches(tmp_path):
    made = make(tmp_path, 23)
    augment = Augment(K.RandomHorizontalFlip(p=1.0), modalities=["S2", "series"], masks=["LULC"])
    options = {"batch_size": 5, "shuffle": False}
    plain = list(DataLoader(made.plan, **options))
    assert len(plain) == 5
    for before, after in zip(plain, DataLoader(made.plan, transform=augment, **options), strict=True):
        for name in ("S2", "series", "LULC"):
            torch.testing.assert_close(
                after[name].float(), before[name].flip(-1).float(), equal_nan=True, rtol=0, atol=0
            )


@pytest.mark.parametrize(
    ("steps", "options", "words"),
    [
        (GEOMETRIC, {"modalities": []}, "named"),
        (GEOMETRIC, {"modalities": ["S2"], "masks": ["S2"]}, "each once"),
        (torch.nn.Identity(), {"modalities": ["S2"]}, "Identity"),
        (K.AugmentationSequential(*GEOMETRIC), {"modalities": ["S2"]}, "container"),
        ([K.RandomMixUpV2()], {"modalities": ["S2"]}, "RandomMixUpV2"),
    ],
)
def test_what_is_no_augmentation_is_refused(steps, options, words):
    with pytest.raises(InvalidInputError, match=words):
        Augment(steps, **options)


def test_batches_that_do_not_fit_are_refused(batch):
    with pytest.raises(NotFoundError, match="S2L1C"):
        Augment(GEOMETRIC, modalities=["S2L1C"])(batch)
    with pytest.raises(InvalidInputError, match="one height and width"):
        Augment(GEOMETRIC, modalities=["S2", "S1"])(batch | {"S1": torch.zeros(N, 1, H, W + 1)})


def test_kornia_is_loaded_by_those_who_use_it():
    code = (
        "import sys, tensorbank_loader as t\n"
        "assert 'kornia' not in sys.modules\n"
        "sys.modules['kornia'] = None\n"
        "try: t.Augment([1], modalities=['S2'])\n"
        "except t.loader.InvalidInputError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "tensorbank[augment]" in done.stdout
