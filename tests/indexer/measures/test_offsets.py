"""The offset of Sentinel-2 values: stated where the pixels show it, doubted where they do not."""

from __future__ import annotations

import numpy as np
import pytest

import tensorbank as tb
from tensorbank.statistics.pixels import measure_pixels
from tensorbank.statistics.published import normalization
from tensorbank_indexer import IngestOptions, ingest, open_source
from tensorbank_indexer.measures.offsets import baseline_of, radiometric_offset
from tensorbank_indexer.modalities import describe

L1C = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12"]
BANDS = {"S2L1C": L1C, "S2L2A": [b for b in L1C if b != "B10"]}
OLD, NEW = "S2A_MSIL1C_20200408T101021_N0209_R022_T33UUP", "S2A_MSIL1C_20200408T101021_N0500_R022_T33UUP"


def scene(level: str, *, clouds: bool = False, offset: int = 0) -> np.ndarray:
    """Return pixels of land with shadows, or of cloud throughout: (1, band, 64, 64)."""
    random = np.random.default_rng(5)
    low, high = (3500, 9000) if clouds else (60, 2500)
    pixels = random.integers(low, high, (1, len(BANDS[level]), 64, 64)).astype(np.int16)
    if level == "S2L1C":
        pixels[:, BANDS[level].index("B10")] = random.integers(
            1200 if clouds else 2, 1500 if clouds else 60, (64, 64)
        )
    return pixels + np.int16(offset)


def found(level: str, pixels: np.ndarray, *ids: str):
    modality = describe(level, "int16", BANDS[level], pixels.shape)
    return radiometric_offset(modality, measure_pixels(pixels, 4), ids)


@pytest.mark.parametrize("level", ["S2L1C", "S2L2A"])
@pytest.mark.parametrize("offset", [0, 1000])
def test_land_shows_its_offset(level, offset):
    assert found(level, scene(level, offset=offset)).value == offset


@pytest.mark.parametrize("level", ["S2L1C", "S2L2A"])
@pytest.mark.parametrize("offset", [0, 1000])
@pytest.mark.parametrize("ids", [(), (NEW,)])
def test_a_scene_of_nothing_but_cloud_does_not(level, offset, ids):
    doubt = found(level, scene(level, clouds=True, offset=offset), *ids)
    assert doubt.value is None
    assert doubt.method.startswith("unsure: ")


@pytest.mark.parametrize("level", ["S2L1C", "S2L2A"])
def test_a_baseline_without_offset_decides_where_pixels_do_not(level):
    decided = found(level, scene(level, clouds=True), OLD)
    assert decided.value == 0.0
    assert "N0209" in decided.method


@pytest.mark.parametrize("level", ["S2L1C", "S2L2A"])
@pytest.mark.parametrize("value", [0, 1, 7, -9999])
def test_one_pixel_without_data_hides_no_offset(level, value):
    """It used to make an offset of 1000 an offset of 0, stated without doubt."""
    pixels = scene(level, offset=1000)
    pixels[0, :, 5, 5] = value
    assert found(level, pixels).value in ((1000.0,) if value == 0 else (1000.0, None))
    pixels[0, :, :8] = value
    assert found(level, pixels).value != 1000.0


def test_nothing_but_nodata_is_unsure():
    assert found("S2L2A", np.zeros((1, 12, 64, 64), np.int16)).value is None


def test_a_baseline_that_contradicts_the_pixels_is_said():
    told = found("S2L1C", scene("S2L1C", offset=1000), OLD)
    assert told.value == 1000.0
    assert "N0209 adds none" in told.contradiction
    assert not found("S2L1C", scene("S2L1C", offset=1000), NEW).contradiction
    removed = found("S2L1C", scene("S2L1C"), NEW)
    assert (removed.value, removed.contradiction) == (0.0, "")
    assert "N0500 adds 1000, which was removed" in removed.method


def test_baselines_are_read_from_product_ids():
    assert baseline_of([NEW, OLD]) == 209
    assert baseline_of(["20200408T101021_20200408T101021_T33UUP", ""]) is None


def test_other_modalities_have_none():
    modality = describe("DEM", "int16", ["DEM"], (1, 1, 8, 8))
    assert radiometric_offset(modality, measure_pixels(np.zeros((1, 1, 8, 8), np.int16), 2), ()) is None


def test_doubt_and_contradiction_reach_table_and_report(write_members, tmp_path):
    odd = {
        0: {"pixels": {"S2L2A": scene("S2L2A", clouds=True)[..., :32, :32]}},
        1: {"pixels": {"S2L2A": scene("S2L2A", offset=1000)[..., :32, :32]}, "file_id": OLD},
        2: {"pixels": {"S2L2A": scene("S2L2A")[..., :32, :32]}},
    }
    bank = tb.create(tmp_path / "bank")
    report = ingest(
        open_source(str(write_members(3, ("S2L2A",), odd))), bank, "t", IngestOptions(n_workers=1)
    )
    assert [(f.kind, f.member) for f in report.findings] == [("offset-baseline", "majortom_train_0000002")]
    rows = bank.sql("SELECT S2L2A.radiometric_offset AS o FROM t ORDER BY stem").arrow()["o"].to_pylist()
    assert [r["value"] for r in rows] == [None, 1000.0, 0.0]


def test_constants_of_each_set_are_its_own():
    """TerraMind's from TerraTorch's register, TerraMesh's from its statistics file: close, and not the same."""
    terramind, terramesh = normalization("terramind-v1", "S2L2A"), normalization("terramesh", "S2L2A")
    assert terramind.mean[:3] == (1390.458, 1503.317, 1718.197)
    assert terramind.mean[-3:] == (3162.988, 2424.884, 1857.648)
    assert terramesh.mean[:3] == (1390.461, 1503.332, 1718.211)
    assert (terramind.std[0], terramesh.std[0]) == (2106.761, 2131.157)
    for modality in ("S2L1C", "S2L2A"):
        one, other = normalization("terramind-v1", modality), normalization("terramesh", modality)
        assert len(one.mean) == len(other.mean) == len(BANDS[modality])
        assert all(a != b for a, b in zip(one.mean, other.mean, strict=True))
        assert np.allclose(one.mean, other.mean, atol=0.03)
