"""The ground of a view: height, land cover, greenness, snow and light, of which its pixels are mixed."""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from tensorbank_demo.landscape.materials import (
    BARE,
    BROWN,
    BUILT,
    CROPS,
    FLOODED,
    GREEN,
    N_COVERS,
    RANGE,
    ROCK,
    SAND,
    SKY_LAND,
    SKY_SNOW,
    SKY_WATER,
    SNOW,
    SOIL,
    TREES,
    WATER,
    WHITE,
)
from tensorbank_demo.landscape.view import View, window
from tensorbank_demo.landscape.world import World

__all__ = ["Ground"]

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]
Kind = TypeVar("Kind", bound=np.generic)

PIXEL_M = 10.0
"""The size of a pixel in metres."""
ROUGHNESS = np.zeros(N_COVERS, np.float32)
ROUGHNESS[[TREES, FLOODED, CROPS, BUILT, BARE, RANGE]] = 0.2, 0.12, 0.035, 0.1, 0.09, 0.07
"""The contrast of a class by the grain of the ground."""
PARCEL_CONTRAST = np.zeros(N_COVERS, np.float32)
PARCEL_CONTRAST[CROPS] = 0.5
"""The contrast of a class between parcels."""
BLOCK_CONTRAST = np.zeros(N_COVERS, np.float32)
BLOCK_CONTRAST[BUILT] = 0.9
"""The contrast of a class between blocks of houses."""
SNOW_KEPT = np.ones(N_COVERS, np.float32)
SNOW_KEPT[[WATER, TREES]] = 0, 0.55
"""The share of snow that stays on a class."""
SKY_OF_COVER = np.full(N_COVERS, SKY_LAND, np.uint8)
SKY_OF_COVER[[WATER, SNOW]] = SKY_WATER, SKY_SNOW
"""The class of the cloud mask, without clouds, of a class of land cover."""


class Ground:
    """The land cover, greenness, light and height of one view, without clouds; arrays (y, x)."""

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
        return window(field, self.view)

    def _raise_land(self) -> None:
        """Compute the height in metres, the slope as rise over run, and the pixels below the sea."""
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
        """Return the pixels of towns, which lie low and near rivers, and end at the border of a parcel."""
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
        """Return the share of snow: none on water, less on steep slopes and among trees."""
        today_c = self.annual_c + np.float32(self.climate.seasons_c * self.warm)
        cold = (np.float32(0.5) - today_c) / 3 - self.slope * np.float32(0.55) + np.float32(0.25) * self.grain
        snow: Floats = np.clip(cold, 0, 1) * SNOW_KEPT[self.land]
        snow[snow < 0.15] = 0
        return snow

    def _light(self) -> Floats:
        """Return the brightness by slope and texture. The sun stands half east, half towards the equator, as at 10:30."""
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
        """Return the share of each material, (material, y, x) float32."""
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
        """Return the cloud mask without clouds, (y, x) uint8: land, water, snow."""
        return np.take(SKY_OF_COVER, self.cover)
