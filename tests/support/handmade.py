"""A bank part made by hand: shards written block by block, a plan over them, and the truth as numpy arrays.

Neither ingest nor planner has a hand in it, so that the reader is compared with something that it did not make.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from tensorbank import Band, Modality, Plan, StorageOptions
from tensorbank.layout import shard_key
from tensorbank.plans import PlanSource, StoreAddress
from tensorbank.plans.handle import Handle
from tensorbank.reading.codec import codec_for
from tensorbank.storage.store import Store

Truth = dict[str, np.ndarray]

SAMPLES_PER_SHARD = 8


def modality(name: str, dtype: str, n_bands: int, n_times: int = 1) -> Modality:
    return Modality(name, dtype, tuple(Band(f"b{i}") for i in range(n_bands)), n_times, 12, 10)


HANDLES = (
    Handle("S2", modality("S2", "int16", 4), (0, 1, 2, 3)),
    Handle("reordered", modality("S2L1C", "int16", 6), (5, 0, 2)),  # gaps, and not in stored order
    Handle("series", modality("S1", "float16", 2, n_times=4), (1,)),  # four dates, four runs
    Handle("both", modality("S1", "float16", 2, n_times=4), (0, 1)),  # the same blocks again
    Handle("LULC", modality("LULC", "uint8", 1), (0,)),
    Handle("QA", modality("QA", "uint16", 2), (1,)),
)
MISSING = {"S1": {1, 5, 6, 13}, "LULC": {0, 13}}
"""The samples, by place in storage, that lack a modality."""


@dataclass(frozen=True)
class Handmade:
    plan: Plan
    truth: Truth
    folder: Path

    def path_of(self, handle: str, position: int) -> Path:
        a = self.plan.addresses[handle]
        return self.folder / a.shard_keys[a.shard_of[position]]


def make(
    folder: Path, n: int = 23, *, handles: tuple[Handle, ...] = HANDLES, profile: str = "balanced"
) -> Handmade:
    """A part of ``n`` samples in a folder, and a plan that selects all of them in another order than they are stored."""
    rng = np.random.default_rng(n)
    store = Store(folder.as_uri())
    order = rng.permutation(n)
    columns: dict[str, object] = {}
    truth: Truth = {}
    stored = {h.modality.name: _write(store, h.modality, n, rng, profile) for h in handles}
    for handle in handles:
        pixels, edges = stored[handle.modality.name]
        missing = np.array([int(i) in MISSING.get(handle.modality.name, ()) for i in order])
        seen = pixels[order][:, :, list(handle.bands)].copy()
        seen[missing] = handle.modality.fill_value
        truth[handle.name] = seen
        keys = [shard_key("t", "p", handle.modality.name, i // SAMPLES_PER_SHARD) for i in order]
        columns[f"{handle.name}.key"] = pa.array(
            [None if gone else key for key, gone in zip(keys, missing, strict=True)]
        ).dictionary_encode()
        starts = np.array([[edges[i][a] for a, _ in handle.runs] for i in order], np.int64)
        ends = np.array([[edges[i][b] for _, b in handle.runs] for i in order], np.int64)
        for name, values, kind in (("starts", starts, pa.int64()), ("lengths", ends - starts, pa.uint32())):
            values[missing] = 0
            flat = pa.array(values.reshape(-1)).cast(kind)
            columns[f"{handle.name}.{name}"] = pa.FixedSizeListArray.from_arrays(flat, len(handle.runs))
    columns["sample_id"] = [f"s{i:04d}" for i in order]
    columns["cloud_cover"] = pa.array([None if i == 3 else i / n for i in order], pa.float64())
    columns["count"] = pa.array(order, pa.int32())
    columns["maybe"] = pa.array([None if i == 4 else int(i) for i in order], pa.int32())
    columns["time"] = pa.array([int(i) * 1_000_000 for i in order], pa.timestamp("us", tz="UTC"))
    source = PlanSource("SELECT handmade", {"t": ("id", 0)}, 1)
    return Handmade(
        Plan(f"{n:032x}", source, handles, pa.table(columns), StoreAddress(folder.as_uri())), truth, folder
    )


def _write(
    store: Store, m: Modality, n: int, rng: np.random.Generator, profile: str
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Write the pixels; return them (n, time, band, y, x) and, per sample,
    the edges of its blocks in its shard."""
    pixels = rng.integers(0, 200, (n, *m.sample_shape)).astype(m.dtype)
    if pixels.dtype.kind == "f":
        pixels[rng.random(pixels.shape) < 0.1] = np.nan
    codec = codec_for(profile, m)
    edges: list[np.ndarray] = []
    for shard in range(-(-n // SAMPLES_PER_SHARD)):
        body = b""
        for sample in pixels[shard * SAMPLES_PER_SHARD : (shard + 1) * SAMPLES_PER_SHARD]:
            at = [len(body)]
            for block in sample.reshape(-1, m.height, m.width):
                body += codec.encode(block)
                at.append(len(body))
            edges.append(np.array(at))
        store.put(shard_key("t", "p", m.name, shard), body + b"index at the end")
    return pixels, edges


def moved(made: Handmade, url: str, storage: StorageOptions) -> Plan:
    """The plan of a copy of the part in another store, made here."""
    store = Store(url, storage)
    for path in made.folder.rglob("*"):
        if path.is_file():
            store.put(path.relative_to(made.folder).as_posix(), path.read_bytes())
    return replace(made.plan, origin=StoreAddress(url, storage))


def check(tensors: Mapping[str, np.ndarray], truth: Truth, positions: np.ndarray) -> None:
    """Check that tensors (n, time, band, y, x) are the truth at some positions, NaN for NaN."""
    assert set(tensors) == set(truth)
    for name, expected in truth.items():
        assert tensors[name].dtype == expected.dtype
        np.testing.assert_array_equal(tensors[name], expected[positions], err_msg=name)
