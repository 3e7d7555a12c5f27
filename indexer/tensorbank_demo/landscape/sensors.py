"""The pixels that the sensors of TerraMesh would record of a mixture of materials."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tensorbank_demo.landscape.ground import Ground
from tensorbank_demo.landscape.materials import HAZE, SPECTRA
from tensorbank_demo.landscape.world import SIZE, TILE, World

__all__ = ["ndvi_of", "optical", "radar", "true_colour"]

Floats = npt.NDArray[np.float32]

BANDS_10M, BANDS_20M, BANDS_60M = [1, 2, 3, 7], [4, 5, 6, 8, 10, 11], [0, 9]
"""The bands of S2L2A, by number, that are recorded at each resolution."""
TRANSMISSION = np.array([0.78, 0.82, 0.86, 0.9, 0.91, 0.92, 0.93, 0.93, 0.94, 0.55, 0.95, 0.94], np.float32)
"""The transmission of the atmosphere in the 12 bands of S2L2A; B10, which sees only high clouds, is none of them."""
HAZE_DN = np.array([1150, 820, 480, 280, 240, 200, 170, 140, 120, 40, 15, 10], np.float32)
"""The path radiance of the atmosphere in these bands, in stored units."""


def radar(world: World, rng: np.random.Generator, ground: Ground, shares: Floats) -> npt.NDArray[np.float16]:
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


def optical(
    world: World, rng: np.random.Generator, shares: Floats, cloud: Floats | None
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int16]]:
    """Render S2L2A (12, y, x) and S2L1C (13, y, x); coarse bands are computed at their own resolution and repeated."""
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
    """Return coarser pixels: 2 times as large, the mean of a diagonal; 3 times as large, the middle one: quick, and near
    enough.
    """
    if step == 2:
        coarse = shares[:, ::2, ::2] + shares[:, 1::2, 1::2]
        coarse *= np.float32(0.5)
        return coarse
    return shares[:, 1::3, 1::3]


def _repeat(pixels: npt.NDArray[np.int16], step: int, out: npt.NDArray[np.int16]) -> None:
    size = len(pixels)
    out.reshape(size, step, size, step)[:] = pixels[:, None, :, None]


def ndvi_of(l2a: npt.NDArray[np.int16]) -> npt.NDArray[np.float16]:
    """Return the vegetation index, (1, y, x)."""
    red, nir = l2a[3].astype(np.float32), l2a[7].astype(np.float32)
    with np.errstate(invalid="ignore"):
        ndvi: npt.NDArray[np.float16] = ((nir - red) / (nir + red)).astype(np.float16)
    return ndvi[None]


def true_colour(l2a: npt.NDArray[np.int16]) -> npt.NDArray[np.uint8]:
    """Return red, green and blue, (3, y, x) uint8, stretched from the image's 1 % to its 99 % quantile."""
    result = np.empty((3, TILE, TILE), np.uint8)
    sample = l2a[1:4, 2::5, 2::5].reshape(3, -1)
    low, high = np.percentile(sample, (1, 99), axis=1)
    low, high = low.min(), max(float(high.max()), float(low.min()) + 1)
    for out, band in zip(result, (3, 2, 1), strict=True):
        out[:] = np.clip((l2a[band] - np.float32(low)) * np.float32(255 / (high - low)), 0, 255)
    return result


def _anywhere(field: Floats, rng: np.random.Generator, size: int) -> Floats:
    y, x = rng.integers(SIZE - size, size=2)
    return field[y : y + size, x : x + size]
