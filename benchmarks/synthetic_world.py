"""The invented planet of :mod:`synthetic_index`: places on its land, smooth fields over them, and statistics of tiles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tensorbank import Band, Modality, TableSchema
from tensorbank_indexer.measures.geography import hilbert_index

SEASONS = ("autumn", "spring", "summer", "winter")
MONTHS = {"winter": 1, "spring": 4, "summer": 7, "autumn": 10}
SIZE = 264
GRID = (3, 4)
N_TILES = GRID[0] * GRID[1]
TILE_PIXELS = SIZE * SIZE // N_TILES
SAMPLES_PER_SHARD = 256
STORED_SAMPLES = SAMPLES_PER_SHARD
CLASSES = ("water", "trees", "grass", "flooded_vegetation", "crops", "shrub", "built", "bare")
SCHEMA = TableSchema(
    (
        Modality("S2L2A", "int16", (Band("B02"), Band("B04"), Band("B08")), 1, SIZE, SIZE),
        Modality("S1RTC", "float16", (Band("vv"), Band("vh")), 1, SIZE, SIZE),
        Modality("NDVI", "float16", (Band("NDVI"),), 1, SIZE, SIZE),
        Modality("LULC", "uint8", (Band("LULC"),), 1, SIZE, SIZE, tuple(enumerate(CLASSES))),
    )
)
TABLE = "world"
NORMAL_QUANTILES = (-2.0537, -0.6745, 0.0, 0.6745, 2.0537)
"""The quantiles of the standard normal distribution,
at the probabilities of :data:`tensorbank.statistics.band_stats.QUANTILES`."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Places:
    """The places of all samples in the order of the index: (n,) each."""

    lon: Floats
    lat: Floats
    season: npt.NDArray[np.int64]
    hilbert: npt.NDArray[np.int64]
    place: npt.NDArray[np.int64]

    def __getitem__(self, rows: slice) -> Places:
        return Places(*(getattr(self, name)[rows] for name in Places.__slots__))


@dataclass(frozen=True, slots=True)
class Field:
    """A smooth random function of place and season with values about in [-2, 2]: a sum of plane waves of several lengths."""

    waves: Floats
    phases: Floats
    amplitudes: Floats

    @classmethod
    def of(cls, rng: np.random.Generator, longest_deg: float = 90.0) -> Field:
        lengths = longest_deg / 2.0 ** np.linspace(0, 5, 12)
        angles = rng.uniform(0, 2 * np.pi, 12)
        waves = np.stack([np.cos(angles), np.sin(angles)], axis=1) * (2 * np.pi / lengths)[:, None]
        amplitudes = np.sqrt(lengths / lengths.sum()) * 1.4
        return cls(waves, rng.uniform(0, 2 * np.pi, (12, len(SEASONS))), amplitudes)

    def at(self, p: Places) -> Floats:
        total = np.zeros(len(p.lon))
        for (x, y), phase, amplitude in zip(self.waves, self.phases, self.amplitudes, strict=True):
            total += amplitude * np.sin(p.lon * x + p.lat * y + phase[0] + 0.5 * (phase - phase[0])[p.season])
        return total


def places(n: int, rng: np.random.Generator) -> Places:
    """Return the samples on land, four seasons a place, sorted by season and Hilbert position."""
    land = Field.of(rng, longest_deg=180.0)
    n_places = -(-n // len(SEASONS))
    lon, lat = np.zeros(0), np.zeros(0)
    while len(lon) < n_places:
        x = rng.uniform(-179.5, 179.5, 1 << 20)
        y = np.degrees(np.arcsin(rng.uniform(-0.9, 0.97, 1 << 20)))
        found = Places(x, y, np.zeros(len(x), np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64))
        keep = land.at(found) > 0.5
        lon, lat = np.concatenate([lon, x[keep]]), np.concatenate([lat, y[keep]])
    lon, lat = lon[:n_places], lat[:n_places]
    hilbert = hilbert_index(lon, lat)
    order = np.argsort(hilbert, kind="stable")
    index = np.tile(order, len(SEASONS))[:n]
    season = np.repeat(np.arange(len(SEASONS)), n_places)[:n]
    return Places(lon[index], lat[index], season, hilbert[index], index)


class World:
    """The fields of one planet."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.cloud, self.moisture, self.roughness = (Field.of(rng) for _ in range(3))
        self.classes = [Field.of(rng, longest_deg=60.0) for _ in CLASSES]

    def tiles_of(self, p: Places, rng: np.random.Generator) -> dict[str, dict[str, Any]]:
        """Return the statistics of the tiles of some samples, (n, tiles) float64 for each field,
        by modality and band.
        """
        n = len(p.lon)
        shape = (n, N_TILES)
        cloud = 1 / (1 + np.exp(-2.5 * (self.cloud.at(p) - 0.4)[:, None] - rng.normal(0, 0.8, shape)))
        cloud = np.where(cloud < 0.05, 0.0, cloud)
        logits = np.stack([1.8 * f.at(p) for f in self.classes], axis=1).astype(np.float32)
        counts = _counts(logits, rng)
        green = counts[..., 1] * 0.8 + counts[..., 2] * 0.6 + counts[..., 4] * 0.55 + counts[..., 5] * 0.4
        ndvi = np.clip(
            green / TILE_PIXELS + 0.1 * self.moisture.at(p)[:, None] + rng.normal(0, 0.03, shape), -0.3, 0.95
        )
        ndvi *= 1 - 0.8 * cloud
        red = 300 + 1800 * (1 - ndvi) / 2 + 5000 * cloud + rng.normal(0, 60, shape)
        near = red * (1 + ndvi) / np.maximum(1 - ndvi, 0.05)
        blue = red * 0.8 + rng.normal(0, 30, shape)
        vv = -12 + 3 * self.roughness.at(p)[:, None] + rng.normal(0, 0.7, shape)
        return {
            "S2L2A": {
                "B02": _spread(blue, 0.12 * blue, np.int16, 1, 16000, rng),
                "B04": _spread(red, 0.14 * red, np.int16, 1, 16000, rng),
                "B08": _spread(near, 0.16 * near, np.int16, 1, 16000, rng),
            },
            "S1RTC": {
                "vv": _spread(vv, np.full(shape, 1.5), np.float16, -60, 20, rng),
                "vh": _spread(vv - 6.5, np.full(shape, 1.6), np.float16, -60, 20, rng),
            },
            "NDVI": {"NDVI": _spread(ndvi, np.full(shape, 0.06), np.float16, -1, 1, rng)},
            "LULC": {"counts": counts},
            "cloud_cover": {"mean": np.round(cloud.mean(axis=1), 4)},
        }


def _spread(
    mean: Floats, std: Floats, dtype: Any, low: float, high: float, rng: np.random.Generator
) -> dict[str, Floats]:
    """Return mean, std and extremes of tiles:
    extremes are numbers of the dtype, a few standard deviations off.
    """
    mean = np.clip(mean, low + 2, high - 2) if high > 1 else np.clip(mean, low + 0.01, high - 0.01)
    std = std * rng.uniform(0.4, 1.4, mean.shape)
    least = np.clip(mean - std * rng.uniform(2, 4, mean.shape), low, None).astype(dtype).astype(np.float64)
    most = np.clip(mean + std * rng.uniform(2, 5, mean.shape), None, high).astype(dtype).astype(np.float64)
    mean = np.clip(mean, least, most).astype(np.float32).astype(np.float64)
    std = np.minimum(std, (most - least) / 2).astype(np.float32).astype(np.float64)
    return {"mean": np.clip(mean, least, most), "std": std, "min": least, "max": most}


def _counts(logits: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.int32]:
    """Return the number of pixels of each class in each tile, (n, tiles, classes); they add up."""
    noise = rng.standard_normal((len(logits), N_TILES, len(CLASSES)), np.float32)
    weight = np.exp(logits[:, None, :] * 2 + noise)
    share = weight / weight.sum(axis=2, keepdims=True)
    counts = np.where(share < 0.02, 0, share * TILE_PIXELS).astype(np.int32)
    first = counts.argmax(axis=2)[..., None]
    rest = TILE_PIXELS - counts.sum(axis=2, keepdims=True)
    np.put_along_axis(counts, first, np.take_along_axis(counts, first, axis=2) + rest, axis=2)
    return counts


def merged(tiles: Mapping[str, Floats], axis: int = 1) -> dict[str, Floats]:
    """Return the statistics of a whole that equally large pieces make up."""
    mean = tiles["mean"].mean(axis=axis)
    variance = (tiles["std"] ** 2 + (tiles["mean"] - np.expand_dims(mean, axis)) ** 2).mean(axis=axis)
    return {
        "mean": mean,
        "std": np.sqrt(variance),
        "min": tiles["min"].min(axis=axis),
        "max": tiles["max"].max(axis=axis),
    }
