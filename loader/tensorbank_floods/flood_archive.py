"""A made-up archive of floods in the layout of ImpactMesh-Flood: events, each with some patches of four dates, from a seed.

One tar a modality holds S2L2A and S1RTC of four dates, the last of them after the flood has come, as zarr groups in zips; and the
elevation and the mask, which have no date, as GeoTIFFs. ``tensorbank ingest`` reads it as it reads the published one. The event
of a patch is its ``subset``.
"""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["CLASSES", "MASK", "MISSING", "N_DATES", "FloodArchive"]

Floats = npt.NDArray[np.float32]

CLASSES = ("land", "permanent water", "flood")
"""The classes of the mask, by code; -1 stands for none."""
MASK = "annotation"
"""The modality of classes, which lies in ``MASK.tar``."""
MISSING = -9999
"""The value of pixels of Sentinel-2 that were not recorded."""
N_DATES = 4
BANDS = {
    "S2L2A": ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"),
    "S1RTC": ("vv", "vh"),
}
ENDS = {"S2L2A": "S2L2A.zarr.zip", "S1RTC": "S1RTC.zarr.zip", "DEM": "DEM.tif", MASK: "annotation_flood.tif"}
"""The ends of members' names, by modality."""
LAND = np.array([600, 700, 950, 1050, 1500, 2300, 2600, 2800, 2900, 2900, 2200, 1400], np.float32)
BARE = np.array([900, 1100, 1500, 1900, 2200, 2400, 2500, 2600, 2700, 2700, 3100, 2700], np.float32)
WATER = np.array([700, 750, 800, 650, 500, 380, 350, 300, 280, 260, 150, 100], np.float32)
MUDDY = np.array([900, 1050, 1400, 1500, 1350, 1000, 950, 800, 700, 650, 300, 200], np.float32)
CLOUD = np.array([5200, 5400, 5500, 5600, 5700, 5900, 6000, 6100, 6100, 6200, 4800, 3900], np.float32)
"""Reflectances of Sentinel-2, times 10,000."""
DAY_NS = 86_400 * 10**9
FIRST_NS = 1_577_836_800 * 10**9  # 2020-01-01
PIXEL_M = 10.0
EPSG = 32632


@dataclass(frozen=True, slots=True)
class FloodArchive:
    """A made-up archive of floods.

    Parameters
    ----------
    n_events, n_samples
        Number of events, and of patches of each.
    side
        Height and width of a patch in pixels; ImpactMesh has 256.
    seed
        Seed of all pixels.
    """

    n_events: int = 12
    n_samples: int = 16
    side: int = 64
    seed: int = 7

    def write(self, folder: Path) -> None:
        """Write ``train/{modality}.tar`` into a folder."""
        (folder / "train").mkdir(parents=True)
        with ExitStack() as stack:
            stems = {name: "MASK" if name == MASK else name for name in ENDS}
            paths = {name: folder / "train" / f"{stem}.tar" for name, stem in stems.items()}
            tars = {name: stack.enter_context(tarfile.open(path, "w")) for name, path in paths.items()}
            for patch, members in self._patches():
                for name, data in members.items():
                    header = tarfile.TarInfo(f"{stems[name]}/{patch}_{ENDS[name]}")
                    header.size = len(data)
                    tars[name].addfile(header, io.BytesIO(data))

    def _patches(self) -> Iterator[tuple[str, dict[str, bytes]]]:
        """Yield the name of each patch, and its members by modality."""
        for event in range(self.n_events):
            first_ns = FIRST_NS + 90 * event * DAY_NS
            for number in range(self.n_samples):
                scene = _Scene(np.random.default_rng((self.seed, event, number)), self.side)
                place = _Place(
                    500_000.0 + 20_000.0 * event,
                    4_900_000.0 + 2_000.0 * number,
                    self.side,
                )
                yield (
                    f"event{event:02d}_{number:04d}",
                    {
                        name: place.geotiff(pixels[0])
                        if len(pixels) == 1
                        else place.zarr_zip(name, pixels, first_ns)
                        for name, pixels in scene.modalities().items()
                    },
                )


@dataclass(frozen=True, slots=True)
class _Place:
    """The grid of a patch, by the centre of its first pixel in metres; it makes members there."""

    x_m: float
    y_m: float
    side: int

    def zarr_zip(self, name: str, pixels: npt.NDArray[np.generic], first_ns: int) -> bytes:
        """Return a zarr group of version 2 in a zip: ``bands`` (time, band, y, x), its grid, and its dates as an attribute."""
        import zarr
        from rasterio.crs import CRS
        from rasterio.warp import transform
        from zarr.storage import MemoryStore

        to_centre = PIXEL_M * (self.side - 1) / 2
        centre = [self.x_m + to_centre], [self.y_m - to_centre]
        (lon,), (lat,) = transform(CRS.from_epsg(EPSG), CRS.from_epsg(4326), *centre)
        times = np.array(first_ns + 12 * DAY_NS * np.arange(len(pixels)), "M8[ns]")
        attributes = {
            "datetime": ";".join(f"{text}Z" for text in np.datetime_as_string(times, unit="s")),
            "center_lon": lon,
            "center_lat": lat,
        }
        steps = PIXEL_M * np.arange(self.side, dtype=np.float64)
        entries: dict[str, Any] = {}
        store = MemoryStore(entries)
        group = zarr.create_group(store, zarr_format=2, attributes=attributes)
        for array, dims, values, more in (
            ("bands", ("time", "band", "y", "x"), pixels, {}),
            ("band", ("band",), np.array(BANDS[name]), {}),
            ("x", ("x",), self.x_m + steps, {}),
            ("y", ("y",), self.y_m - steps, {}),
            ("spatial_ref", (), np.array(0), {"crs_wkt": CRS.from_epsg(EPSG).to_wkt()}),
        ):
            about = {"_ARRAY_DIMENSIONS": list(dims), **more}
            group.create_array(array, data=values, chunks=values.shape, attributes=about)
        zarr.consolidate_metadata(store, zarr_format=2)
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as file:
            for key, data in entries.items():
                file.writestr(key, data.to_bytes())
        return out.getvalue()

    def geotiff(self, pixels: npt.NDArray[np.generic]) -> bytes:
        """Return a GeoTIFF of pixels (band, y, x)."""
        from rasterio.io import MemoryFile
        from rasterio.transform import from_origin

        corner = (self.x_m - PIXEL_M / 2, self.y_m + PIXEL_M / 2, PIXEL_M, PIXEL_M)
        profile = {"count": len(pixels), "height": self.side, "width": self.side, "dtype": pixels.dtype.name}
        with MemoryFile() as file:
            with file.open(
                driver="GTiff", crs=f"EPSG:{EPSG}", transform=from_origin(*corner), **profile
            ) as raster:
                raster.write(pixels)
            return bytes(file.read())


class _Scene:
    """One place before and after a flood. Water fills what lies low; each date has its own noise, clouds and season."""

    def __init__(self, rng: np.random.Generator, side: int) -> None:
        self.rng, self.side = rng, side
        self.height = self._smooth(3)
        self.low, self.high = np.quantile(self.height, (rng.uniform(0.05, 0.2), rng.uniform(0.35, 0.6)))
        self.bare = (self._smooth(6) > 0.4)[None]

    @cached_property
    def water(self) -> npt.NDArray[np.bool_]:
        """Water that is always there, (y, x)."""
        found: npt.NDArray[np.bool_] = self.height < self.low
        return found

    @cached_property
    def flood(self) -> npt.NDArray[np.bool_]:
        """Water that is there on the last date only, (y, x)."""
        found: npt.NDArray[np.bool_] = (self.height < self.high) & ~self.water
        return found

    def modalities(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return the pixels by modality, (time, band, y, x)."""
        missing = self._unseen_edge()
        optical, radar = [], []
        for date in range(N_DATES):
            wet = self.water | (self.flood if date == N_DATES - 1 else np.zeros_like(self.flood))
            optical.append(self._optical(wet))
            radar.append(self._radar(wet))
        s2 = np.stack(optical)
        s2[:, :, :, missing:] = MISSING
        classes = np.where(self.water, 1, np.where(self.flood, 2, 0)).astype(np.int8)
        classes[:, missing:] = -1
        metres = np.rint(40 + 12 * self.height + self.rng.normal(0, 0.5, self.height.shape))
        return {
            "S2L2A": s2,
            "S1RTC": np.stack(radar),
            "DEM": metres.astype(np.int16)[None, None],
            MASK: classes[None, None],
        }

    def _optical(self, wet: npt.NDArray[np.bool_]) -> npt.NDArray[np.int16]:
        """Return reflectances of one date, (band, y, x), below some clouds."""
        dry = np.where(self.bare, BARE[:, None, None], LAND[:, None, None]) * self.rng.uniform(0.8, 1.2)
        fresh = wet & ~self.water
        pixels = np.where(wet, np.where(fresh, MUDDY[:, None, None], WATER[:, None, None]), dry)
        cover = 1 / (1 + np.exp(-6 * (self._smooth(4) - self.rng.uniform(0.3, 2.5))))
        pixels = pixels * (1 - cover) + CLOUD[:, None, None] * cover
        pixels += self.rng.normal(0, 60, pixels.shape)
        stored: npt.NDArray[np.int16] = np.clip(pixels, 1, 12_000).astype(np.int16)
        return stored

    def _radar(self, wet: npt.NDArray[np.bool_]) -> npt.NDArray[np.float16]:
        """Return backscatter of one date in dB, (band, y, x): smooth water sends little back."""
        land, water = np.array([[-9.5], [-16.0]]), np.array([[-19.0], [-26.0]])
        decibel = np.where(wet, water[:, :, None], land[:, :, None])
        looks = self.rng.gamma(4.4, 1 / 4.4, (2, self.side, self.side))
        stored: npt.NDArray[np.float16] = (decibel + 10 * np.log10(looks)).astype(np.float16)
        return stored

    def _smooth(self, waves: int) -> Floats:
        """Return a smooth field of mean 0 and deviation 1, with about so many waves a side."""
        frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(self.side, 1 / self.side)] * 2))
        spectrum = np.fft.fft2(self.rng.normal(size=(self.side, self.side)))
        field = np.fft.ifft2(spectrum * np.exp(-((frequency / waves) ** 2))).real
        standard: Floats = ((field - field.mean()) / field.std()).astype(np.float32)
        return standard

    def _unseen_edge(self) -> int:
        """Return the column from which on nothing was recorded; that of the edge in most samples."""
        return (
            self.side - int(self.rng.integers(min(4, self.side // 8), self.side // 4))
            if self.rng.random() < 0.2
            else self.side
        )
