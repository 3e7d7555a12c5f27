from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from tensorbank.errors import InvalidInputError
from tensorbank_demo.picture import CELL_INCH, DPI, contact_sheet

SHAPES = {"S2L2A": 12, "S2L1C": 13, "S1RTC": 2, "S1GRD": 2, "DEM": 1, "NDVI": 1, "LULC": 1, "S2RGB": 3}


def batch(n: int, *, with_time: bool = True) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    made: dict[str, np.ndarray] = {}
    for name, n_bands in SHAPES.items():
        noise = rng.random((n, n_bands, 64, 64))
        if name.startswith("S1"):
            made[name] = (noise * 20 - 25).astype(np.float16)
            made[name][0, :, 3, 3] = np.nan
        elif name == "NDVI":
            made[name] = (noise - 0.1).astype(np.float16)
            made[name][0, 0, 0, 0] = np.nan
        elif name == "LULC":
            made[name] = (noise * 10).astype(np.uint8)
        else:
            made[name] = (noise * (250 if name == "S2RGB" else 3000)).astype(
                np.uint8 if name == "S2RGB" else np.int16
            )
    return {name: values[:, None] for name, values in made.items()} if with_time else made


@pytest.mark.parametrize("with_time", [True, False])
def test_a_sheet_of_all_modalities(tmp_path: Path, with_time: bool):
    path = contact_sheet(
        batch(3, with_time=with_time), ["a", "b", "c"], list(SHAPES), tmp_path / "new" / "sheet.png"
    )
    image = imread(path)
    assert image.shape[1] == pytest.approx((len(SHAPES) * CELL_INCH + 0.36) * DPI, abs=2)
    assert image.shape[0] == pytest.approx((3 * CELL_INCH + 0.70) * DPI, abs=2)
    assert image[..., :3].std() > 0.1
    cell = CELL_INCH * DPI
    for row in range(3):
        for column in range(len(SHAPES)):
            y, x = int(0.36 * DPI + (row + 0.5) * cell), int(0.28 * DPI + (column + 0.5) * cell)
            assert image[y - 40 : y + 40, x - 40 : x + 40, :3].std() > 0.01, (row, column)


def test_a_missing_modality_is_a_grey_cell(tmp_path: Path):
    values = batch(1)
    del values["DEM"]
    image = imread(contact_sheet(values, ["a"], ["S2L2A", "DEM"], tmp_path / "sheet.png"))
    cell = CELL_INCH * DPI
    corner = image[int(0.36 * DPI + 12), int(0.28 * DPI + cell + 12), :3]
    assert corner == pytest.approx(np.array([228, 230, 234]) / 255, abs=0.01)


def test_shapes_that_do_not_fit_are_refused(tmp_path: Path):
    with pytest.raises(InvalidInputError, match=r"DEM has shape \(3, 1, 1, 64, 64\), expected \[2, "):
        contact_sheet(batch(3), ["a", "b"], ["DEM"], tmp_path / "sheet.png")
    with pytest.raises(InvalidInputError, match="Nothing to draw"):
        contact_sheet({}, [], ["DEM"], tmp_path / "sheet.png")
