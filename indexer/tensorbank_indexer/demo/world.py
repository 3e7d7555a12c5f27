"""An invented landscape, rendered as the sensors of TerraMesh would see it.

A ``World`` is a set of fractal fields made once per seed: relief with rivers in their valleys, moisture, districts with
parcels, streets and pivot circles, towns, speckle, clouds. ``render`` cuts a window out of them and turns it, for one
climate and day, into the pixels of all modalities. Every pixel is a mixture of a few materials ("endmembers"), so
that reflectance in any band is one matrix product, and bands agree with each other, with the land cover and the radar.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["CLIMATES", "TILE", "Climate", "Scene", "View", "World", "render"]

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

TILE = 264
CELL = 4 * TILE  # tiles of one Major-TOM cell adjoin
SIZE = 1536
PIXEL_M = 10.0

NO_DATA, WATER, TREES, FLOODED, CROPS, BUILT, BARE, SNOW, CLOUD, RANGE = range(10)
"""ESRI land cover."""
SKY_LAND, SKY_WATER, SKY_SNOW, SKY_THIN, SKY_THICK, SKY_SHADOW, SKY_NO_DATA = range(7)
"""Classes of the cloud mask."""

# Reflectance x 10,000 of B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B11 B12, then VV and VH in dB.
MATERIALS = {
    "soil": (620, 800, 1120, 1480, 1750, 1930, 2060, 2180, 2320, 2420, 3050, 2650, -11.5, -18.8),
    "sand": (1250, 1650, 2450, 3250, 3550, 3700, 3800, 3900, 4000, 4050, 4700, 4200, -16.0, -25.0),
    "crop": (240, 330, 760, 370, 1150, 3300, 4200, 4500, 4650, 4600, 2050, 1000, -9.8, -15.8),
    "forest": (160, 210, 420, 250, 680, 1900, 2400, 2550, 2700, 2700, 1200, 540, -7.6, -13.0),
    "grass": (320, 430, 820, 680, 1350, 2450, 2850, 3000, 3200, 3200, 2350, 1350, -11.4, -17.8),
    "rock": (850, 960, 1110, 1250, 1350, 1450, 1520, 1600, 1660, 1720, 2050, 1850, -9.8, -16.8),
    "built": (1050, 1230, 1420, 1560, 1700, 1850, 1950, 2050, 2150, 2200, 2350, 2200, -3.8, -11.0),
    "deep": (330, 320, 270, 150, 130, 115, 105, 95, 85, 80, 50, 40, -21.0, -28.5),
    "shallow": (650, 820, 1050, 520, 380, 250, 220, 180, 140, 120, 70, 50, -19.5, -27.5),
    "snow": (8300, 8600, 8500, 8400, 8300, 8100, 8000, 7800, 7600, 7400, 1100, 900, -14.0, -22.0),
    "cloud": (5500, 5700, 5600, 5800, 6000, 6200, 6300, 6400, 6500, 6600, 4500, 3400, 0, 0),
}
SOIL, SAND, CROP, FOREST, GRASS, ROCK, TOWN, DEEP, SHALLOW, WHITE, HAZE = range(len(MATERIALS))
SPECTRA = np.array(list(MATERIALS.values()), np.float32).T  # (14, material)
BANDS_10M, BANDS_20M, BANDS_60M = [1, 2, 3, 7], [4, 5, 6, 8, 10, 11], [0, 9]

# What a class is made of at greenness 0 and what greenness 1 adds: (material, class).
BROWN = np.zeros((len(MATERIALS), 10), np.float32)
GREEN = np.zeros_like(BROWN)
for _cover, _brown, _green in (
    (WATER, {SHALLOW: 1.0}, {DEEP: 1.0, SHALLOW: -1.0}),
    (TREES, {SOIL: 0.55, FOREST: 0.45}, {FOREST: 0.55, SOIL: -0.55}),
    (FLOODED, {DEEP: 0.45, SOIL: 0.35, GRASS: 0.2}, {CROP: 0.25, FOREST: 0.45, SOIL: -0.35, DEEP: -0.35}),
    (CROPS, {SOIL: 1.0}, {CROP: 1.0, SOIL: -1.0}),
    (BUILT, {TOWN: 1.0}, {TOWN: -0.6, GRASS: 0.4, FOREST: 0.2}),
    (BARE, {ROCK: 1.0}, {GRASS: 0.3, ROCK: -0.3}),
    (RANGE, {SOIL: 0.8, GRASS: 0.2}, {GRASS: 0.8, SOIL: -0.8}),
):
    for _material, _share in _brown.items():
        BROWN[_material, _cover] = _share
    for _material, _share in _green.items():
        GREEN[_material, _cover] = _share

# Top of the atmosphere: transmission and path radiance of the 12 bands; B10 sees only high clouds.
HASH_PRIMES = (73_856_093, 19_349_663, 83_492_791)
TRANSMISSION = np.array([0.78, 0.82, 0.86, 0.9, 0.91, 0.92, 0.93, 0.93, 0.94, 0.55, 0.95, 0.94], np.float32)
HAZE_DN = np.array([1150, 820, 480, 280, 240, 200, 170, 140, 120, 40, 15, 10], np.float32)


@dataclass(frozen=True, slots=True)
class Climate:
    """How a place uses the fields of the world. Elevation and moisture thresholds are in standard deviations."""

    name: str
    lat: float
    lon: float
    spread_deg: float = 1.5
    sea: float = -9.0
    base_m: float = 250.0
    relief_m: float = 120.0
    moisture: float = 0.0
    warmth_c: float = 10.0
    seasons_c: float = 9.0
    farmland: float = 0.0
    towns: float = 0.0
    pivots: bool = False
    sand: float = 0.0
    clouds: float = 0.3


CLIMATES = (
    Climate("Upper Rhine", 48.6, 8.1, farmland=0.7, towns=0.5, relief_m=60),
    Climate("Champagne", 48.9, 4.2, farmland=1.3, relief_m=35, base_m=160, clouds=0.25),
    Climate("Bavarian Alps", 47.5, 11.3, base_m=780, relief_m=400, moisture=0.7, farmland=-0.8, towns=-0.3),
    Climate("Frisian coast", 53.6, 8.2, sea=-0.45, base_m=3, relief_m=14, farmland=0.9, clouds=0.4),
    Climate("Tuscany", 43.3, 11.4, relief_m=85, warmth_c=14.5, farmland=0.45, moisture=-0.1, clouds=0.15),
    Climate("Dalmatia", 43.6, 16.3, sea=0.0, base_m=20, relief_m=130, moisture=-0.3, warmth_c=15.0, clouds=0.12),
    Climate("Lofoten", 68.2, 14.6, 1.0, sea=0.15, base_m=8, relief_m=210, warmth_c=3.5, farmland=-1.5, clouds=0.5),
    Climate("Andalusia", 37.4, -4.8, relief_m=90, moisture=-0.7, warmth_c=18.0, farmland=0.7, sand=0.25, clouds=0.08),
    Climate("High Plains", 37.9, -100.9, relief_m=25, base_m=880, moisture=-0.6, farmland=1.6, pivots=True, clouds=0.15),
    Climate("Western Desert", 25.6, 30.2, relief_m=70, moisture=-2.6, warmth_c=24.0, sand=0.9, pivots=True, clouds=0.03),
    Climate("Mato Grosso", -12.6, -55.8, relief_m=40, moisture=1.0, warmth_c=25.0, seasons_c=1.5, farmland=0.6),
    Climate("Rio Negro", -2.4, -61.2, relief_m=20, base_m=40, moisture=2.2, warmth_c=27.0, seasons_c=0.5,
            farmland=-2.0, towns=-1.0, clouds=0.45),
    Climate("Canterbury", -43.7, 171.9, relief_m=210, base_m=420, warmth_c=9.5, farmland=0.5, towns=-0.3),
    Climate("Hokkaido", 43.3, 142.6, relief_m=140, base_m=380, warmth_c=6.0, seasons_c=13.0, farmland=0.2),
    Climate("Java", -7.5, 110.3, relief_m=240, base_m=500, moisture=1.2, warmth_c=27.0, seasons_c=0.5, farmland=0.8,
            towns=0.7, clouds=0.45),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class View:
    """What is looked at, and when.

    ``y``, ``x``: upper left corner of a block of 1056 x 1056 pixels in the world; ``turn``: one of its 8 rotations and
    mirrorings; ``column`` from west and ``row`` from north (0-3): the tile in the block. ``day`` is that of the year.
    ``cover``: share of clouds aimed at in the whole block; ``sky_y``, ``sky_x``: where its clouds are taken from.
    """

    climate: Climate
    lat: float
    y: int
    x: int
    turn: int
    column: int
    row: int
    day: int
    cover: float
    sky: int
    sky_y: int
    sky_x: int
    key: tuple[int, ...]
    """Seeds the noise of the sensors."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Pixels (band, y, x) by modality, S1 under the name ``S1``; ``cloud_mask`` (y, x) uint8."""

    arrays: dict[str, npt.NDArray[np.generic]]
    cloud_mask: Bytes

    @property
    def cloud_cover(self) -> float:
        """Share of thin and thick cloud."""
        cloudy = np.count_nonzero((self.cloud_mask == SKY_THIN) | (self.cloud_mask == SKY_THICK))
        return cloudy / self.cloud_mask.size


class World:
    """The fields of one landscape, (1536, 1536) float32 each; pure function of the seed, about a second to make."""

    def __init__(self, seed: int) -> None:
        slopes = {  # of the spectrum, and waves a side of the largest forms
            "relief": (2.25, 1), "ridges": (2.1, 1), "river": (2.9, 3), "brook": (2.6, 9), "moisture": (2.4, 1),
            "woods": (1.7, 5), "farms": (2.6, 2), "towns": (2.5, 6), "grain": (0.7, 1),
            "cumulus": (1.85, 5), "flock": (1.6, 12), "front": (2.3, 3),
        }  # fmt: skip

        def fractal(number: int) -> Floats:
            slope, lowest = list(slopes.values())[number]
            return _fractal(np.random.default_rng((seed, 1, number)), slope, lowest)

        with ThreadPoolExecutor(2) as pool:
            districts = pool.submit(_districts, np.random.default_rng((seed, 1, 99)))
            made = dict(zip(slopes, pool.map(fractal, range(len(slopes))), strict=True))
            self.parcel, self.hedge, self.street, self.block, self.pivot = districts.result()
        self.river_px, self.brook_px = _distance_to_zero(made["river"]), _distance_to_zero(made["brook"])
        valley = np.exp(self.river_px / np.float32(-70)) + np.float32(0.3) * np.exp(self.brook_px / np.float32(-22))
        ridges = np.float32(0.55) * np.abs(made["ridges"])
        self.elevation = _standard(made["relief"] - ridges - np.float32(1.1) * valley)
        self.moisture = _standard(made["moisture"] + np.float32(0.6) * valley)
        self.woods, self.farms, self.towns, self.grain = (made[n] for n in ("woods", "farms", "towns", "grain"))
        self.skies = [made[name] for name in ("cumulus", "flock", "front")]
        self.sky_quantiles = [np.quantile(sky[::8, ::8], np.linspace(0, 1, 257)) for sky in self.skies]
        rng = np.random.default_rng((seed, 1, 100))
        self.noise = rng.standard_normal((SIZE, SIZE), dtype=np.float32)
        # Speckle of 4.4 looks is gamma distributed; in decibel it is nearly normal, with a tail downwards.
        gamma = rng.standard_gamma(4.4, (SIZE, SIZE), dtype=np.float32) / np.float32(4.4)
        self.speckle_db = np.float32(10) * np.log10(gamma)


def render(world: World, view: View) -> Scene:
    """All modalities of one tile. Pure: the same world and view give the same pixels."""
    rng = np.random.default_rng(view.key)
    ground = _Ground(world, view)
    shares = ground.materials()
    radar = _radar(world, rng, ground, shares)
    shares *= ground.light
    cloud, thick, shadow = _sky(world, view)
    mask = ground.sky_classes()
    if cloud is not None:
        shares *= (1 - cloud) * np.where(shadow, np.float32(0.5), np.float32(1))
        shares[HAZE] = cloud
        mask[shadow] = SKY_SHADOW
        mask[cloud > 0.12] = SKY_THIN
        mask[thick] = SKY_THICK
        ground.cover[thick] = CLOUD
    l2a, l1c = _optical(world, rng, shares, cloud)
    if rng.random() < 0.015:
        edge = TILE - int(rng.integers(12, 60))
        mask[:, edge:], ground.cover[:, edge:] = SKY_NO_DATA, NO_DATA
        l2a[:, :, edge:], l1c[:, :, edge:] = 0, 0
    arrays: dict[str, npt.NDArray[np.generic]] = {
        "S2L1C": l1c,
        "S2L2A": l2a,
        "S2RGB": _stretched(l2a),
        "S1": radar,
        "DEM": np.rint(ground.metres).astype(np.int16)[None],
        "NDVI": _ndvi(l2a),
        "LULC": ground.cover[None],
    }
    return Scene(arrays, mask)


class _Ground:
    """Land cover, greenness, light and height of one tile, clouds aside."""

    def __init__(self, world: World, view: View) -> None:
        self.window = lambda field: _cut(field, view)
        climate = view.climate
        self.climate = climate
        height = self.window(world.elevation) - np.float32(max(climate.sea, -1.5))
        self.grain = self.window(world.grain)
        at_sea = height < 0 if climate.sea > -9 else np.zeros(height.shape, bool)
        metres = climate.base_m + climate.relief_m * np.maximum(height, 0) ** np.float32(1.15)
        self.metres = np.where(at_sea, np.float32(0), metres + np.float32(0.25) * self.grain)
        dy, dx = np.gradient(self.metres, PIXEL_M)
        slope = np.abs(dy) + np.abs(dx)
        # The sun stands half east, half on the side of the equator, as at 10:30; lower in winter.
        warm = math.cos(2 * math.pi * (view.day - 200) / 365) * (1 if view.lat >= 0 else -1)
        low_sun = np.float32(1.5 - 0.5 * warm)
        self.east_slope = dx
        equator = np.float32(-1 if view.lat >= 0 else 1)
        sunny = np.clip(1 + low_sun * np.float32(0.6) * (dy * equator - dx), 0.4, 1.6)

        river = self.window(world.river_px)
        moist = self.window(world.moisture) + np.float32(climate.moisture)
        wet_bed = np.float32(2.2 + 1.2 * min(climate.moisture, 2.0))
        brook = (self.window(world.brook_px) < 0.9) & (slope < 0.25) if climate.moisture > -1 else False
        water = at_sea | (river < wet_bed) | (brook & (river < 300) & (self.grain > -1.2))
        annual_c = np.float32(climate.warmth_c) - np.float32(0.0062) * self.metres + np.float32(0.5) * self.grain
        today_c = annual_c + np.float32(climate.seasons_c * warm)

        tree_line = annual_c > 1.0
        woods = self.window(world.woods) + np.float32(0.9) * moist + np.minimum(slope, 0.5) * 2 + 0.25 * self.grain
        parcel, hedge = self.window(world.parcel), self.window(world.hedge)
        farms = self.window(world.farms) + np.float32(climate.farmland) - np.float32(5) * slope
        towns = self.window(world.towns) + np.float32(0.55 * climate.towns) - np.float32(3) * slope
        towns += np.float32(0.35) * (parcel - np.float32(0.5)) - np.float32(0.001) * np.minimum(river, 400)

        cover = np.full(height.shape, RANGE, np.uint8)
        cover[(moist < -1.6) | (annual_c < -1.2) | (slope > 1.5)] = BARE
        cover[(farms > 0) & (moist > -3.2 if not climate.pivots else True)] = CROPS
        cover[(woods > np.float32(0.75) + 1.3 * (cover == CROPS)) & tree_line & (moist > -1.4)] = TREES
        cover[(moist > 1.7) & tree_line & (cover == RANGE) & (woods > -1)] = TREES
        if climate.pivots:
            pivot = self.window(world.pivot)
            dry = moist < 0.6
            cover[dry & (cover == CROPS)] = BARE if climate.moisture < -1.5 else RANGE
            cover[(farms > -0.6) & (pivot > 0)] = CROPS
            parcel = np.where(pivot > 0, pivot, parcel)
        cover[hedge & (cover == CROPS) & (parcel > 0.45) & (not climate.pivots)] = TREES
        cover[(river < wet_bed + 9) & (moist > 0.75) & (slope < 0.06)] = FLOODED
        built = towns > np.float32(1.55)
        cover[built | (self.window(world.street) & (farms > -0.2) & (moist > -2) & ~at_sea & (slope < 0.2))] = BUILT
        cover[water] = WATER
        self.snow = np.clip((np.float32(0.5) - today_c) / 3 - slope * np.float32(0.55) + 0.25 * self.grain, 0, 1)
        self.snow[cover == WATER] = 0
        self.snow[cover == TREES] *= np.float32(0.55)
        self.snow[self.snow < 0.15] = 0
        self.land = cover
        self.cover = np.where(self.snow > 0.5, np.uint8(SNOW), cover)

        block = self.window(world.block)
        self.green = self._greenness(view, cover, parcel, moist, warm, built, block)
        depth = np.clip(-height * 2.2, 0.12, 1) if climate.sea > -9 else np.clip(0.95 - river * 0.12, 0.6, 0.95)
        np.copyto(self.green, depth.astype(np.float32), where=water)
        texture = np.float32(1) + ROUGHNESS[cover] * self.grain
        texture += np.where(cover == BUILT, np.float32(0.9) * (block - np.float32(0.42)), 0)
        texture += np.where(cover == CROPS, np.float32(0.5) * (parcel - np.float32(0.5)), 0)
        self.light = np.where(water, np.float32(1), np.clip(sunny * texture, 0.25, 2.2))

    def _greenness(
        self, view: View, cover: Bytes, parcel: Floats, moist: Floats, warm: float, built: npt.NDArray[np.bool_],
        block: Floats,
    ) -> Floats:  # fmt: skip
        climate = self.climate
        summer = np.float32(0.5 + 0.5 * (warm if climate.seasons_c > 4 else 0.8))
        # Each parcel has a crop with a calendar of its own.
        calendar = np.cos(2 * np.pi * (view.day / 365 - 0.28 - 0.5 * parcel + (0.5 if view.lat < 0 else 0)))
        crops = np.clip(np.float32(0.45) + np.float32(0.6) * calendar + 0.1 * self.grain, 0.03, 1)
        grass = np.clip(np.float32(0.4) + 0.25 * moist + np.float32(0.35) * summer + 0.08 * self.grain, 0.05, 1)
        trees = np.clip(np.float32(0.25) + np.float32(0.75) * summer + 0.1 * moist, 0.15, 1)
        green = np.where(cover == CROPS, crops, np.where(cover == TREES, trees, grass))
        gardens = np.clip(block * np.float32(1.5) - np.float32(0.75), 0, 0.9) * (built & (cover == BUILT))
        return np.where(cover == BUILT, gardens, green).astype(np.float32)

    def materials(self) -> Floats:
        """Share of each material, (material, y, x) float32."""
        shares = np.take(GREEN, self.land, axis=1)
        shares *= self.green
        shares += np.take(BROWN, self.land, axis=1)
        if self.climate.sand:
            for dark in (SOIL, ROCK):
                shares[SAND] += np.float32(self.climate.sand) * shares[dark]
                shares[dark] *= np.float32(1 - self.climate.sand)
        if self.snow.any():
            shares *= 1 - self.snow
            shares[WHITE] = self.snow
        return shares

    def sky_classes(self) -> Bytes:
        """The cloud mask without clouds: land, water, snow."""
        return SKY_OF_COVER[self.cover]


ROUGHNESS = np.zeros(10, np.float32)
ROUGHNESS[[TREES, FLOODED, CROPS, BUILT, BARE, RANGE]] = 0.2, 0.12, 0.035, 0.1, 0.09, 0.07
SKY_OF_COVER = np.zeros(10, np.uint8)
SKY_OF_COVER[[WATER, SNOW]] = SKY_WATER, SKY_SNOW


def _radar(world: World, rng: np.random.Generator, ground: _Ground, shares: Floats) -> npt.NDArray[np.float16]:
    """VV and VH in dB: material, slope towards the sensor, speckle, and rarely a few NaN."""
    decibel = np.einsum("bm,myx->byx", SPECTRA[12:, :HAZE], shares[:HAZE])
    decibel += np.clip(ground.east_slope * np.float32(9), -6, 7)
    for band in decibel:
        band += _anywhere(world.speckle_db, rng, TILE)
    result = decibel.astype(np.float16)
    if rng.random() < 0.08:
        ys, xs = rng.integers(TILE, size=(2, int(rng.integers(1, 40))))
        result[:, ys, xs] = np.nan
    return result


def _sky(world: World, view: View) -> tuple[Floats | None, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Opacity of clouds, where they are thick, and their shadow north-west of them."""
    none = np.zeros((TILE, TILE), bool)
    if view.cover <= 0:
        return None, none, none
    y, x = view.sky_y + TILE * view.row, view.sky_x + TILE * view.column
    field = world.skies[view.sky][y : y + TILE + 16, x : x + TILE + 16]
    edge = np.float32(np.interp(1 - view.cover, np.linspace(0, 1, 257), world.sky_quantiles[view.sky]))
    opacity = np.clip((field - edge) * np.float32(1.8), 0, 0.97)
    opacity *= opacity * (3 - 2 * opacity)
    cloud = opacity[:TILE, :TILE]
    thick = cloud > 0.55
    shadow = (opacity[11 : 11 + TILE, 8 : 8 + TILE] > 0.45) & (cloud < 0.12)
    return (cloud if cloud.any() else None), thick, shadow


def _optical(
    world: World, rng: np.random.Generator, shares: Floats, cloud: Floats | None
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int16]]:
    """S2L2A (12, y, x) and S2L1C (13, y, x); coarse bands are computed at their own resolution and repeated."""
    l2a = np.empty((12, TILE, TILE), np.int16)
    l1c = np.empty((13, TILE, TILE), np.int16)
    for bands, step in ((BANDS_10M, 1), (BANDS_20M, 2), (BANDS_60M, 6)):
        if step > 1:
            shares = _coarser(shares, 2 if step == 2 else 3)
        size = TILE // step
        values = np.einsum("bm,myx->byx", SPECTRA[bands], shares)  # no BLAS: it is slower here, and threads of its own
        for band, pixels in zip(bands, values, strict=True):
            pixels += _anywhere(world.noise, rng, size) * np.float32(14)
            top = np.maximum(pixels * TRANSMISSION[band] + HAZE_DN[band], 1).astype(np.int16)
            ground = np.maximum(pixels, 1).astype(np.int16)
            _repeat(ground, step, l2a[band])
            _repeat(top, step, l1c[band + (band > 9)])
    cirrus = np.float32(12) + np.float32(2) * _anywhere(world.noise, rng, TILE // 6)
    if cloud is not None:
        cirrus += np.float32(180) * cloud[::6, ::6] ** 2
    _repeat(np.maximum(cirrus, 1).astype(np.int16), 6, l1c[10])
    return l2a, l1c


def _coarser(shares: Floats, step: int) -> Floats:
    n, size = shares.shape[0], shares.shape[1] // step
    blocks = shares.reshape(n, size, step, size * step)
    rows = blocks[:, :, 0] + blocks[:, :, 1]
    for k in range(2, step):
        rows += blocks[:, :, k]
    columns = rows[:, :, ::step] + rows[:, :, 1::step]
    for k in range(2, step):
        columns += rows[:, :, k::step]
    columns *= np.float32(1 / step**2)
    return columns


def _repeat(pixels: npt.NDArray[np.int16], step: int, out: npt.NDArray[np.int16]) -> None:
    size = len(pixels)
    out.reshape(size, step, size, step)[:] = pixels[:, None, :, None]


def _ndvi(l2a: npt.NDArray[np.int16]) -> npt.NDArray[np.float16]:
    red, nir = l2a[3].astype(np.float32), l2a[7].astype(np.float32)
    with np.errstate(invalid="ignore"):
        return ((nir - red) / (nir + red)).astype(np.float16)[None]


def _stretched(l2a: npt.NDArray[np.int16]) -> Bytes:
    """Red, green, blue between the image's own 1 and 99 % quantiles, uint8."""
    result = np.empty((3, TILE, TILE), np.uint8)
    sample = l2a[1:4, 2::5, 2::5].reshape(3, -1)
    low, high = np.percentile(sample, (1, 99), axis=1)
    low, high = low.min(), max(float(high.max()), float(low.min()) + 1)
    for out, band in zip(result, (3, 2, 1), strict=True):
        out[:] = np.clip((l2a[band] - np.float32(low)) * np.float32(255 / (high - low)), 0, 255)
    return result


def _cut(field: npt.NDArray[np.generic], view: View) -> npt.NDArray:  # type: ignore[type-arg]
    """The tile's window of a field, after turning the block it lies in."""
    block = field[view.y : view.y + CELL, view.x : view.x + CELL]
    if view.turn & 4:
        block = block.T
    block = block[:: -1 if view.turn & 2 else 1, :: -1 if view.turn & 1 else 1]
    tile = block[view.row * TILE : (view.row + 1) * TILE, view.column * TILE : (view.column + 1) * TILE]
    return np.ascontiguousarray(tile)


def _anywhere(field: Floats, rng: np.random.Generator, size: int) -> Floats:
    y, x = rng.integers(SIZE - size, size=2)
    return field[y : y + size, x : x + size]


def _fractal(rng: np.random.Generator, slope: float, lowest: float) -> Floats:
    """Noise whose amplitude falls as frequency to the power of ``slope``, from ``lowest`` waves a side on; mean 0, std 1."""
    fy, fx = np.fft.fftfreq(SIZE, 1 / SIZE)[:, None], np.fft.rfftfreq(SIZE, 1 / SIZE)[None]
    frequency = np.hypot(fy, fx).astype(np.float32)
    amplitude = np.maximum(frequency, lowest) ** np.float32(-slope)
    amplitude[0, 0] = 0
    shape = frequency.shape
    phases = rng.standard_normal(shape, np.float32) + 1j * rng.standard_normal(shape, np.float32)
    return _standard(np.fft.irfft2((phases * amplitude).astype(np.complex64), s=(SIZE, SIZE)).astype(np.float32))


def _standard(field: Floats) -> Floats:
    return (field - field.mean()) / field.std()


def _distance_to_zero(field: Floats) -> Floats:
    """Roughly the distance in pixels to where a smooth field changes sign: a line as wide everywhere."""
    dy, dx = np.gradient(field)
    return np.abs(field) / (np.hypot(dy, dx) + np.float32(1e-4))


def _districts(
    rng: np.random.Generator, spacing: int = 96
) -> tuple[Floats, npt.NDArray[np.bool_], npt.NDArray[np.bool_], Floats, Floats]:
    """Districts (a jittered Voronoi), each with parcels and streets along its own direction.

    Returns, per pixel: number of the parcel in [0, 1), hedge on its border?, road or street?, brightness of the town block in
    [0, 1), and number of the pivot circle in (0, 1), 0 outside.
    """
    n = SIZE // spacing + 3
    jitter = rng.random((2, n, n), dtype=np.float32)
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    cell_y, cell_x = (y // spacing).astype(np.int32), (x // spacing).astype(np.int32)
    nearest = np.full((SIZE, SIZE), np.inf, np.float32)
    second = nearest.copy()
    district = np.zeros((SIZE, SIZE), np.int32)
    for dy in (0, 1, 2):
        for dx in (0, 1, 2):
            cy, cx = cell_y + dy, cell_x + dx
            distance = np.hypot((cy - 1 + jitter[0][cy, cx]) * spacing - y, (cx - 1 + jitter[1][cy, cx]) * spacing - x)
            closer = distance < nearest
            second = np.where(closer, nearest, np.minimum(second, distance))
            district = np.where(closer, cy * n + cx, district)
            nearest = np.where(closer, distance, nearest)
    road = second - nearest < 1.3
    angle = (rng.random(n * n, np.float32) * np.float32(np.pi))[district]
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    width = rng.uniform(7, 20, n * n).astype(np.float32)[district]
    length = rng.uniform(18, 60, n * n).astype(np.float32)[district]
    strip = np.floor(across / width)
    part = along / length + _hash(strip, district, 7)
    parcel = _hash(strip, district, np.floor(part))
    hedge = (across - strip * width < 1.0) | ((part - np.floor(part)) * length < 1.0)
    street = (across % 9 < 1.1) | (along % 14 < 1.1)
    block = np.where(street, np.float32(0.3), _hash(np.floor(across / 3), np.floor(along / 3), district))
    row, column = np.floor(y / 82), np.floor(x / 82)
    inside = np.hypot(y - row * 82 - 41, x - column * 82 - 41) < 39
    pivot = np.where(inside & (_hash(row, column, 3) < 0.62), _hash(row, column, 5) * 0.98 + 0.01, 0).astype(np.float32)
    return parcel, hedge, road, block.astype(np.float32), pivot


def _hash(a: npt.ArrayLike, b: npt.ArrayLike, c: npt.ArrayLike) -> Floats:
    """Integers to a number in [0, 1) that looks random."""
    parts = (np.asarray(part).astype(np.int32).view(np.uint32) for part in (a, b, c))
    first, second, third = (part * np.uint32(prime) for part, prime in zip(parts, HASH_PRIMES, strict=True))
    mixed = first ^ second ^ third
    mixed = (mixed ^ (mixed >> np.uint32(13))) * np.uint32(1_274_126_177)
    return (mixed >> np.uint32(16)).astype(np.float32) / np.float32(65_536)
