"""Patches whose blocks are measured: real ones from a folder of samples, or made-up ones of the demo."""

from __future__ import annotations

import tempfile
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tensorbank.schema import Modality
from tensorbank_demo.landscape.archive import BANDS, write_archives
from tensorbank_indexer import open_source
from tensorbank_indexer.modalities import describe

__all__ = ["MIXES", "SIDE", "Group", "made_up_groups", "real_groups"]

Block = npt.NDArray[np.generic]

SIDE = 264
"""The width and height of a TerraMesh sample in pixels."""

TERRAMESH_DTYPES = {
    "S2L2A": "int16",
    "S2L1C": "int16",
    "S2RGB": "uint8",
    "S1RTC": "float16",
    "DEM": "int16",
    "NDVI": "float16",
    "LULC": "uint8",
}
_OTHERS = ("S2RGB", "S1RTC", "DEM", "NDVI", "LULC")
MIXES: Mapping[str, Mapping[str, Sequence[tuple[str, int]]]] = {
    "Major-TOM sample": {name: [(name, 1)] for name in TERRAMESH_DTYPES},
    "Major-TOM sample, S2 of one cell at 264 px": {
        "S2L2A": [("S2 at 10 m", 4), ("S2 at 20 m", 6), ("S2 at 60 m", 2)],
        "S2L1C": [("S2 at 10 m", 4), ("S2 at 20 m", 6), ("S2 at 60 m", 3)],
        **{name: [(name, 1)] for name in _OTHERS},
    },
    "SSL4EO-S12 sample": {
        "S2L2A": [("S2L2A, SSL4EO-S12", 1)],
        "S2L1C": [("S2L1C, Copernicus-FM", 1)],
        **{name: [(name, 1)] for name in _OTHERS},
    },
}
"""Samples of TerraMesh, put together of groups: for each modality, groups and their shares of its blocks."""

MAJORTOM_SHARE = 8_052_049 / 9_178_624
"""The share of TerraMesh's samples that come from Major-TOM; the others come from SSL4EO-S12."""


@dataclass(frozen=True, slots=True)
class Group:
    """Blocks (y, x) of one modality, dtype and size."""

    name: str
    modality: Modality
    blocks: tuple[Block, ...]

    @property
    def raw_bytes(self) -> int:
        return sum(b.nbytes for b in self.blocks)


def _group(name: str, modality: str, patches: Sequence[Block]) -> Group:
    """Make a group of patches (band, y, x) of one shape."""
    n_bands, height, width = patches[0].shape
    bands = BANDS.get(modality, [])
    names = bands if len(bands) == n_bands else [f"b{i}" for i in range(n_bands)]
    described = describe(modality, patches[0].dtype.name, names, (1, n_bands, height, width))
    return Group(name, described, tuple(np.ascontiguousarray(band) for patch in patches for band in patch))


def real_groups(folder: Path) -> list[Group]:
    """Read the patches of a folder of real samples, each at its own size, cropped to 264 px at most.

    TerraMesh resampled Sentinel-2's bands of 20 m and 60 m to 10 m by the nearest neighbour. Those of the one cell that is there
    in its own resolution are resampled so here.
    """
    groups = [
        _group(name, name, [_read(f).astype(dtype) for f in _tiffs(folder, f"terramesh_examples/{name}")])
        for name, dtype in TERRAMESH_DTYPES.items()
    ]
    ssl4eo = [_read(f).astype("int16") for f in _tiffs(folder, "ssl4eo_s12_v11_s2l2a")]
    groups.append(_group("S2L2A, SSL4EO-S12", "S2L2A", ssl4eo))
    copernicus = [_read(f).astype("int16") for f in _tiffs(folder, "copernicus_fm_s2toa")]
    groups.append(_group("S2L1C, Copernicus-FM", "S2L1C", copernicus))
    cell = next((folder / "majortom_core_s2l2a").rglob("B02.tif")).parent
    for metres, bands in ((10, ["B02"]), (20, ["B05", "B11"]), (60, ["B01"])):
        tiles = [_tiles(_read(cell / f"{band}.tif")[0].astype("int16"), metres // 10) for band in bands]
        groups.append(_group(f"S2 at {metres} m", "S2L2A", [t for of_band in tiles for t in of_band]))
    return groups


def _tiffs(folder: Path, name: str) -> list[Path]:
    return sorted((folder / name).glob("*.tif"))


def _read(path: Path) -> Block:
    """Read a GeoTIFF as (band, y, x)."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as dataset:
            pixels: Block = dataset.read()
    return pixels[:, :SIDE, :SIDE] if pixels.shape[1] < 2 * SIDE and pixels.shape[1] >= SIDE else pixels


def _tiles(pixels: Block, factor: int) -> list[Block]:
    """Resample a band to 10 m and cut it into tiles (1, 264, 264)."""
    fine = pixels.repeat(factor, axis=0).repeat(factor, axis=1)
    starts = range(0, min(fine.shape) - SIDE + 1, SIDE)
    return [fine[None, y : y + SIDE, x : x + SIDE] for y in starts for x in starts]


def made_up_groups(n_samples: int) -> list[Group]:
    """Return the modalities of made-up samples of Major-TOM's kind, 264 px: not nature, but anybody has them."""
    seen: dict[str, list[Block]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        root = write_archives(Path(folder), n_samples=n_samples, samples_per_tar=n_samples, seed=1).root
        source = open_source(str(root))
        for archive in source.archives()[0]:
            for raw in source.read(source.scan(archive).samples):
                for name, given in raw.modalities.items():
                    if name in TERRAMESH_DTYPES:
                        seen[name].extend(np.asarray(given.pixels))
    return [_group(name, name, seen[name]) for name in TERRAMESH_DTYPES]
