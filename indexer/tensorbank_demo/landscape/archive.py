"""Made-up TerraMesh archives, laid out like the published ones: small, seeded, with a checksum of every tensor.

The layout is that of the 2026 revisions: ``train/<modality>/<subset>_shard_NNNNNN.tar`` with one ``.zarr.zip`` a
sample, and ``train_metadata.parquet``. Pixels are synthetic (see ``scene``); names, places and dates are plausible.
"""

from __future__ import annotations

import json
import tarfile
import zlib
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tensorbank.errors import InvalidInputError
from tensorbank_demo.landscape.members import Variable, zarr_zip
from tensorbank_demo.landscape.places import Placed, crs_attributes, majortom, ssl4eos12
from tensorbank_demo.landscape.scene import Scene, render
from tensorbank_demo.landscape.world import TILE, World

__all__ = ["BANDS", "MODALITIES", "DemoTruth", "write_archives"]

SPLIT = "train"
BANDS = {
    "S2L1C": ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12"],
    "S2L2A": ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"],
    "S2RGB": ["B04", "B03", "B02"],
    "S1RTC": ["vv", "vh"],
    "S1GRD": ["vv", "vh"],
    "DEM": ["DEM"],
    "NDVI": ["NDVI"],
    "LULC": ["LULC"],
}
OPTICAL = ("S2L1C", "S2L2A", "S2RGB")
RADAR = ("S1RTC", "S1GRD")
MODALITIES = {
    "majortom": ("S2L1C", "S2L2A", "S2RGB", "S1RTC", "DEM", "NDVI", "LULC"),
    "ssl4eos12": ("S2L1C", "S2L2A", "S2RGB", "S1GRD", "DEM", "NDVI", "LULC"),
}
SSL4EOS12_SHARE = 0.1
CLOUD_CLASSES = "0: land, 1: water, 2: snow, 3: thin cloud, 4: thick cloud, 5: cloud shadow, 6: no data"
TIME_ATTRS = {"calendar": "proleptic_gregorian", "units": "nanoseconds since 1970-01-01"}
SCALAR_ATTRS = {"coordinates": "sample spatial_ref"}
TAR_TIME_S = 1_767_225_600  # 2026-01-01


@dataclass(frozen=True, slots=True)
class DemoTruth:
    """The content of the archives, known without reading them."""

    root: Path
    """The dataset's root: holds ``train/`` and ``train_metadata.parquet``."""
    samples: tuple[str, ...]
    """The sample ids in the order of the archives."""
    n_tars: int
    n_bytes: int
    """The number of bytes of all tars together."""
    pixel_bytes: int
    """The number of bytes of all tensors, decoded."""
    crc32: Mapping[tuple[str, str], int] = field(repr=False)
    """The CRC-32 of ``bands`` by (sample id, modality):
    (band, y, x), C order, little endian, in the stored dtype."""
    cloud_cover: Mapping[str, float] = field(repr=False)
    """The share of thin and thick cloud, by sample id."""


def write_archives(
    folder: Path,
    *,
    n_samples: int,
    samples_per_tar: int,
    seed: int,
    progress: Callable[[int], None] | None = None,
    n_threads: int = 2,
) -> DemoTruth:
    """Make a small TerraMesh: 90 % majortom, 10 % ssl4eos12 samples of seven modalities each.

    Parameters
    ----------
    folder
        Root to create ``train/`` in; it must not hold one yet.
    n_samples
        Number of samples of both subsets together, at least 1.
    samples_per_tar
        Members of each tar; the last of a subset may hold fewer.
    seed
        The bytes depend on the arguments up to here only.
    progress
        Called with the number of samples done so far, after each of them.
    n_threads
        Threads that render and encode; a few samples each (about 10 MB a sample) are in flight.

    Raises
    ------
    InvalidInputError
        A count is not positive, or there is a ``train`` folder already.
    """
    if min(n_samples, samples_per_tar, n_threads) < 1:
        raise InvalidInputError(
            f"Counts must be positive, got n_samples={n_samples}, {samples_per_tar=}, {n_threads=}."
        )
    if (folder / SPLIT).exists():
        raise InvalidInputError(f"{folder / SPLIT} exists already: remove it or choose another folder.")
    n_ssl4eos12 = round(n_samples * SSL4EOS12_SHARE)
    places = chain(majortom(n_samples - n_ssl4eos12, seed), ssl4eos12(n_ssl4eos12, seed))
    report = progress or (lambda _: None)
    world = World(seed)
    writer = _Writer(folder, samples_per_tar)
    with ThreadPoolExecutor(n_threads) as pool:
        waiting: deque[Future[_Made]] = deque()
        for placed in places:
            waiting.append(pool.submit(_make, world, placed))
            if len(waiting) > 2 * n_threads:
                report(writer.add(waiting.popleft().result()))
        while waiting:
            report(writer.add(waiting.popleft().result()))
    return writer.finish()


@dataclass(frozen=True, slots=True)
class _Made:
    """One sample, encoded: the bytes of its member in the tar of each modality."""

    placed: Placed
    members: dict[str, bytes]
    crc32: dict[str, int]
    pixel_bytes: int
    cloud_cover: float


def _make(world: World, placed: Placed) -> _Made:
    scene = render(world, placed.view)
    members, crc32, pixel_bytes = {}, {}, 0
    for modality in MODALITIES[placed.subset]:
        bands = np.ascontiguousarray(scene.arrays["S1" if modality in RADAR else modality])
        crc32[modality] = zlib.crc32(bands.data)
        pixel_bytes += bands.nbytes
        members[modality] = zarr_zip(_variables(placed, scene, modality, bands))
    return _Made(placed, members, crc32, pixel_bytes, scene.cloud_cover)


class _Writer:
    """A writer that appends samples to one tar per modality, and remembers their rows of the metadata table."""

    def __init__(self, folder: Path, samples_per_tar: int) -> None:
        self.folder = folder
        self.samples_per_tar = samples_per_tar
        self.rows: list[dict[str, Any]] = []
        self.crc32: dict[tuple[str, str], int] = {}
        self.pixel_bytes = 0
        self.n_bytes = 0
        self._tars: dict[str, BinaryIO] = {}
        self._n_tars = 0
        self._number = 0
        self._in_tar = 0
        self._subset = ""

    def add(self, made: _Made) -> int:
        """Append one sample; return how many there are."""
        placed = made.placed
        if placed.subset != self._subset or self._in_tar == self.samples_per_tar:
            self._next_tars(placed.subset)
        self._in_tar += 1
        name = f"{placed.subset}_{SPLIT}_{len(self.rows) + 1:07d}.zarr.zip"
        for modality, data in made.members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode = len(data), TAR_TIME_S, 0o644
            padding = bytes(-len(data) % tarfile.BLOCKSIZE)
            self._tars[modality].write(info.tobuf(tarfile.USTAR_FORMAT) + data + padding)
            self.crc32[placed.sample_id, modality] = made.crc32[modality]
        self.pixel_bytes += made.pixel_bytes
        self.rows.append(self._row(placed, made.cloud_cover, name))
        return len(self.rows)

    def finish(self) -> DemoTruth:
        self._close()
        _write_metadata(self.folder / f"{SPLIT}_metadata.parquet", self.rows)
        return DemoTruth(
            root=self.folder,
            samples=tuple(row["sample_id"] for row in self.rows),
            n_tars=self._n_tars,
            n_bytes=self.n_bytes,
            pixel_bytes=self.pixel_bytes,
            crc32=self.crc32,
            cloud_cover={row["sample_id"]: row["cloud_cover"] for row in self.rows},
        )

    def _next_tars(self, subset: str) -> None:
        self._close()
        self._subset, self._in_tar = subset, 0
        self._number += 1
        for modality in MODALITIES[subset]:
            path = self.folder / SPLIT / modality / f"{subset}_shard_{self._number:06d}.tar"
            path.parent.mkdir(parents=True, exist_ok=True)
            self._tars[modality] = path.open("wb", buffering=0)
            self._n_tars += 1

    def _close(self) -> None:
        for tar in self._tars.values():
            tar.write(bytes(2 * tarfile.BLOCKSIZE))
            self.n_bytes += tar.tell()
            tar.close()
        self._tars = {}

    def _row(self, placed: Placed, cloud_cover: float, member: str) -> dict[str, Any]:
        lon, lat = placed.footprint.center()
        return {
            "tar": f"{placed.subset}_shard_{self._number:06d}.tar",
            "zarr": member,
            "sample_id": placed.sample_id,
            "split": SPLIT,
            "center_lon": lon,
            "center_lat": lat,
            "crs": placed.footprint.epsg,
            "bounds": placed.footprint.bounds,
            "geometry": placed.footprint.wkb(),
            "S2_time": placed.s2_time.astype("datetime64[ns]"),
            "S1_time": placed.s1_time.astype("datetime64[ns]"),
            "cloud_cover": cloud_cover,
        }


def _variables(placed: Placed, scene: Scene, modality: str, bands: npt.NDArray[np.generic]) -> list[Variable]:
    """Return the arrays of one member, in the order of the published files."""
    footprint = placed.footprint
    lon, lat = footprint.center()
    radar = modality in RADAR
    time = np.datetime64(0, "ns") if modality == "DEM" else placed.s1_time if radar else placed.s2_time
    product = placed.products.get("S1" if radar else modality, placed.products["S2L2A"])
    pixel = 10.0 * np.arange(TILE) + 5.0
    variables = [
        Variable("band", ("band",), np.array(BANDS[modality])),
        Variable("sample", (), np.array(placed.sample_id)),
        Variable("spatial_ref", (), np.array(0, np.int64), crs_attributes(footprint.epsg)),
        Variable("time", ("time",), np.array([time]).astype("datetime64[ns]").astype(np.int64), TIME_ATTRS),
        Variable("x", ("x",), footprint.left + pixel),
        Variable("y", ("y",), footprint.top - pixel),
        Variable("bands", ("time", "band", "y", "x"), bands[None], SCALAR_ATTRS),
        Variable("center_lat", (), np.array(lat), SCALAR_ATTRS),
        Variable("center_lon", (), np.array(lon), SCALAR_ATTRS),
        Variable("crs", (), np.array(footprint.epsg, np.int64), SCALAR_ATTRS),
        Variable("file_id", ("time",), np.array([product]), SCALAR_ATTRS),
    ]
    if modality in OPTICAL:
        attrs = {"cloud_classes": CLOUD_CLASSES, **SCALAR_ATTRS}
        variables.append(Variable("cloud_mask", ("time", "y", "x"), scene.cloud_mask[None], attrs))
    return variables


def _write_metadata(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write one row per sample, GeoParquet as geopandas writes it."""
    geo = {
        "primary_column": "geometry",
        "columns": {"geometry": {"encoding": "WKB", "geometry_types": ["Polygon"]}},
        "version": "1.0.0",
    }
    columns = {name: [row[name] for row in rows] for name in rows[0] if not name.endswith("_time")}
    arrays = {name: pa.array(values) for name, values in columns.items()}
    for name in ("S2_time", "S1_time"):
        arrays[name] = pa.array(np.array([row[name] for row in rows]))
    order = [name for name in rows[0] if name in arrays]
    table = pa.table({name: arrays[name] for name in order}).replace_schema_metadata({"geo": json.dumps(geo)})
    pq.write_table(table, path)
