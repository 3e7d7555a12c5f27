"""Places and times of made-up samples: Major-TOM cells and their UTM tiles, four seasons of a place,
product ids.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import shapely
from pyproj import CRS, Transformer

from tensorbank_demo.landscape.climates import CLIMATES, Climate
from tensorbank_demo.landscape.view import Block, Sky, View
from tensorbank_demo.landscape.world import CELL, SIZE, TILE

__all__ = ["Footprint", "Placed", "crs_attributes", "majortom", "majortom_footprint", "ssl4eos12"]

EARTH_KM = 6378.137
GRID_KM = 10.0
N_ROWS = math.ceil(math.pi * EARTH_KM / GRID_KM)  # 2004 from pole to pole
PIXEL_M = 10.0
SIDE_M = TILE * PIXEL_M
TILES_A_CELL = 16
CLEAR_SHARE = 0.35
"""The share of scenes without a cloud."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """A square of 264 x 264 pixels; ``left`` and ``top`` are its outer corner in UTM metres of ``epsg``."""

    epsg: int
    left: float
    top: float

    @property
    def bounds(self) -> list[float]:
        """The bounds: left, bottom, right, top in metres."""
        return [self.left, self.top - SIDE_M, self.left + SIDE_M, self.top]

    def center(self) -> tuple[float, float]:
        """Return the longitude and latitude in degrees."""
        lon, lat = _to_wgs84(self.epsg).transform(self.left + SIDE_M / 2, self.top - SIDE_M / 2)
        return float(lon), float(lat)

    def wkb(self) -> bytes:
        """Return the polygon in EPSG:4326."""
        west, south, east, north = self.bounds
        lon, lat = _to_wgs84(self.epsg).transform([east, east, west, west], [south, north, north, south])
        return bytes(shapely.to_wkb(shapely.Polygon(list(zip(lon, lat, strict=True)))))


@dataclass(frozen=True, slots=True)
class Placed:
    """One sample to be made: its name, place, dates, product ids and what is seen there."""

    subset: str
    sample_id: str
    footprint: Footprint
    s2_time: np.datetime64
    s1_time: np.datetime64
    products: dict[str, str]
    """The source product id by modality; ``S1`` for either kind of Sentinel-1."""
    view: View


def majortom(n_samples: int, seed: int) -> Iterator[Placed]:
    """Yield the samples of Major-TOM cells, some 5 to 16 adjoining tiles a cell, spread over the climates."""
    rng = np.random.default_rng((seed, 2))
    climates = _shuffled(CLIMATES, rng)
    seen: set[str] = set()
    n_made = 0
    while n_made < n_samples:
        climate = climates[len(seen) % len(climates)]
        lat, lon = _near(climate, rng)
        cell = _cell_of(lat, lon)
        if cell in seen:
            continue
        seen.add(cell)
        block, sky, day = _block(rng), _sky(climate, rng), _day(lat, rng)
        s2_time, s1_time = _times(lon, day, rng)
        tiles = rng.permutation(TILES_A_CELL)[: int(rng.integers(5, TILES_A_CELL + 1))]
        products = _products(majortom_footprint(f"{cell}_0_0"), lat, lon, s2_time, s1_time, rng, "_rtc")
        for tile in sorted(tiles.tolist())[: n_samples - n_made]:
            column, row = divmod(tile, 4)
            sample_id = f"{cell}_{column}_{row}"
            view = View(climate, lat, block, column, row, sky, day, (seed, 3, n_made))
            yield Placed(
                "majortom", sample_id, majortom_footprint(sample_id), s2_time, s1_time, products, view
            )
            n_made += 1


def ssl4eos12(n_samples: int, seed: int) -> Iterator[Placed]:
    """Yield the samples of SSL4EO-S12 locations, four seasons each, on the 10 m grid of Sentinel-2."""
    rng = np.random.default_rng((seed, 4))
    climates = _shuffled(CLIMATES, rng)
    numbers = rng.choice(246_144, size=-(-n_samples // 4), replace=False)
    n_made = 0
    for i, number in enumerate(numbers.tolist()):
        climate = climates[i % len(climates)]
        lat, lon = _near(climate, rng)
        epsg = _utm_epsg(lat, lon)
        x, y = _to_utm(epsg).transform(lon, lat)
        footprint = Footprint(epsg, round(x / 10) * 10.0, round(y / 10) * 10.0)
        block = _block(rng)
        first = int(rng.integers(0, 80))
        for season in range(min(4, n_samples - n_made)):
            day = (first + 91 * season) % 365
            view = View(climate, lat, block, 1, 1, _sky(climate, rng), day, (seed, 5, n_made))
            s2_time, s1_time = _times(lon, day, rng, year=2020)
            products = _products(footprint, lat, lon, s2_time, s1_time, rng, "")
            yield Placed("ssl4eos12", f"{number:07d}_{season}", footprint, s2_time, s1_time, products, view)
            n_made += 1


def majortom_footprint(sample_id: str) -> Footprint:
    """Return the footprint of the tile ``<cell>_<column from west>_<row from north>``, as Major-TOM defines its cells."""
    row_name, column_name, column, row = sample_id.split("_")
    grid_row = int(row_name[:-1]) * (1 if row_name[-1] == "U" else -1)
    grid_column = int(column_name[:-1]) * (1 if column_name[-1] == "R" else -1)
    lat, lon = grid_row * 180 / N_ROWS, grid_column * 360 / _n_columns(grid_row)
    epsg = _utm_epsg(lat, lon)
    x, y = _to_utm(epsg).transform(lon, lat)
    return Footprint(epsg, float(x) - 340 + int(column) * SIDE_M, float(y) + 10_340 - int(row) * SIDE_M)


@cache
def crs_attributes(epsg: int) -> dict[str, object]:
    """Return the CF grid mapping and WKT, the attributes of ``spatial_ref``."""
    crs = CRS.from_epsg(epsg)
    wkt = crs.to_wkt("WKT1_GDAL")
    return {**crs.to_cf(), "crs_wkt": wkt, "spatial_ref": wkt}


def _cell_of(lat: float, lon: float) -> str:
    row = math.floor(lat * N_ROWS / 180)
    column = math.floor(lon * _n_columns(row) / 360)
    return f"{abs(row)}{'U' if row >= 0 else 'D'}_{abs(column)}{'R' if column >= 0 else 'L'}"


def _n_columns(grid_row: int) -> int:
    return math.ceil(2 * math.pi * EARTH_KM * math.cos(math.radians(grid_row * 180 / N_ROWS)) / GRID_KM)


def _utm_epsg(lat: float, lon: float) -> int:
    zone = math.floor((lon + 180) / 6) % 60 + 1
    if 56 <= lat < 64 and 3 <= lon < 12:  # Norway
        zone = 32
    if 72 <= lat < 84 and 0 <= lon < 42:  # Svalbard
        zone = (31, 33, 35, 37)[sum(lon >= border for border in (9, 21, 33))]
    return (32_600 if lat >= 0 else 32_700) + zone


@cache
def _to_utm(epsg: int) -> Transformer:
    return Transformer.from_crs(4326, epsg, always_xy=True)


@cache
def _to_wgs84(epsg: int) -> Transformer:
    return Transformer.from_crs(epsg, 4326, always_xy=True)


def _shuffled(climates: tuple[Climate, ...], rng: np.random.Generator) -> list[Climate]:
    return [climates[i] for i in rng.permutation(len(climates))]


def _near(climate: Climate, rng: np.random.Generator) -> tuple[float, float]:
    lat, lon = rng.normal((climate.lat, climate.lon), climate.spread_deg / 2)
    return float(lat), float(lon)


def _block(rng: np.random.Generator) -> Block:
    y, x = rng.integers(SIZE - CELL, size=2).tolist()
    return Block(y, x, int(rng.integers(8)))


def _day(lat: float, rng: np.random.Generator) -> int:
    """Draw a day of the year; the light half of it is more often kept."""
    return (int(rng.beta(2.2, 2.2) * 365) + (182 if lat < 0 else 0)) % 365


def _sky(climate: Climate, rng: np.random.Generator) -> Sky:
    clear = rng.random() < CLEAR_SHARE
    cover = 0.0 if clear else float(np.clip(rng.gamma(1.1, climate.clouds), 0.01, 0.97))
    y, x = rng.integers(SIZE - CELL - 16, size=2).tolist()
    return Sky(cover, int(rng.integers(3)), y, x)


def _times(
    lon: float, day: int, rng: np.random.Generator, *, year: int | None = None
) -> tuple[np.datetime64, np.datetime64]:
    """Return the times of Sentinel-2, at 10:30 local solar time, and Sentinel-1, at 6 or 18 within 4 days, both to the
    second.
    """
    year = int(rng.integers(2018, 2024)) if year is None else year
    noon = np.datetime64(f"{year}-01-01", "s") + np.timedelta64(day, "D")
    s2_hour = (10.5 - lon / 15 + rng.uniform(-0.3, 0.3)) % 24
    s1_hour = (float(rng.choice([6.0, 18.0])) - lon / 15 + rng.uniform(-0.3, 0.3)) % 24
    s1_day = int(
        rng.choice([-4, -3, -2, -1, 0, 1, 2, 3, 4], p=[0.04, 0.06, 0.1, 0.15, 0.3, 0.15, 0.1, 0.06, 0.04])
    )
    s2_time = noon + np.timedelta64(int(s2_hour * 3600), "s")
    return s2_time, noon + np.timedelta64(s1_day, "D") + np.timedelta64(int(s1_hour * 3600), "s")


def _products(
    footprint: Footprint, lat: float, lon: float, s2_time: np.datetime64, s1_time: np.datetime64,
    rng: np.random.Generator, s1_suffix: str,
) -> dict[str, str]:  # fmt: skip
    """Return the product ids, of the shape that Copernicus uses."""
    zone = f"T{footprint.epsg % 100:02d}{'CDEFGHJKLMNPQRSTUVWX'[min(max(int((lat + 80) // 8), 0), 19)]}"
    zone += "".join(rng.choice(list("ABCDEFGHJKLMNPQRSTUV"), 2))
    platform, orbit = f"S2{rng.choice(['A', 'B'])}", int(rng.integers(1, 144))
    done = _stamp(s2_time + np.timedelta64(4, "h"))
    tail = f"{_stamp(s2_time)}_N0400_R{orbit:03d}_{zone}_{done}"
    end = _stamp(s1_time + np.timedelta64(25, "s"))
    orbit_number, take, checksum = rng.integers((10_000, 0x10000, 0), (60_000, 0x70000, 0xFFFF)).tolist()
    pass_id = f"{orbit_number:06d}_{take:06X}_{checksum:04X}"
    south, west = math.floor(lat), math.floor(lon)
    square = f"{'N' if south >= 0 else 'S'}{abs(south):02d}_00_{'E' if west >= 0 else 'W'}{abs(west):03d}_00"
    return {
        "S2L1C": f"{platform}_MSIL1C_{tail}",
        "S2L2A": f"{platform}_MSIL2A_{tail}",
        "S1": f"S1A_IW_GRDH_1SDV_{_stamp(s1_time)}_{end}_{pass_id}{s1_suffix}",
        "DEM": f"Copernicus_DSM_COG_10_{square}_DEM",
    }


def _stamp(time: np.datetime64) -> str:
    return str(time.astype("datetime64[s]")).replace("-", "").replace(":", "")
