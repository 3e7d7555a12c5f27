"""Tables made by hand: rows of an index whose every number the test knows. No pixels, and no part of ingest."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from tensorbank import Band, Bank, Modality, TableSchema
from tensorbank.catalog import Commit
from tensorbank.index_schema import SEASONS, samples_schema, shards_schema, tiles_schema

S2 = Modality("S2L2A", "int16", tuple(Band(b) for b in ("B02", "B03", "B04", "B08", "B11")), 2, 8, 8)
S1 = Modality("S1GRD", "float32", (Band("vv"), Band("vh")), 1, 8, 8)
NDVI = Modality("NDVI", "float32", (Band("NDVI"),), 1, 8, 8)
LULC = Modality(
    "LULC", "uint8", (Band("LULC"),), 1, 8, 8, classes=((0, "no_data"), (1, "water"), (2, "trees"))
)
SCHEMA = TableSchema((S2, S1, NDVI, LULC))
SAMPLES_PER_SHARD = 4


@dataclass
class MadeTable:
    """The rows that were committed to a table, as Python values."""

    name: str
    schema: TableSchema
    samples: list[dict[str, Any]] = field(default_factory=list)
    versions: dict[str, int] = field(default_factory=dict)

    def by_id(self) -> dict[str, dict[str, Any]]:
        return {r["sample_id"]: r for r in self.samples}


def part_of(
    table: str,
    part: str,
    n: int,
    *,
    schema: TableSchema = SCHEMA,
    prefix: str | None = None,
    seed: int = 0,
    missing: float = 0.2,
) -> Commit:
    """Return one part of ``n`` samples, each modality missing in about a fifth;
    at least one band of all-NaN pixels in five."""
    rng = random.Random(f"{table}/{part}/{seed}")
    samples, shards, tiles = [], [], []
    ends: dict[str, int] = {}
    for i in range(n):
        shard = i // SAMPLES_PER_SHARD
        row: dict[str, Any] = {
            "sample_id": f"{prefix if prefix is not None else part}-{i:04d}",
            "part": part,
            "split": "train" if i % 3 else "val",
            "subset": "made",
            "cell_id": f"cell{i % 5}",
            "location_id": f"loc{rng.randrange(n)}",
            "season": SEASONS[rng.randrange(4)],
            "hilbert": rng.randrange(1 << 40),
            "lon": rng.uniform(-180, 180),
            "lat": rng.uniform(-80, 80),
            "cloud_cover": None if rng.random() < 0.1 else round(rng.random(), 3),
            "stem": f"{part}-{i:04d}",
        }
        for m in schema:
            if rng.random() < missing:
                continue
            lengths = [rng.randrange(20, 400) for _ in range(m.n_blocks)]
            key = f"{table}/tensors/{part}/{m.name}/c/{shard}/0/0/0/0"
            offset = ends.get(key, 0)
            ends[key] = offset + sum(lengths)
            ref = {"key": key, "row": i, "offset": offset, "length": sum(lengths), "block_bytes": lengths}
            row[m.name] = {"ref": ref, **_statistics(m, rng)}
        row["modalities"] = [m.name for m in schema if m.name in row]
        samples.append(row)
        names = {name: row[name] for name in ("sample_id", "part", "split")}
        tiles += [{**names, "row": i, "tile": t} for t in range(2)]
    for shard in range(-(-n // SAMPLES_PER_SHARD)):
        mine = samples[shard * SAMPLES_PER_SHARD : (shard + 1) * SAMPLES_PER_SHARD]
        group: dict[str, Any] = {"part": part, "shard": shard, "n_samples": len(mine)}
        for m in schema:
            refs = [r[m.name]["ref"] for r in mine if m.name in r]
            if refs:
                total = sum(r["length"] for r in refs)
                band = {"count": 64 * len(refs), "valid": 0}
                rolled = band if len(m.bands) == 1 else dict.fromkeys(m.band_names, band)
                group[m.name] = {"key": refs[0]["key"], "n_samples": len(refs), "length": total, **rolled}
        shards.append(group)
    return Commit(
        part,
        pa.Table.from_pylist(samples, schema=samples_schema(schema)),
        pa.Table.from_pylist(tiles, schema=tiles_schema(schema)),
        pa.Table.from_pylist(shards, schema=shards_schema(schema)),
    )


def _statistics(m: Modality, rng: random.Random) -> dict[str, Any]:
    if m.categorical:
        water = round(rng.random(), 3)
        return {"count": 64, "valid": 64, "share": {"no_data": 0.0, "water": water, "trees": 1 - water}}
    bands = {b: _band(rng) for b in m.band_names}
    return bands if len(bands) > 1 else next(iter(bands.values()))


def _band(rng: random.Random) -> dict[str, Any]:
    if rng.random() < 0.2:
        return {"count": 64, "valid": 0}  # all pixels NaN: no bounds, no mean
    low, high = sorted((rng.uniform(-10, 0), rng.uniform(0, 100)))
    return {"count": 64, "valid": 64, "min": low, "max": high, "mean": (low + high) / 2, "std": rng.random()}


def make_table(
    bank: Bank,
    name: str,
    parts: int = 2,
    n: int = 12,
    *,
    schema: TableSchema = SCHEMA,
    prefix: str | None = None,
) -> MadeTable:
    """Commit a table of some parts; with ``prefix`` the samples of the parts count on under it."""
    bank.catalog.create(name, schema, single_writer=True)
    made = MadeTable(name, schema)
    for number in range(parts):
        part = f"part-{number}"
        commit = part_of(name, part, n, schema=schema, prefix=prefix and f"{prefix}{number}")
        made.versions[part] = bank.catalog.commit(name, commit)
        made.samples += commit.samples.to_pylist()
    return made
