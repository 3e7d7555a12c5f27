"""A bank of many small tensors, and plans over it of any length: shards as ingest writes them, without an index."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tensorbank import Band, Modality, Plan
from tensorbank.layout import shard_key
from tensorbank.plans import PlanSource, StoreAddress
from tensorbank.plans.handle import Handle
from tensorbank.reading import ShardAssembler
from tensorbank.reading.codec import codec_for
from tensorbank.storage.store import Store

__all__ = ["SmallBank", "write_small"]

SAMPLES_PER_SHARD = 512
N_DISTINCT = 64
"""The number of tensors that differ; the samples take them in turn, so that making them costs nothing."""


@dataclass(frozen=True, slots=True)
class SmallBank:
    """A small bank: ``plan`` selects all samples in stored order;
    ``pixels`` (m, y, x) are theirs, sample ``i`` having number ``i % m``.
    """

    folder: Path
    plan: Plan
    pixels: npt.NDArray[np.int16]

    def repeated(self, n: int) -> Plan:
        """Return a plan of ``n`` rows, which lead to the samples in turn and are numbered."""
        table = self.plan.table.take(np.resize(np.arange(len(self.plan)), n)).combine_chunks()
        table = table.set_column(table.column_names.index("number"), "number", pa.array(np.arange(n)))
        return replace(self.plan, table=table)


def write_small(folder: Path, *, n_samples: int, side: int) -> SmallBank:
    """Write ``n_samples`` of one int16 band of ``side`` x ``side`` pixels."""
    modality = Modality("X", "int16", (Band("x"),), 1, side, side)
    codec = codec_for("balanced", modality)
    rng = np.random.default_rng(side)
    pixels = rng.integers(0, 1000, (N_DISTINCT, side, side)).astype(np.int16)
    blocks = [codec.encode(p) for p in pixels]
    store = Store(folder.as_uri())
    keys: list[str] = []
    bounds: list[tuple[int, int]] = []
    for shard, first in enumerate(range(0, n_samples, SAMPLES_PER_SHARD)):
        assembler = ShardAssembler(SAMPLES_PER_SHARD, 1)
        key = shard_key("small", "p", modality.name, shard)
        for sample in range(first, min(first + SAMPLES_PER_SHARD, n_samples)):
            bounds.append(assembler.add(sample - first, [blocks[sample % N_DISTINCT]]))
            keys.append(key)
        store.put(key, assembler.finish())
    starts, ends = np.array(bounds, np.int64).T
    columns = {
        "X.key": pa.array(keys).dictionary_encode(),
        "X.starts": pa.FixedSizeListArray.from_arrays(pa.array(starts), 1),
        "X.lengths": pa.FixedSizeListArray.from_arrays(pa.array((ends - starts).astype(np.uint32)), 1),
        "number": pa.array(np.arange(n_samples)),
    }
    source = PlanSource("SELECT number, X FROM small", {"small": ("made", 0)}, 1)
    plan = Plan(
        f"{n_samples:032x}",
        source,
        (Handle("X", modality, (0,)),),
        pa.table(columns),
        StoreAddress(folder.as_uri()),
    )
    return SmallBank(folder, plan, pixels)
