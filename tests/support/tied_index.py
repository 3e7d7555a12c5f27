"""A table whose samples are equal in most columns, large enough for several threads to share: what is unstable shows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from tensorbank import Band, Bank, Modality, TableSchema
from tensorbank.catalog import Commit
from tensorbank.index_schema import samples_schema, shards_schema, tiles_schema

NDVI = Modality("NDVI", "float32", (Band("NDVI"),), 1, 8, 8)
SCHEMA = TableSchema((NDVI,))
SAMPLES_PER_SHARD = 500


def make_tied_table(bank: Bank, name: str, *, parts: int, n: int) -> None:
    """Commit parts of ``n`` samples each, in an order that has nothing to do with their names."""
    bank.catalog.create(name, SCHEMA, single_writer=True)
    for number in range(parts):
        bank.catalog.commit(name, _part(name, f"part-{number}", n, seed=number))


def _part(table: str, part: str, n: int, *, seed: int) -> Commit:
    rng = np.random.default_rng(seed)
    names = rng.permutation(n)
    days = rng.integers(0, 365 * 24, n) * 3_600_000_000
    shard = np.arange(n) // SAMPLES_PER_SHARD
    keys = pa.array([f"{table}/tensors/{part}/NDVI/c/{s}/0/0/0/0" for s in shard.tolist()])
    offsets = (np.arange(n) % SAMPLES_PER_SHARD) * 100
    ref = {
        "key": keys,
        "row": pa.array(np.arange(n), pa.int32()),
        "offset": pa.array(offsets, pa.int64()),
        "length": pa.array(np.full(n, 100), pa.int64()),
        "block_bytes": pa.array([[100]] * n, pa.list_(pa.int32())),
    }
    samples_of = samples_schema(SCHEMA)
    statistics = {"ref": _struct(samples_of.field("NDVI").type.field("ref").type, ref, n)}
    statistics |= {
        "mean": pa.array(rng.integers(0, 10, n) / 10),
        "valid": pa.array(np.full(n, 64), pa.int64()),
    }
    columns: dict[str, Any] = {
        "sample_id": pa.array([f"s{seed}-{i:06d}" for i in names.tolist()]),
        "part": pa.array([part] * n),
        "split": pa.array(rng.choice(["train", "val"], n).tolist()),
        "cell_id": pa.array([f"Cell{i}" for i in rng.integers(0, 40, n).tolist()]),
        "location_id": pa.array([f"loc{i:04d}" for i in rng.integers(0, 600, n).tolist()]),
        "season": pa.array(rng.choice(["winter", "summer", "SUMMER"], n).tolist()),
        "hilbert": pa.array(rng.integers(0, 50, n), pa.int64()),
        "lon": pa.array(rng.integers(-180, 180, n).astype(np.float64)),
        "lat": pa.array(rng.integers(-90, 90, n).astype(np.float64)),
        "cloud_cover": pa.array(rng.integers(0, 30, n) / 30),
        "S2_time": pa.array(1_577_836_800_000_000 + days, pa.int64()).cast(pa.timestamp("us", "UTC")),
        "NDVI": _struct(samples_of.field("NDVI").type, statistics, n),
    }
    groups = [
        {
            "part": part,
            "shard": s,
            "n_samples": int((shard == s).sum()),
            "NDVI": {
                "key": f"{table}/tensors/{part}/NDVI/c/{s}/0/0/0/0",
                "n_samples": int((shard == s).sum()),
            },
        }
        for s in range(int(shard[-1]) + 1)
    ]
    return Commit(
        part,
        pa.table([columns.get(f.name, pa.nulls(n, f.type)) for f in samples_of], schema=samples_of),
        tiles_schema(SCHEMA).empty_table(),
        pa.Table.from_pylist(groups, schema=shards_schema(SCHEMA)),
    )


def _struct(kind: pa.StructType, fields: dict[str, pa.Array], n: int) -> pa.StructArray:
    arrays = [fields.get(f.name, pa.nulls(n, f.type)) for f in kind]
    return pa.StructArray.from_arrays(arrays, fields=list(kind))
