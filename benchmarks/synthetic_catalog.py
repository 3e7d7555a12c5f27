"""An index of a hundred million samples that fits on one disk: one modality of one band, one tile a sample, no tensor.

    python benchmarks/synthetic_catalog.py OUT [--samples 100000000] [--parts 1000] [--seed 7]

Every part has places of the whole invented planet of :mod:`synthetic_world` and is sorted only among its own rows, as ingest
leaves it; each is made, committed and forgotten, so that memory does not depend on the number of samples. Shards have their keys
in the bank and no content: nothing here reads tensors.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import tensorbank as tb
from synthetic_index import in_turn, table_of
from synthetic_world import NORMAL_QUANTILES, SEASONS, SIZE, Field, places
from tensorbank import Band, Modality, TableSchema
from tensorbank.catalog import Commit
from tensorbank.index_schema import samples_schema, shards_schema, tiles_schema
from tensorbank.layout import array_key
from tensorbank.statistics.band_stats import QUANTILES

TABLE = "world"
MODALITY = Modality("NDVI", "float16", (Band("NDVI"),), 1, SIZE, SIZE)
SCHEMA = TableSchema((MODALITY,))
SAMPLES_PER_SHARD = 512
PIXELS = SIZE * SIZE
BLOCK_BYTES = 90_000


@dataclass(frozen=True, slots=True)
class PartTask:
    """The values that a worker needs to write one part."""

    out: Path
    number: int
    first: int
    n: int
    seed: int


def commit_of(task: PartTask) -> Commit:
    """Return all rows of one part."""
    rng = np.random.default_rng([task.seed, task.number])
    p, n, part = places(task.n, rng), task.n, f"part-{task.number:05d}"
    world = np.random.default_rng(task.seed)
    green, cloud = Field.of(world), Field.of(world)
    mean = np.clip(0.35 + 0.2 * green.at(p) + rng.normal(0, 0.05, n), -0.3, 0.95)
    std = rng.uniform(0.02, 0.12, n)
    low, high = (
        (mean + side * std * rng.uniform(2, 4, n)).astype(np.float16).astype(np.float64) for side in (-1, 1)
    )
    mean = np.clip(mean, low, high)
    row = np.arange(n)
    names = pa.array(np.char.mod("s%09d", task.first + row).astype(object), pa.string())
    shard = row // SAMPLES_PER_SHARD
    edges = np.arange(0, n, SAMPLES_PER_SHARD)
    folder = array_key(TABLE, part, MODALITY.name)
    keys = pa.array([f"{folder}/c/{k}/0/0/0/0" for k in range(len(edges))])
    time_us = (np.int64(1_577_836_800) + rng.integers(0, 4 * 365 * 86_400, n)) * 1_000_000
    ref: dict[str, Any] = {
        "key": keys.take(pa.array(shard)),
        "row": row.astype(np.int32),
        "offset": row % SAMPLES_PER_SHARD * BLOCK_BYTES,
        "length": np.full(n, BLOCK_BYTES),
        "block_bytes": pa.ListArray.from_arrays(
            pa.array(np.arange(n + 1), pa.int32()), pa.array(np.full(n, BLOCK_BYTES, np.int32))
        ),
    }
    common: dict[str, Any] = {
        "sample_id": names,
        "part": pa.repeat(part, n),
        "split": pa.array(["train", "val"]).take(pa.array((row % 20 == 0).astype(np.int8))),
        "season": pa.array(SEASONS, pa.string()).take(pa.array(p.season)),
        "lon": p.lon,
        "lat": p.lat,
    }
    box = {
        "west": p.lon - 0.012,
        "south": p.lat - 0.012,
        "east": p.lon + 0.012,
        "north": p.lat + 0.012,
    }
    clouds = np.clip(np.round(0.3 + 0.3 * cloud.at(p) + rng.normal(0, 0.1, n), 4), 0, 1)
    of_sample = {
        "ref": ref,
        "count": np.full(n, PIXELS),
        "valid": np.full(n, PIXELS),
        "min": low,
        "max": high,
        "mean": mean,
        "std": std,
        **{
            name: np.clip(mean + z * std, low, high).astype(np.float32)
            for (name, _), z in zip(QUANTILES, NORMAL_QUANTILES, strict=True)
        },
    }
    samples = common | {
        "subset": pa.repeat("synthetic", n),
        "hilbert": p.hilbert,
        "bbox": box,
        "S2_time": pa.array(time_us).cast(pa.timestamp("us", "UTC")),
        "cloud_cover": clouds,
        "stem": names,
        "NDVI": of_sample,
    }
    zero, size = np.zeros(n, np.int16), np.full(n, SIZE, np.int16)
    window = {"time_index": zero, "y0": zero, "y1": size, "x0": zero, "x1": size}
    tiles = common | {"row": row, "tile": zero, **window}
    tiles["NDVI"] = {
        "ref": ref | window,
        "valid": np.full(n, PIXELS),
        **{name: value.astype(np.float32) for name, value in (("mean", mean), ("std", std))},
        "min": low.astype(np.float32),
        "max": high.astype(np.float32),
    }
    n_of_shard = np.diff([*edges, n])
    least, most = np.minimum.reduceat, np.maximum.reduceat
    moment = pa.timestamp("us", "UTC")
    seasons = [sorted({SEASONS[s] for s in p.season[a : a + SAMPLES_PER_SHARD]}) for a in edges]
    shards = {
        "part": pa.repeat(part, len(edges)),
        "shard": np.arange(len(edges)),
        "n_samples": n_of_shard,
        "bbox": {
            name: (least if name in ("west", "south") else most)(value, edges) for name, value in box.items()
        },
        **{f"min_{name}": least(common[name], edges) for name in ("lon", "lat")},
        **{f"max_{name}": most(common[name], edges) for name in ("lon", "lat")},
        "first_time": pa.array(least(time_us, edges)).cast(moment),
        "last_time": pa.array(most(time_us, edges)).cast(moment),
        "seasons": pa.array(seasons),
        "min_cloud_cover": least(clouds, edges),
        "max_cloud_cover": most(clouds, edges),
        "NDVI": {
            "key": keys,
            "n_samples": n_of_shard,
            "length": n_of_shard * BLOCK_BYTES,
            "count": n_of_shard * PIXELS,
            "valid": n_of_shard * PIXELS,
            "min": least(low, edges),
            "max": most(high, edges),
            "mean": np.add.reduceat(mean, edges) / n_of_shard,
            "min_mean": least(mean, edges),
            "max_mean": most(mean, edges),
        },
    }
    return Commit(
        part,
        table_of(samples_schema(SCHEMA), samples, n),
        table_of(tiles_schema(SCHEMA), tiles, n),
        table_of(shards_schema(SCHEMA), shards, len(edges)),
    )


def write_part(task: PartTask) -> int:
    """Write and commit one part; returns its samples."""
    commit = commit_of(task)
    folder = task.out / array_key(TABLE, commit.part, MODALITY.name)
    (folder / "c").mkdir(parents=True)
    stored = folder / "stored" / "0" / "0" / "0"
    stored.mkdir(parents=True)
    (stored / "0").touch()
    for shard in range(commit.shards.num_rows):
        (folder / "c" / str(shard)).symlink_to("../stored", target_is_directory=True)
    tb.open(str(task.out)).catalog.commit(TABLE, commit)
    return task.n


def write(out: Path, n_samples: int, n_parts: int, seed: int, n_workers: int) -> Iterator[int]:
    """Write a bank; yields the samples so far after each part."""
    tb.create(str(out)).catalog.create(TABLE, SCHEMA, single_writer=True)
    edges = np.linspace(0, n_samples, n_parts + 1).astype(int).tolist()
    tasks = (PartTask(out, k, edges[k], edges[k + 1] - edges[k], seed) for k in range(n_parts))
    yield from in_turn(write_part, tasks, n_workers)


def main() -> None:
    """Write an index and say how far it is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--samples", type=int, default=100_000_000)
    parser.add_argument("--parts", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    shutil.rmtree(options.out, ignore_errors=True)
    started = time.perf_counter()
    for done in write(options.out, options.samples, options.parts, options.seed, options.workers):
        print(f"{done:,} of {options.samples:,} samples, {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
