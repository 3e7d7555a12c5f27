"""A statistical index of any size without an archive behind it, for measuring the planner.

    python benchmarks/synthetic_index.py OUT [--samples 10000000] [--parts 40] [--seed 7]

Samples lie on the land of an invented planet: every quantity is a smooth random field over longitude, latitude and season, plus
noise, so statistics are as correlated in space as real ones are. Four dates, one a season, for each place. Statistics of a
sample are those of its 12 tiles, merged; a shard's are those of its samples. Rows are sorted by season, then along the Hilbert
curve, as an index is after compaction, and committed part by part through the catalog, as ingest does.

The addresses lead to real shards, so plans can be streamed: one stored object a modality, under the key of each shard.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

import tensorbank as tb
from tensorbank import Band, Modality, TableSchema
from tensorbank.catalog import Commit
from tensorbank.codec import codec_for
from tensorbank.index import samples_schema, shards_schema, tiles_schema
from tensorbank.layout import array_document, array_key, group_document, part_key
from tensorbank.stats import QUANTILES, bin_edges
from tensorbank_indexer.geography import hilbert_index

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
"""Of the standard normal distribution, at the probabilities of :data:`tensorbank.stats.QUANTILES`."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Places:
    """All samples in the order of the index: (n,) each."""

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
    """Samples on land, four seasons a place, sorted by season and Hilbert position."""
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
        """Statistics of the tiles of some samples, (n, tiles) float64 a field, by modality and band."""
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
    """Mean, std and extremes of tiles: extremes are numbers of the dtype, a few standard deviations off."""
    mean = np.clip(mean, low + 2, high - 2) if high > 1 else np.clip(mean, low + 0.01, high - 0.01)
    std = std * rng.uniform(0.4, 1.4, mean.shape)
    least = np.clip(mean - std * rng.uniform(2, 4, mean.shape), low, None).astype(dtype).astype(np.float64)
    most = np.clip(mean + std * rng.uniform(2, 5, mean.shape), None, high).astype(dtype).astype(np.float64)
    mean = np.clip(mean, least, most).astype(np.float32).astype(np.float64)
    std = np.minimum(std, (most - least) / 2).astype(np.float32).astype(np.float64)
    return {"mean": np.clip(mean, least, most), "std": std, "min": least, "max": most}


def _counts(logits: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.int32]:
    """Pixels of each class in each tile, (n, tiles, classes); they add up."""
    noise = rng.standard_normal((len(logits), N_TILES, len(CLASSES)), np.float32)
    weight = np.exp(logits[:, None, :] * 2 + noise)
    share = weight / weight.sum(axis=2, keepdims=True)
    counts = np.where(share < 0.02, 0, share * TILE_PIXELS).astype(np.int32)
    first = counts.argmax(axis=2)[..., None]
    rest = TILE_PIXELS - counts.sum(axis=2, keepdims=True)
    np.put_along_axis(counts, first, np.take_along_axis(counts, first, axis=2) + rest, axis=2)
    return counts


def merged(tiles: Mapping[str, Floats], axis: int = 1) -> dict[str, Floats]:
    """Statistics of what equally large pieces make up."""
    mean = tiles["mean"].mean(axis=axis)
    variance = (tiles["std"] ** 2 + (tiles["mean"] - np.expand_dims(mean, axis)) ** 2).mean(axis=axis)
    return {
        "mean": mean,
        "std": np.sqrt(variance),
        "min": tiles["min"].min(axis=axis),
        "max": tiles["max"].max(axis=axis),
    }


@dataclass(frozen=True, slots=True)
class StoredShard:
    """One stored object that stands for every shard of a modality: where its samples lie, (samples,) and (samples, blocks)."""

    offset: npt.NDArray[np.int64]
    block_bytes: npt.NDArray[np.int32]


def store_shards(folder: Path, rng: np.random.Generator) -> dict[str, StoredShard]:
    """Write one shard's worth of blocks a modality."""
    found = {}
    folder.mkdir(parents=True)
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    for modality in SCHEMA:
        codec = codec_for("balanced", modality)
        lengths, blocks = [], []
        for _ in range(STORED_SAMPLES):
            for _ in modality.bands:
                wave = np.sin(2 * np.pi * (rng.uniform(1, 9) * x + rng.uniform(1, 9) * y)) + rng.normal(
                    0, 0.1, x.shape
                )
                scale = {"int16": 900, "float16": 1, "uint8": 2}[modality.dtype]
                block = codec.encode(np.ascontiguousarray(((wave + 1.5) * scale).astype(modality.dtype)))
                blocks.append(block)
                lengths.append(len(block))
        (folder / modality.name).write_bytes(b"".join(blocks))
        sizes = np.array(lengths, np.int32).reshape(STORED_SAMPLES, -1)
        ends = np.cumsum(sizes.sum(axis=1, dtype=np.int64))
        found[modality.name] = StoredShard(ends - sizes.sum(axis=1), sizes)
    return found


def link_shards(bank: Path, part: str, n_shards: int) -> None:
    """Give every shard of a part its key."""
    for modality in SCHEMA:
        folder = bank / array_key(TABLE, part, modality.name)
        (folder / "c").mkdir(parents=True)
        stored = folder / "stored" / "0" / "0" / "0"
        stored.mkdir(parents=True)
        os.link(bank / "stored" / modality.name, stored / "0")
        for shard in range(n_shards):
            (folder / "c" / str(shard)).symlink_to("../stored", target_is_directory=True)
        document = array_document(
            modality,
            SCHEMA.modalities,
            n_samples=n_shards * SAMPLES_PER_SHARD,
            samples_per_shard=SAMPLES_PER_SHARD,
            blosc=codec_for("balanced", modality).configuration(),
            attributes={},
        )
        (folder / "zarr.json").write_text(json.dumps(document))
    (bank / part_key(TABLE, part) / "zarr.json").write_text(json.dumps(group_document({})))


def array_of(field: pa.Field, given: Any, n: int) -> pa.Array:
    """Arrow array of a field from nested mappings of arrays; nulls where nothing is given."""
    if given is None:
        return pa.nulls(n, field.type)
    if isinstance(given, Mapping):
        columns = [array_of(f, given.get(f.name), n) for f in field.type]
        return pa.StructArray.from_arrays(columns, fields=list(field.type))
    return given if isinstance(given, pa.Array) else pa.array(given, from_pandas=True).cast(field.type)


def table_of(schema: pa.Schema, columns: Mapping[str, Any], n: int) -> pa.Table:
    """Arrow table of a level."""
    return pa.Table.from_arrays([array_of(f, columns.get(f.name), n) for f in schema], schema=schema)


def commit_of(
    part: str,
    first: int,
    p: Places,
    world: World,
    stored: Mapping[str, StoredShard],
    rng: np.random.Generator,
) -> Commit:
    """All rows of one part, from the numbers of its first sample on."""
    n = len(p.lon)
    stats = world.tiles_of(p, rng)
    row = np.arange(n)
    names = pa.array(np.char.mod("s%08d", first + row).astype(object), pa.string())
    seasons = pa.array(SEASONS, pa.string()).take(pa.array(p.season))
    owner = pa.array(np.repeat(row, N_TILES))
    times = _times(p, rng)
    half = 0.012
    box = {
        "west": p.lon - half / np.cos(np.radians(p.lat)),
        "south": p.lat - half,
        "east": p.lon + half / np.cos(np.radians(p.lat)),
        "north": p.lat + half,
    }
    footprints = shapely.to_wkb(shapely.box(box["west"], box["south"], box["east"], box["north"]))
    samples: dict[str, Any] = {
        "sample_id": names,
        "part": pa.repeat(part, n),
        "split": pa.array(["train", "val"]).take(pa.array((p.place % 20 == 0).astype(np.int8))),
        "subset": pa.repeat("synthetic", n),
        "cell_id": pa.array(np.char.mod("c%06x", p.hilbert >> 12).astype(object), pa.string()),
        "location_id": pa.array(np.char.mod("p%07d", p.place).astype(object), pa.string()),
        "season": seasons,
        "hilbert": p.hilbert,
        "lon": p.lon,
        "lat": p.lat,
        "bbox": box,
        "footprint": pa.array(footprints, pa.binary()),
        "S2_time": times[0],
        "S1_time": times[1],
        "S1_S2_difference_s": (times[1].cast(pa.int64()).to_numpy() - times[0].cast(pa.int64()).to_numpy())
        / 1e6,
        "cloud_cover": stats["cloud_cover"]["mean"],
        "stem": names,
    }
    y, x = np.divmod(np.tile(np.arange(N_TILES), n), GRID[1])
    height, width = SIZE // GRID[0], SIZE // GRID[1]
    window = {
        "time_index": np.zeros(n * N_TILES, np.int16),
        "y0": y * height,
        "y1": (y + 1) * height,
        "x0": x * width,
        "x1": (x + 1) * width,
    }
    tiles: dict[str, Any] = {
        **{
            c: array_of(samples_schema(SCHEMA).field(c), samples[c], n).take(owner)
            for c in ("sample_id", "part", "split", "season", "lon", "lat")
        },
        "row": np.repeat(row, N_TILES),
        "tile": np.tile(np.arange(N_TILES), n),
        **window,
    }
    shard = row // SAMPLES_PER_SHARD
    edges = np.arange(0, n, SAMPLES_PER_SHARD)
    shards = _shard_columns(part, samples, edges, n)
    for modality in SCHEMA:
        ref = _refs(part, modality, shard, row, stored[modality.name])
        of_sample, of_tile, of_shard = _statistics(modality, stats[modality.name], edges)
        samples[modality.name] = {"ref": ref, **of_sample}
        repeated = {
            k: array_of(
                samples_schema(SCHEMA).field(modality.name).type.field("ref").type.field(k), v, n
            ).take(owner)
            for k, v in ref.items()
        }
        tiles[modality.name] = {"ref": {**repeated, **window}, **of_tile}
        lengths = np.add.reduceat(np.asarray(ref["length"]), edges)
        keys = pa.array([f"{array_key(TABLE, part, modality.name)}/c/{k}/0/0/0/0" for k in range(len(edges))])
        shards[modality.name] = {"key": keys, "n_samples": shards["n_samples"], "length": lengths, **of_shard}
    return Commit(
        part,
        table_of(samples_schema(SCHEMA), samples, n),
        table_of(tiles_schema(SCHEMA), tiles, n * N_TILES),
        table_of(shards_schema(SCHEMA), shards, len(edges)),
    )


def _times(p: Places, rng: np.random.Generator) -> tuple[pa.Array, pa.Array]:
    """Times of Sentinel-2 and of Sentinel-1, some days apart."""
    months = np.array([MONTHS[s] for s in SEASONS])[p.season]
    start = (np.datetime64("2020-01-01", "us") + (months * 30).astype("timedelta64[D]")).astype(np.int64)
    s2 = start + rng.integers(0, 60 * 86_400, len(p.lon)) * 1_000_000
    s1 = s2 + (rng.normal(0, 2.5, len(p.lon)) * 86_400).astype(np.int64) * 1_000_000
    return pa.array(s2).cast(pa.timestamp("us", "UTC")), pa.array(s1).cast(pa.timestamp("us", "UTC"))


def _refs(
    part: str,
    modality: Modality,
    shard: npt.NDArray[np.int64],
    row: npt.NDArray[np.int64],
    stored: StoredShard,
) -> dict[str, Any]:
    """Addresses of the samples of one modality; every shard holds the same bytes."""
    keys = pa.array(
        [f"{array_key(TABLE, part, modality.name)}/c/{k}/0/0/0/0" for k in range(int(shard[-1]) + 1)]
    )
    which = row % STORED_SAMPLES
    n_blocks = stored.block_bytes.shape[1]
    blocks = pa.ListArray.from_arrays(
        pa.array(np.arange(0, len(row) * n_blocks + 1, n_blocks), pa.int32()),
        pa.array(stored.block_bytes[which].reshape(-1)),
    )
    return {
        "key": keys.take(pa.array(shard)),
        "row": row.astype(np.int32),
        "offset": stored.offset[which],
        "length": stored.block_bytes.sum(axis=1, dtype=np.int64)[which],
        "block_bytes": blocks,
    }


def _statistics(
    modality: Modality, stats: Mapping[str, Any], edges: npt.NDArray[np.int64]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Fields of a modality in samples, tiles and shards."""
    n_of_shard = np.diff(
        [
            *edges,
            len(next(iter(stats.values()))["mean"]) if not modality.categorical else len(stats["counts"]),
        ]
    )
    if modality.categorical:
        counts = stats["counts"]
        n, pixels = len(counts), SIZE * SIZE
        in_samples = counts.sum(axis=1)
        in_shards = np.add.reduceat(in_samples, edges, axis=0)
        all_pixels = n_of_shard * pixels

        def shares(found: Floats, total: Any) -> dict[str, Any]:
            return {name: found[..., i].reshape(-1) / total for i, name in enumerate(CLASSES)}

        return (
            {"count": np.full(n, pixels), "valid": np.full(n, pixels), "share": shares(in_samples, pixels)},
            {"valid": np.full(n * N_TILES, TILE_PIXELS), "share": shares(counts, TILE_PIXELS)},
            {
                "count": all_pixels,
                "valid": all_pixels,
                "share": shares(in_shards, all_pixels),
                "min_share": shares(np.minimum.reduceat(in_samples, edges, axis=0), pixels),
                "max_share": shares(np.maximum.reduceat(in_samples, edges, axis=0), pixels),
            },
        )
    columns: tuple[dict[str, Any], ...] = ({}, {}, {})
    for name, tiles in stats.items():
        of_sample = merged(tiles)
        n = len(of_sample["mean"])
        total = np.full(n, SIZE * SIZE)
        quantiles = {
            q: np.clip(of_sample["mean"] + z * of_sample["std"], of_sample["min"], of_sample["max"]).astype(
                modality.dtype
            )
            for (q, _), z in zip(QUANTILES, NORMAL_QUANTILES, strict=True)
        }
        columns[0][name] = {
            "count": total,
            "valid": total,
            **of_sample,
            **{q: v.astype(np.float32) for q, v in quantiles.items()},
        }
        columns[1][name] = {
            "valid": np.full(n * N_TILES, TILE_PIXELS),
            **{k: v.reshape(-1) for k, v in tiles.items()},
        }
        columns[2][name] = _rolled_up(of_sample, tiles["mean"], edges, n_of_shard * SIZE * SIZE)
    if len(modality.bands) == 1:
        return tuple(c[modality.band_names[0]] for c in columns)  # type: ignore[return-value]
    return columns  # type: ignore[return-value]


def _rolled_up(
    samples: Mapping[str, Floats],
    tile_means: Floats,
    edges: npt.NDArray[np.int64],
    count: npt.NDArray[np.int64],
) -> dict[str, Any]:
    """Statistics of shards; the histogram is that of the tiles' means."""
    pixels = float(SIZE * SIZE)
    mean = np.add.reduceat(samples["mean"], edges) * pixels / count
    squares = np.add.reduceat(samples["std"] ** 2 + samples["mean"] ** 2, edges) * pixels
    shard = np.searchsorted(edges, np.arange(len(tile_means)), side="right") - 1
    bins = np.searchsorted(bin_edges(), tile_means, side="right") - 1
    pairs, times = np.unique(shard[:, None] * 4096 + bins, return_counts=True)
    starts = np.searchsorted(pairs // 4096, np.arange(len(edges) + 1))
    return {
        "count": count,
        "valid": count,
        "min": np.minimum.reduceat(samples["min"], edges),
        "max": np.maximum.reduceat(samples["max"], edges),
        "mean": mean,
        "min_mean": np.minimum.reduceat(samples["mean"], edges),
        "max_mean": np.maximum.reduceat(samples["mean"], edges),
        "m2": np.maximum(squares - mean**2 * count, 0.0),
        "bins": pa.ListArray.from_arrays(
            pa.array(starts, pa.int32()), pa.array((pairs % 4096).astype(np.int16))
        ),
        "bin_counts": pa.ListArray.from_arrays(pa.array(starts, pa.int32()), pa.array(times * TILE_PIXELS)),
    }


def _shard_columns(
    part: str, samples: Mapping[str, Any], edges: npt.NDArray[np.int64], n: int
) -> dict[str, Any]:
    low, high = np.minimum.reduceat, np.maximum.reduceat
    box, times = samples["bbox"], samples["S2_time"].cast(pa.int64()).to_numpy()
    seasons = samples["season"]
    groups = [
        seasons.slice(a, b - a).unique().to_pylist() for a, b in zip(edges, [*edges[1:], n], strict=True)
    ]
    moment = pa.timestamp("us", "UTC")
    return {
        "part": pa.repeat(part, len(edges)),
        "shard": np.arange(len(edges)),
        "n_samples": np.diff([*edges, n]),
        "bbox": {
            "west": low(box["west"], edges),
            "south": low(box["south"], edges),
            "east": high(box["east"], edges),
            "north": high(box["north"], edges),
        },
        "first_time": pa.array(low(times, edges)).cast(moment),
        "last_time": pa.array(high(times, edges)).cast(moment),
        "seasons": pa.array([sorted(g) for g in groups]),
        "min_cloud_cover": low(samples["cloud_cover"], edges),
        "max_cloud_cover": high(samples["cloud_cover"], edges),
    }


@dataclass(frozen=True, slots=True)
class PartTask:
    """What a worker needs to write one part."""

    out: Path
    number: int
    first: int
    places: Places
    stored: Mapping[str, StoredShard]
    seed: int


def write_part(task: PartTask) -> int:
    """Write and commit one part; returns its samples."""
    part = f"part-{task.number:04d}"
    rng = np.random.default_rng([task.seed, task.number])
    link_shards(task.out, part, -(-len(task.places.lon) // SAMPLES_PER_SHARD))
    commit = commit_of(part, task.first, task.places, World(task.seed), task.stored, rng)
    tb.open(str(task.out)).catalog.commit(TABLE, commit)
    return len(task.places.lon)


def write(out: Path, n_samples: int, n_parts: int, seed: int, n_workers: int) -> Iterator[int]:
    """Write a bank; yields the samples so far after each part."""
    rng = np.random.default_rng(seed)
    everything = places(n_samples, rng)
    bank = tb.create(str(out))
    bank.catalog.create(TABLE, SCHEMA, single_writer=True)
    stored = store_shards(out / "stored", rng)
    edges = np.linspace(0, n_samples, n_parts + 1).astype(int).tolist()
    tasks = (
        PartTask(out, number, first, everything[first:last], stored, seed)
        for number, (first, last) in enumerate(pairwise(edges))
    )
    if n_workers == 1:
        yield from accumulate(map(write_part, tasks))
        return
    with ProcessPoolExecutor(n_workers, mp_context=multiprocessing.get_context("forkserver")) as pool:
        yield from accumulate(pool.map(write_part, tasks))


def main() -> None:
    """Write an index and say how far it is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--samples", type=int, default=10_000_000)
    parser.add_argument("--parts", type=int, default=40)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    shutil.rmtree(options.out, ignore_errors=True)
    started = time.perf_counter()
    for done in write(options.out, options.samples, options.parts, options.seed, options.workers):
        print(f"{done:,} of {options.samples:,} samples, {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
