"""A statistical index of any size without an archive behind it, for measuring the planner.

    python benchmarks/synthetic_index.py OUT [--samples 10000000] [--parts 40] [--seed 7] [--layout compacted|ingest]

Samples lie on the land of an invented planet: every quantity is a smooth random field over longitude, latitude and season, plus
noise, so statistics are as correlated in space as real ones are. Four dates, one a season, for each place. Statistics of a
sample are those of its 12 tiles, merged; a shard's are those of its samples. Rows are sorted by season, then along the Hilbert
curve, as an index is after compaction, and committed part by part through the catalog, as ingest does. In the layout ``ingest``
only the rows of each part are sorted, and every part has places of the whole planet, as archives have.

The addresses lead to real shards, so plans can be streamed: one stored object a modality, under the key of each shard.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

import tensorbank as tb
from synthetic_shards import StoredShard, link_shards, store_shards
from synthetic_world import (
    CLASSES,
    GRID,
    MONTHS,
    N_TILES,
    NORMAL_QUANTILES,
    SAMPLES_PER_SHARD,
    SCHEMA,
    SEASONS,
    SIZE,
    STORED_SAMPLES,
    TABLE,
    TILE_PIXELS,
    Floats,
    Places,
    World,
    merged,
    places,
)
from tensorbank import Modality
from tensorbank.catalog import Commit
from tensorbank.index_schema import samples_schema, shards_schema, tiles_schema
from tensorbank.layout import array_key
from tensorbank.statistics.band_stats import QUANTILES, bin_edges

Task = TypeVar("Task")


def array_of(field: pa.Field, given: Any, n: int) -> pa.Array:
    """Make the Arrow array of a field from nested mappings of arrays; nulls where nothing is given."""
    if given is None:
        return pa.nulls(n, field.type)
    if isinstance(given, Mapping):
        columns = [array_of(f, given.get(f.name), n) for f in field.type]
        return pa.StructArray.from_arrays(columns, fields=list(field.type))
    return given if isinstance(given, pa.Array) else pa.array(given, from_pandas=True).cast(field.type)


def table_of(schema: pa.Schema, columns: Mapping[str, Any], n: int) -> pa.Table:
    """Make the Arrow table of a level."""
    return pa.Table.from_arrays([array_of(f, columns.get(f.name), n) for f in schema], schema=schema)


def commit_of(
    part: str,
    numbers: range,
    p: Places,
    world: World,
    stored: Mapping[str, StoredShard],
    rng: np.random.Generator,
) -> Commit:
    """Return all rows of one part, whose samples have these numbers."""
    n = len(p.lon)
    stats = world.tiles_of(p, rng)
    row = np.arange(n)
    names = pa.array(np.char.mod("s%08d", np.asarray(numbers)).astype(object), pa.string())
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
    """Return the times of Sentinel-2 and of Sentinel-1, some days apart."""
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
    """Return the addresses of the samples of one modality; every shard holds the same bytes."""
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
    """Return the fields of a modality in samples, tiles and shards."""
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
    """Return the statistics of shards; the histogram is that of the tiles' means."""
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
        **{f"min_{name}": low(samples[name], edges) for name in ("lon", "lat")},
        **{f"max_{name}": high(samples[name], edges) for name in ("lon", "lat")},
        "first_time": pa.array(low(times, edges)).cast(moment),
        "last_time": pa.array(high(times, edges)).cast(moment),
        "seasons": pa.array([sorted(g) for g in groups]),
        "min_cloud_cover": low(samples["cloud_cover"], edges),
        "max_cloud_cover": high(samples["cloud_cover"], edges),
    }


@dataclass(frozen=True, slots=True)
class PartTask:
    """The values that a worker needs to write one part."""

    out: Path
    number: int
    samples: range
    places: Places
    stored: Mapping[str, StoredShard]
    seed: int


def write_part(task: PartTask) -> int:
    """Write and commit one part; returns its samples."""
    part = f"part-{task.number:04d}"
    rng = np.random.default_rng([task.seed, task.number])
    link_shards(task.out, part, -(-len(task.places.lon) // SAMPLES_PER_SHARD))
    commit = commit_of(part, task.samples, task.places, World(task.seed), task.stored, rng)
    tb.open(str(task.out)).catalog.commit(TABLE, commit)
    return len(task.places.lon)


def write(
    out: Path, n_samples: int, n_parts: int, seed: int, n_workers: int, layout: str = "compacted"
) -> Iterator[int]:
    """Write a bank; yields the samples so far after each part."""
    rng = np.random.default_rng(seed)
    everything = places(n_samples, rng)
    bank = tb.create(str(out))
    bank.catalog.create(TABLE, SCHEMA, single_writer=True)
    stored = store_shards(out / "stored", rng)
    edges = np.linspace(0, n_samples, n_parts + 1).astype(int).tolist()
    parts = [range(first, last) for first, last in pairwise(edges)]
    if layout == "ingest":
        parts = [range(number, n_samples, n_parts) for number in range(n_parts)]
    tasks = (
        PartTask(out, number, part, everything[part.start : part.stop : part.step], stored, seed)
        for number, part in enumerate(parts)
    )
    yield from in_turn(write_part, tasks, n_workers)


def in_turn(write_one: Callable[[Task], int], tasks: Iterable[Task], n_workers: int) -> Iterator[int]:
    """Write parts, by several processes if so asked; yields the samples so far after each."""
    if n_workers == 1:
        yield from accumulate(map(write_one, tasks))
        return
    with ProcessPoolExecutor(n_workers, mp_context=multiprocessing.get_context("forkserver")) as pool:
        yield from accumulate(pool.map(write_one, tasks))


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
    parser.add_argument("--layout", choices=("compacted", "ingest"), default="compacted")
    options = parser.parse_args()
    shutil.rmtree(options.out, ignore_errors=True)
    started = time.perf_counter()
    for done in write(
        options.out, options.samples, options.parts, options.seed, options.workers, options.layout
    ):
        print(f"{done:,} of {options.samples:,} samples, {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
