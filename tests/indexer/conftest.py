"""Small archives of odd members, written by shared/sources/member_writer.py, which knows nothing of our code."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

SIDE = 32
WriteMembers = Callable[..., Path]


@pytest.fixture(scope="session")
def member_writer(shared_folder: Path) -> ModuleType:
    """The module that writes single members."""
    path = shared_folder / "sources" / "member_writer.py"
    spec = importlib.util.spec_from_file_location("member_writer", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def made_pixels(number: int, modality: str, n_dates: int = 1) -> np.ndarray:
    """Return plausible pixels of one sample, (time, band, y, x):
    S1RTC in decibels, DEM in metres, LULC in classes 1 to 9."""
    random = np.random.default_rng(number)
    if modality in ("S1RTC", "S1GRD"):
        return random.normal(-12, 3, (n_dates, 2, SIDE, SIDE)).astype(np.float16)
    if modality == "LULC":
        return random.integers(1, 10, (n_dates, 1, SIDE, SIDE)).astype(np.uint8)
    n_bands = {"S2L2A": 12, "S2L1C": 13}.get(modality, 1)
    return random.integers(100, 3000, (n_dates, n_bands, SIDE, SIDE)).astype(np.int16)


@pytest.fixture(scope="session")
def pixels_of() -> Callable[..., np.ndarray]:
    """Return ``pixels_of(number, modality)``: what ``write_members`` writes for a sample."""
    return made_pixels


@pytest.fixture
def write_members(member_writer: ModuleType, tmp_path: Path) -> WriteMembers:
    """Return ``write_members(n, modalities, odd={number: {...}}, name=...)``
    -> root of an archive of ``n`` samples.

    ``odd`` has, by the number of a sample, what its members are written with instead: ``pixels`` by modality, and whatever
    ``member_writer.member`` takes. Sample ``i`` lies at longitude ``15 + i / 10``, latitude 45, and its grid there.
    """
    import pyproj

    def write(
        n: int,
        modalities: Sequence[str] = ("S1RTC", "DEM"),
        odd: Mapping[int, Mapping[str, Any]] | None = None,
        *,
        name: str = "source",
        n_dates: int = 1,
    ) -> Path:
        to_utm = pyproj.Transformer.from_crs(4326, 32633, always_xy=True)
        samples = []
        for i in range(n):
            given = dict((odd or {}).get(i, {}))
            other = given.pop("pixels", {})
            lon, lat = 15 + i / 10, 45.0
            x, y = to_utm.transform(lon, lat)
            place = {
                "lon": lon,
                "lat": lat,
                "x0": x - 5 * SIDE,
                "y0": y + 5 * SIDE,
                "sample": f"282D_485L_{i // 4}_{i % 4}",
            }
            members = {
                m: member_writer.member(m, other.get(m, made_pixels(i, m, n_dates)), **{**place, **given})
                for m in modalities
                if other.get(m, ()) is not None
            }
            samples.append((f"majortom_train_{i + 1:07d}", members))
        root = tmp_path / name
        member_writer.write_tars(root, "train", "majortom_shard_000001.tar", samples)
        return root

    return write
