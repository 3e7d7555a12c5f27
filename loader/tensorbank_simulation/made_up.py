"""A small bank of made-up blocks in a folder, to measure what reading costs without a network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from tensorbank.layout import shard_key
from tensorbank.plans import Handle, Plan, PlanSource, StoreAddress
from tensorbank.reading import ShardAssembler, codec_for
from tensorbank.schema import Band, Modality
from tensorbank.storage import Store

__all__ = ["made_up_pixels", "write_blocks"]

SAMPLES_PER_SHARD = 512
N_DISTINCT = 4
"""The number of samples that differ; the others repeat them, so that making them costs little."""


def made_up_pixels(side: int, number: int) -> np.ndarray[tuple[int, int], np.dtype[np.int16]]:
    """Return waves with noise, (side, side) int16, which shrink about as much as reflectances do."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[0:side, 0:side] / max(side, 264)
    wave = np.sin(2 * np.pi * (rng.uniform(1, 9) * x + rng.uniform(1, 9) * y))
    found: np.ndarray[tuple[int, int], np.dtype[np.int16]] = (
        (wave + rng.normal(0, 0.01, x.shape) + 1.5) * 900
    ).astype(np.int16)
    return found


def write_blocks(folder: Path, *, n_samples: int, n_bands: int, side: int, profile: str) -> Plan:
    """Write samples of one modality ``X`` of int16, and return the plan of all of them."""
    bands = tuple(Band(f"b{number}") for number in range(n_bands))
    modality = Modality("X", "int16", bands, 1, side, side)
    codec = codec_for(profile, modality)
    samples = [
        [codec.encode(made_up_pixels(side, number * n_bands + band)) for band in range(n_bands)]
        for number in range(N_DISTINCT)
    ]
    store = Store(folder.as_uri())
    keys: list[str] = []
    bounds: list[tuple[int, int]] = []
    for shard, first in enumerate(range(0, n_samples, SAMPLES_PER_SHARD)):
        here = range(first, min(first + SAMPLES_PER_SHARD, n_samples))
        assembler = ShardAssembler(SAMPLES_PER_SHARD, n_bands)
        key = shard_key("made_up", "p", modality.name, shard)
        bounds += [assembler.add(number - first, samples[number % N_DISTINCT]) for number in here]
        keys += [key] * len(here)
        store.put(key, assembler.finish())
    starts, ends = np.array(bounds, np.int64).T
    columns = {
        "X.key": pa.array(keys).dictionary_encode(),
        "X.starts": pa.FixedSizeListArray.from_arrays(pa.array(starts), 1),
        "X.lengths": pa.FixedSizeListArray.from_arrays(pa.array((ends - starts).astype(np.uint32)), 1),
    }
    return Plan(
        f"{n_samples:032x}",
        PlanSource("SELECT X FROM made_up", {"made_up": ("made", 0)}, 1),
        (Handle("X", modality, tuple(range(n_bands))),),
        pa.table(columns),
        StoreAddress(folder.as_uri()),
    )
