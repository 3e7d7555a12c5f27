"""Scenes: a window of the invented landscape as the sensors of TerraMesh would see it.

Every pixel is a mixture of a few materials ("endmembers"), so that reflectance in any band is one matrix product,
and bands agree with each other, with the land cover and with the radar. Clouds and snow are materials, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from tensorbank_demo.landscape.climates import Climate
from tensorbank_demo.landscape.world import CELL, SIZE, TILE, World

__all__ = ["Block", "Scene", "Sky", "View", "render"]

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]
Kind = TypeVar("Kind", bound=np.generic)

PIXEL_M = 10.0

NO_DATA, WATER, TREES, FLOODED, CROPS, BUILT, BARE, SNOW, CLOUD, RANGE = range(10)
"""The classes of ESRI land cover."""
SKY_LAND, SKY_WATER, SKY_SNOW, SKY_THIN, SKY_THICK, SKY_SHADOW, SKY_NO_DATA = range(7)
"""The classes of the cloud mask."""

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
TRANSMISSION = np.array([0.78, 0.82, 0.86, 0.9, 0.91, 0.92, 0.93, 0.93, 0.94, 0.55, 0.95, 0.94], np.float32)
HAZE_DN = np.array([1150, 820, 480, 280, 240, 200, 170, 140, 120, 40, 15, 10], np.float32)


@dataclass(frozen=True, slots=True)
class Block:
    """A part of the world of 1056 x 1056 pixels, one Major-TOM cell: its upper left corner, and how it is turned."""

    y: int
    x: int
    turn: int
    """The number of one of the 8 rotations and mirrorings."""


@dataclass(frozen=True, slots=True)
class Sky:
    """The clouds over a block: the share aimed at (0:
    none at all), and the field and place that they are taken from."""

    cover: float
    field: int
    y: int
    x: int


@dataclass(frozen=True, slots=True)
class View:
    """The place and time of a scene: the tile in ``column`` from west and
    ``row`` from north (0-3) of a block."""

    climate: Climate
    lat: float
    block: Block
    column: int
    row: int
    sky: Sky
    day: int
    """The day of the year, 0-364."""
    key: tuple[int, ...]
    """The key that seeds the noise of the sensors."""


@dataclass(frozen=True, slots=True)
class Scene:
    """The pixels (band, y, x) by modality, S1 under the name ``S1``; ``cloud_mask`` (y, x) uint8."""

    arrays: dict[str, npt.NDArray[np.generic]]
    cloud_mask: Bytes

    @property
    def cloud_cover(self) -> float:
        """Share of thin and thick cloud."""
        cloudy = np.count_nonzero((self.cloud_mask == SKY_THIN) | (self.cloud_mask == SKY_THICK))
        return cloudy / self.cloud_mask.size


def render(world: World, view: View) -> Scene:
    """Render all modalities of one tile. Pure: the same world and view give the same pixels."""
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
    """The land cover, greenness, light and height of one tile, clouds aside."""

    def __init__(self, world: World, view: View) -> None:
        self.climate = view.climate
        self.view = view
        self.world = world
        self.grain = self._window(world.grain)
        self.parcel = self._window(world.parcel)
        self.block = self._window(world.block)
        self.river = self._window(world.river_px)
        self.moist = self._window(world.moisture) + np.float32(view.climate.moisture)
        self.warm = math.cos(2 * math.pi * (view.day - 200) / 365) * (1 if view.lat >= 0 else -1)
        """The season's warmth: 1 in midsummer, -1 in midwinter."""
        self._raise_land()
        self.annual_c = (
            self.climate.warmth_c - np.float32(0.0062) * self.metres + np.float32(0.5) * self.grain
        )
        self.land = self._land_cover()
        self.snow = self._snow()
        self.cover = np.where(self.snow > 0.5, np.uint8(SNOW), self.land)
        self.green = self._greenness()
        self.light = self._light()

    def _window(self, field: npt.NDArray[Kind]) -> npt.NDArray[Kind]:
        return _cut(field, self.view)

    def _raise_land(self) -> None:
        """Compute the height in metres, the slope as rise over run, and what lies below the sea."""
        climate = self.climate
        self.height = self._window(self.world.elevation) - np.float32(max(climate.sea, -1.5))
        self.at_sea = self.height < (0 if climate.sea > -9 else -np.inf)
        metres = climate.base_m + climate.relief_m * np.maximum(self.height, 0) ** np.float32(1.15)
        self.metres = np.where(self.at_sea, np.float32(0), metres + np.float32(0.25) * self.grain)
        self.south_slope, self.east_slope = np.gradient(self.metres, PIXEL_M)
        self.slope = np.abs(self.south_slope) + np.abs(self.east_slope)

    def _land_cover(self) -> Bytes:
        """Return the ESRI classes without snow and clouds; later rules overwrite earlier ones."""
        climate, world, moist, slope = self.climate, self.world, self.moist, self.slope
        rich = self._window(world.farms) + np.float32(climate.farmland)
        farms = rich - np.float32(5) * slope
        woods = self._window(world.woods) + np.float32(0.9) * moist
        woods += np.minimum(slope, np.float32(0.5)) * 2 + np.float32(0.25) * self.grain
        grows = (self.annual_c > 1.0) & (moist > -1.4)

        cover = np.full(slope.shape, RANGE, np.uint8)
        cover[(moist < -1.6) | (self.annual_c < -1.2) | (slope > 1.5)] = BARE
        cover[(farms > 0) & (moist > -3.2)] = CROPS
        cover[(woods > np.float32(0.75) + np.float32(1.3) * (cover == CROPS)) & grows] = TREES
        cover[(moist > 1.7) & grows & (cover == RANGE) & (woods > -1)] = TREES
        if climate.pivots:
            pivot = self._window(world.pivot)
            cover[(moist < 0.6) & (cover == CROPS)] = BARE if climate.moisture < -1.5 else RANGE
            cover[(rich > -0.6) & (pivot > 0)] = CROPS
            self.parcel = np.where(pivot > 0, pivot, self.parcel)
        else:
            cover[self._window(world.hedge) & (cover == CROPS) & (self.parcel > 0.45)] = TREES
        bed_px = np.float32(2.2 + 1.2 * min(climate.moisture, 2.0))
        cover[(self.river < bed_px + 9) & (moist > 0.75) & (slope < 0.06)] = FLOODED
        street = self._window(world.street) & (farms > -0.2) & (moist > -2) & ~self.at_sea & (slope < 0.2)
        self.town = self._town()
        cover[self.town | street] = BUILT
        cover[self.at_sea | (self.river < bed_px)] = WATER
        if climate.moisture > -1:
            brook = (self._window(world.brook_px) < 0.9) & (slope < 0.25)
            cover[brook & (self.river < 300) & (self.grain > -1.2)] = WATER
        return cover

    def _town(self) -> Flags:
        """Return the pixels of towns, which lie low, near rivers, and end at the border of a parcel."""
        rank = (
            self._window(self.world.towns)
            + np.float32(0.55 * self.climate.towns)
            - np.float32(3) * self.slope
        )
        rank += np.float32(0.35) * (self.parcel - np.float32(0.5)) - np.float32(0.001) * np.minimum(
            self.river, 400
        )
        return np.asarray(rank > np.float32(1.55))

    def _snow(self) -> Floats:
        """Share of snow: none on water, steep slopes shed it, trees stand out of it."""
        today_c = self.annual_c + np.float32(self.climate.seasons_c * self.warm)
        cold = (np.float32(0.5) - today_c) / 3 - self.slope * np.float32(0.55) + np.float32(0.25) * self.grain
        snow: Floats = np.clip(cold, 0, 1) * SNOW_KEPT[self.land]
        snow[snow < 0.15] = 0
        return snow

    def _light(self) -> Floats:
        """Return the brightness by sun, slope and texture.
        The sun stands half east, half towards the equator, as at 10:30."""
        equator = np.float32(-1 if self.view.lat >= 0 else 1)
        low_sun = np.float32(0.9 - 0.3 * self.warm)
        sunny = np.clip(1 + low_sun * (self.south_slope * equator - self.east_slope), 0.4, 1.6)
        texture = np.float32(1) + ROUGHNESS[self.land] * self.grain
        texture += PARCEL_CONTRAST[self.land] * (self.parcel - np.float32(0.5))
        texture += BLOCK_CONTRAST[self.land] * (self.block - np.float32(0.42))
        return np.where(self.land == WATER, np.float32(1), np.clip(sunny * texture, 0.25, 2.2))

    def _greenness(self) -> Floats:
        """Return the greenness of each pixel, 0-1; of water, its depth."""
        cover = self.land
        summer = np.float32(0.5 + 0.5 * (self.warm if self.climate.seasons_c > 4 else 0.8))
        # Each parcel has a crop with a calendar of its own.
        year = self.view.day / 365 - 0.28 + (0.5 if self.view.lat < 0 else 0)
        calendar = np.cos(np.float32(2 * np.pi) * (np.float32(year) - np.float32(0.5) * self.parcel))
        crops = np.clip(np.float32(0.45) + np.float32(0.6) * calendar + np.float32(0.1) * self.grain, 0.03, 1)
        grass = np.float32(0.4) + np.float32(0.25) * self.moist + np.float32(0.35) * summer
        grass = np.clip(grass + np.float32(0.08) * self.grain, 0.05, 1)
        trees = np.clip(np.float32(0.25) + np.float32(0.75) * summer + np.float32(0.1) * self.moist, 0.15, 1)
        gardens = np.clip(self.block * np.float32(1.5) - np.float32(0.75), 0, 0.9) * self.town
        if self.climate.sea > -9:
            depth = np.clip(-self.height * np.float32(2.2), 0.12, 1)
        else:
            depth = np.clip(np.float32(0.95) - self.river * np.float32(0.12), 0.6, 0.95)
        green = np.where(cover == CROPS, crops, np.where(cover == TREES, trees, grass))
        return np.where(cover == BUILT, gardens, np.where(cover == WATER, depth, green))

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
        return np.take(SKY_OF_COVER, self.cover)


ROUGHNESS = np.zeros(10, np.float32)
ROUGHNESS[[TREES, FLOODED, CROPS, BUILT, BARE, RANGE]] = 0.2, 0.12, 0.035, 0.1, 0.09, 0.07
PARCEL_CONTRAST = np.zeros(10, np.float32)
PARCEL_CONTRAST[CROPS] = 0.5
BLOCK_CONTRAST = np.zeros(10, np.float32)
BLOCK_CONTRAST[BUILT] = 0.9
SNOW_KEPT = np.ones(10, np.float32)
SNOW_KEPT[[WATER, TREES]] = 0, 0.55
SKY_OF_COVER = np.zeros(10, np.uint8)
SKY_OF_COVER[[WATER, SNOW]] = SKY_WATER, SKY_SNOW


def _radar(
    world: World, rng: np.random.Generator, ground: _Ground, shares: Floats
) -> npt.NDArray[np.float16]:
    """Render VV and VH in dB: material, slope towards the sensor, speckle, and rarely a few NaN."""
    decibel = np.einsum("bm,myx->byx", SPECTRA[12:, :HAZE], shares[:HAZE])
    decibel += np.clip(ground.east_slope * np.float32(9), -6, 7)
    for band in decibel:
        band += _anywhere(world.speckle_db, rng, TILE)
    result: npt.NDArray[np.float16] = decibel.astype(np.float16)
    if rng.random() < 0.08:
        ys, xs = rng.integers(TILE, size=(2, int(rng.integers(1, 40))))
        result[:, ys, xs] = np.nan
    return result


def _sky(world: World, view: View) -> tuple[Floats | None, Flags, Flags]:
    """Return the opacity of clouds, the pixels where they are thick, and their shadow north-west of them."""
    none = np.zeros((TILE, TILE), bool)
    if view.sky.cover <= 0:
        return None, none, none
    y, x = view.sky.y + TILE * view.row, view.sky.x + TILE * view.column
    field = world.skies[view.sky.field][y : y + TILE + 16, x : x + TILE + 16]
    quantiles = world.sky_quantiles[view.sky.field]
    edge = np.float32(np.interp(1 - view.sky.cover, np.linspace(0, 1, len(quantiles)), quantiles))
    opacity = np.clip((field - edge) * np.float32(1.8), 0, 0.97)
    opacity *= opacity * (3 - 2 * opacity)
    cloud = opacity[:TILE, :TILE]
    thick = cloud > 0.55
    shadow = (opacity[11 : 11 + TILE, 8 : 8 + TILE] > 0.45) & (cloud < 0.12)
    return (cloud if cloud.any() else None), thick, shadow


def _optical(
    world: World, rng: np.random.Generator, shares: Floats, cloud: Floats | None
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int16]]:
    """Render S2L2A (12, y, x) and S2L1C (13, y, x);
    coarse bands are computed at their own resolution and repeated."""
    l2a = np.empty((12, TILE, TILE), np.int16)
    l1c = np.empty((13, TILE, TILE), np.int16)
    for bands, step in ((BANDS_10M, 1), (BANDS_20M, 2), (BANDS_60M, 6)):
        if step > 1:
            shares = _coarser(shares, 2 if step == 2 else 3)
        size = TILE // step
        values = np.einsum(
            "bm,myx->byx", SPECTRA[bands], shares
        )  # no BLAS: it is slower here, and threads of its own
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
    """Return coarser pixels: 2 times as large, the mean of a diagonal;
    3 times as large, the middle one: quick, and near enough."""
    if step == 2:
        coarse = shares[:, ::2, ::2] + shares[:, 1::2, 1::2]
        coarse *= np.float32(0.5)
        return coarse
    return shares[:, 1::3, 1::3]


def _repeat(pixels: npt.NDArray[np.int16], step: int, out: npt.NDArray[np.int16]) -> None:
    size = len(pixels)
    out.reshape(size, step, size, step)[:] = pixels[:, None, :, None]


def _ndvi(l2a: npt.NDArray[np.int16]) -> npt.NDArray[np.float16]:
    red, nir = l2a[3].astype(np.float32), l2a[7].astype(np.float32)
    with np.errstate(invalid="ignore"):
        ndvi: npt.NDArray[np.float16] = ((nir - red) / (nir + red)).astype(np.float16)
    return ndvi[None]


def _stretched(l2a: npt.NDArray[np.int16]) -> Bytes:
    """Return red, green and blue between the image's own 1 and 99 % quantiles, uint8."""
    result = np.empty((3, TILE, TILE), np.uint8)
    sample = l2a[1:4, 2::5, 2::5].reshape(3, -1)
    low, high = np.percentile(sample, (1, 99), axis=1)
    low, high = low.min(), max(float(high.max()), float(low.min()) + 1)
    for out, band in zip(result, (3, 2, 1), strict=True):
        out[:] = np.clip((l2a[band] - np.float32(low)) * np.float32(255 / (high - low)), 0, 255)
    return result


def _cut(field: npt.NDArray[Kind], view: View) -> npt.NDArray[Kind]:
    """The tile's window of a field, after turning the block it lies in."""
    y, x, turn = view.block.y, view.block.x, view.block.turn
    block = field[y : y + CELL, x : x + CELL]
    if turn & 4:
        block = block.T
    block = block[:: -1 if turn & 2 else 1, :: -1 if turn & 1 else 1]
    tile = block[view.row * TILE : (view.row + 1) * TILE, view.column * TILE : (view.column + 1) * TILE]
    return np.ascontiguousarray(tile)


def _anywhere(field: Floats, rng: np.random.Generator, size: int) -> Floats:
    y, x = rng.integers(SIZE - size, size=2)
    return field[y : y + size, x : x + size]
