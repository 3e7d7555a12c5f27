"""Normalisation against float64 arithmetic in numpy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import tensorbank as tb
from support.handmade import make
from tensorbank import Band, InvalidInputError, Modality, Normalization, NotFoundError, normalization
from tensorbank.plans.handle import Handle
from tensorbank.statistics.published import PROFILE_NAMES
from tensorbank.statistics.summaries import BandSummary, Statistics
from tensorbank_loader import DataLoader, Normalize

S2L2A = Modality("S2L2A", "int16", tuple(Band(f"B{i:02d}") for i in range(12)), 1, 12, 10)
LULC = Modality("LULC", "uint8", (Band("LULC"),), 1, 12, 10, classes=((0, "no_data"), (1, "water")))
S1RTC = Modality("S1RTC", "float16", (Band("VV"), Band("VH")), 1, 12, 10)
BANDS = (7, 3, 2)
REAL = (Handle("optical", S2L2A, BANDS), Handle("LULC", LULC, (0,)), Handle("S1RTC", S1RTC, (0, 1)))
CONSTANTS = {
    "S2": Normalization((1.0, 20.0, 300.0, -4.0), (2.0, 0.5, 1000.0, 3.0)),
    "series": Normalization((-7.5,), (3.25,)),
    "QA": Normalization((40000.0,), (123.0,)),
}


def expected(pixels: np.ndarray, constants: Normalization) -> np.ndarray:
    """Return the normalised pixels (..., band, y, x) in float64."""
    mean, std = (np.array(v)[:, None, None] for v in (constants.mean, constants.std))
    return (pixels.astype(np.float64) - mean) / std


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("part"), 23)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    return make(tmp_path_factory.mktemp("real"), 12, handles=REAL)


def batches_of(plan, **options: object):
    return list(DataLoader(plan, batch_size=5, shuffle=False, **options))


def test_integers_and_floats_become_what_numpy_says_and_the_rest_is_left_alone(made):
    plain = batches_of(made.plan)
    assert len(plain) > 1
    for before, after in zip(
        plain, batches_of(made.plan, transform=Normalize(made.plan, CONSTANTS)), strict=True
    ):
        assert list(after) == list(before)
        for name, constants in CONSTANTS.items():
            assert after[name].dtype == torch.float32
            truth = expected(before[name].numpy(), constants)
            np.testing.assert_allclose(after[name].numpy(), truth, rtol=1e-5, atol=1e-5, err_msg=name)
        for name in ("LULC", "both", "count", "cloud_cover"):
            np.testing.assert_array_equal(after[name].numpy(), before[name].numpy())
        assert after["sample_id"] == before["sample_id"]


def test_bfloat16_is_rounded_once_from_float32(made):
    full, half = (
        Normalize(made.plan, CONSTANTS, dtype=dtype)(batches_of(made.plan)[0])["S2"]
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, full.to(torch.bfloat16))


def test_the_batch_that_is_given_stays_as_it_is(made):
    batch = batches_of(made.plan)[0]
    before = {name: batch[name].clone() for name in CONSTANTS}
    Normalize(made.plan, CONSTANTS, fill=0.0)(batch)
    for name, tensor in before.items():
        np.testing.assert_array_equal(batch[name].numpy(), tensor.numpy())


def test_nan_stays_nan_unless_there_is_a_fill(made):
    batch = batches_of(made.plan)[0]
    gone = torch.isnan(batch["series"])
    assert gone.any()
    assert torch.equal(torch.isnan(Normalize(made.plan, CONSTANTS)(batch)["series"]), gone)
    filled = Normalize(made.plan, CONSTANTS, fill=-3.0)(batch)["series"]
    assert torch.equal(filled == -3.0, gone)


def test_missing_samples_and_nodata_get_the_fill(made):
    batch = next(b for b in batches_of(made.plan) if not b["mask"]["LULC"].all())
    present = batch["mask"]["LULC"]
    constants = {"LULC": Normalization((10.0,), (2.0,)), "QA": CONSTANTS["QA"]}
    value = int(batch["QA"][0, 0, 0, 0])
    done = Normalize(made.plan, constants, fill=0.0, nodata={"QA": value})(batch)
    assert (done["LULC"][~present] == 0).all()
    assert (done["LULC"][present] == (batch["LULC"][present].float() - 10) / 2).all()
    marked = batch["QA"].numpy() == value
    assert marked.any()
    np.testing.assert_array_equal(done["QA"].numpy()[marked], 0.0)
    np.testing.assert_allclose(
        done["QA"].numpy()[~marked], expected(batch["QA"].numpy(), CONSTANTS["QA"])[~marked], rtol=1e-5
    )


@pytest.mark.parametrize("profile", ["terramesh", "terramind-v1"])
def test_a_profile_follows_the_bands_that_were_selected_and_leaves_classes_alone(real, profile):
    plain, done = (
        batches_of(real.plan, transform=t)[0] for t in (None, Normalize(real.plan, profile, fill=None))
    )
    whole = normalization(profile, "S2L2A")
    chosen = Normalization(tuple(whole.mean[b] for b in BANDS), tuple(whole.std[b] for b in BANDS))
    np.testing.assert_allclose(done["optical"], expected(plain["optical"].numpy(), chosen), rtol=1e-5)
    radar = expected(plain["S1RTC"].numpy(), normalization(profile, "S1RTC"))
    np.testing.assert_allclose(done["S1RTC"], radar, rtol=1e-4, atol=1e-5)
    assert torch.equal(done["LULC"], plain["LULC"])


def test_statistics_of_the_selection_normalise_it_to_mean_0_and_deviation_1(real):
    """Bands of the statistics are found by name: they may be of the whole modality, in stored order."""
    handle = real.plan.handles[0]
    pixels = real.truth["optical"].astype(np.float64)
    names = [handle.modality.band_names[b] for b in BANDS]
    of = {
        n: BandSummary(n, 1, 1, mean=pixels[:, :, i].mean(), std=pixels[:, :, i].std())
        for i, n in enumerate(names)
    }
    bands = tuple(of.get(n, BandSummary(n, 0, 0)) for n in handle.modality.band_names)
    transform = Normalize(real.plan, {"optical": Statistics("S2L2A", 12, bands)})
    done = torch.cat([b["optical"] for b in batches_of(real.plan, transform=transform)]).double()
    np.testing.assert_allclose(done.mean(dim=(0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(done.std(dim=(0, 2, 3), correction=0), 1, rtol=1e-5)


def test_it_moves_and_saves_as_a_module_does(made):
    module = Normalize(made.plan, CONSTANTS)
    assert set(module.state_dict()) == {f"{k}_{n}" for k in ("mean", "std") for n in CONSTANTS}
    assert {b.device.type for b in module.to("meta").buffers()} == {"meta"}
    assert "series" in repr(module)


def test_a_transform_is_moved_to_the_device_once_and_keeps_its_mode(made):
    class Seen(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))
            self.modes = set()

        def forward(self, batch):
            self.modes.add((self.training, torch.is_grad_enabled(), self.weight.device.type))
            assert batch["S2"].device.type == "meta"
            return batch

    seen = Seen().eval()
    for _ in DataLoader(made.plan, batch_size=5, device="meta", transform=seen):
        assert torch.is_grad_enabled()
    assert seen.modes == {(False, False, "meta")}


def test_every_profile_is_usable(tmp_path):
    assert len(PROFILE_NAMES) > 1
    for profile in PROFILE_NAMES:
        n = len(normalization(profile, "S2L2A").mean)
        made = make(tmp_path / profile, 3, handles=(Handle("S2L2A", S2L2A, tuple(range(n))),))
        assert Normalize(made.plan, profile).names == ("S2L2A",)


def test_a_mix_of_sources_with_other_tensors(made, real):
    constants = {"S2": CONSTANTS["S2"], "optical": Normalization((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))}
    mix = tb.mix({made.plan: 0.5, real.plan: 0.5}, seed=1, homogeneous=True)
    seen = set()
    plain, done = (DataLoader(mix, batch_size=4, transform=t) for t in (None, Normalize(mix, constants)))
    for before, after in zip(plain, done, strict=True):
        (name,) = constants.keys() & before.keys()
        truth = expected(before[name].numpy(), constants[name])
        np.testing.assert_allclose(after[name].numpy(), truth, rtol=1e-5, atol=1e-5)
        seen.add(name)
    assert seen == set(constants)


def test_one_name_for_other_bands_in_a_mix_is_refused(tmp_path):
    plans = [make(tmp_path / str(b), 3, handles=(Handle("S1", S1RTC, (b,)),)).plan for b in range(2)]
    mix = tb.mix(dict.fromkeys(plans, 0.5), homogeneous=True)
    with pytest.raises(InvalidInputError, match="S1 has other bands"):
        Normalize(mix, "terramesh")


@pytest.mark.parametrize(
    ("constants", "options", "error", "words"),
    [
        ("terramind-v2", {}, NotFoundError, "terramind-v1"),
        ("terramesh", {}, NotFoundError, "terramesh has no constants for 'S2'"),
        ({"S3": CONSTANTS["S2"]}, {}, NotFoundError, "'S3'"),
        ({"QA": CONSTANTS["S2"]}, {}, InvalidInputError, "QA has 1 bands, got 4"),
        ({"QA": Normalization((1.0,), (0.0,))}, {}, InvalidInputError, "band b1 of QA has mean 1.0"),
        (
            {"QA": Statistics("QA", 0, (BandSummary("b1", 0, 0),))},
            {},
            InvalidInputError,
            "band b1 of QA has mean None",
        ),
        ({"QA": Statistics("QA", 1, shares={"water": 1.0})}, {}, InvalidInputError, "categorical"),
        (CONSTANTS, {"dtype": torch.int16}, InvalidInputError, "int16"),
        (CONSTANTS, {"nodata": {"QA": 0}}, InvalidInputError, "fill"),
        (CONSTANTS, {"nodata": {"QB": 0}, "fill": 0.0}, NotFoundError, "'QB'"),
        ({"S2": ([1.0] * 4, [2.0] * 4)}, {}, InvalidInputError, "give a tensorbank.Normalization"),
    ],
)
def test_what_cannot_be_normalised_is_refused(made, constants, options, error, words):
    with pytest.raises(error, match=words):
        Normalize(made.plan, constants, **options)


def test_a_profile_of_other_bands_is_refused(tmp_path):
    narrow = replace(S2L2A, bands=S2L2A.bands[:4])
    made = make(tmp_path, 3, handles=(Handle("S2L2A", narrow, (0, 1)),))
    with pytest.raises(InvalidInputError, match="12 bands of S2L2A, the table has 4"):
        Normalize(made.plan, "terramesh")
