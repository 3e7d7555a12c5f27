"""Materials ("endmembers"), of which every pixel is a mixture, how each of them looks to the sensors,
and the classes of the maps: ESRI land cover, and SEnSEI-v2 cloud mask.
"""

from __future__ import annotations

import numpy as np

NO_DATA, WATER, TREES, FLOODED, CROPS, BUILT, BARE, SNOW, CLOUD, RANGE = range(10)
"""The classes of ESRI land cover."""
N_COVERS = 10
"""The number of classes of land cover."""
SKY_LAND, SKY_WATER, SKY_SNOW, SKY_THIN, SKY_THICK, SKY_SHADOW, SKY_NO_DATA = range(7)
"""The classes of the cloud mask."""

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
"""Reflectance x 10,000 of B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B11 B12, then VV and VH in dB."""
SOIL, SAND, CROP, FOREST, GRASS, ROCK, TOWN, DEEP, SHALLOW, WHITE, HAZE = range(len(MATERIALS))
"""The rows of materials in the arrays below. White is snow, haze is cloud."""
SPECTRA = np.array(list(MATERIALS.values()), np.float32).T
"""The reflectances of the materials as an array, (14, material)."""

BROWN = np.zeros((len(MATERIALS), N_COVERS), np.float32)
"""The share of each material in a class of land cover at greenness 0, (material, class)."""
GREEN = np.zeros_like(BROWN)
"""The share that greenness 1 adds to it, (material, class)."""
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
