"""One stored object a modality that stands for every shard of :mod:`synthetic_index`."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from synthetic_world import SAMPLES_PER_SHARD, SCHEMA, SIZE, STORED_SAMPLES, TABLE
from tensorbank.layout import array_document, array_key, group_document, part_key
from tensorbank.reading.codec import codec_for


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
    documents = {}
    for modality in SCHEMA:
        folder = bank / array_key(TABLE, part, modality.name)
        (folder / "c").mkdir(parents=True)
        stored = folder / "stored" / "0" / "0" / "0"
        stored.mkdir(parents=True)
        os.link(bank / "stored" / modality.name, stored / "0")
        for shard in range(n_shards):
            (folder / "c" / str(shard)).symlink_to("../stored", target_is_directory=True)
        documents[modality.name] = array_document(
            modality,
            SCHEMA.modalities,
            n_samples=n_shards * SAMPLES_PER_SHARD,
            samples_per_shard=SAMPLES_PER_SHARD,
            blosc=codec_for("balanced", modality).configuration(),
            attributes={},
        )
        (folder / "zarr.json").write_text(json.dumps(documents[modality.name]))
    (bank / part_key(TABLE, part) / "zarr.json").write_text(json.dumps(group_document({}, documents)))
