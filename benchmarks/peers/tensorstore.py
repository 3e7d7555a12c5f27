"""TensorStore: Zarr 3 shards of 64 samples, read through its own S3 driver.

Settings from https://google.github.io/tensorstore (drivers ``zarr3`` and ``s3``): inner chunks of one sample and band,
``zstd`` level 3 and ``crc32c`` inside, on the fast track ``blosc`` with LZ4 of bit planes; a ``cache_pool`` that holds the
indices of all shards and hardly more: one that holds the few samples of this benchmark over epochs could not hold those of a
real table; all modalities of a batch are asked for before the first is awaited.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from peers.contract import Export, Place, Request
from peers.indexed import IndexedLoader, Reader

DISTRIBUTIONS = ("tensorstore", "torch")
SAMPLES_PER_SHARD = 64
CACHE_BYTES = 8 << 20


def prepare(export: Export, folder: Path, track: str) -> None:
    """Write one array per modality, shard by shard."""
    for name in export.modalities:
        pixels = export.pixels(name)
        inner = [
            {"name": "bytes", "configuration": {"endian": "little"}},
            *_packed(track, pixels.dtype.itemsize, pixels[0, 0].nbytes),
            {"name": "crc32c"},
        ]
        shard = [SAMPLES_PER_SHARD, *pixels.shape[1:]]
        sharding = {
            "chunk_shape": [1, 1, *pixels.shape[2:]],
            "codecs": inner,
            "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
        }
        store = ts.open(
            {
                "driver": "zarr3",
                "kvstore": {"driver": "file", "path": f"{folder}/{name}/"},
                "metadata": {
                    "shape": list(pixels.shape),
                    "data_type": pixels.dtype.name,
                    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shard}},
                    "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
                },
                "create": True,
            }
        ).result()
        for first in range(0, len(pixels), SAMPLES_PER_SHARD):
            part = pixels[first : first + SAMPLES_PER_SHARD]
            store[first : first + len(part)].write(np.ascontiguousarray(part)).result()


def _packed(track: str, itemsize: int, block_bytes: int) -> list[dict[str, Any]]:
    """Return the compressor of a track; bytes of one have no planes worth a shuffle."""
    if track == "zstd":
        return [{"name": "zstd", "configuration": {"level": 3}}]
    if track == "fast":
        shuffle = "bitshuffle" if itemsize > 1 else "noshuffle"
        fast = {
            "cname": "lz4",
            "clevel": 5,
            "shuffle": shuffle,
            "typesize": itemsize,
            "blocksize": block_bytes,
        }
        return [{"name": "blosc", "configuration": fast}]
    return []


def opened(request: Request) -> Reader:
    """Return the reader of the peer's store over S3."""
    context = ts.Context({"cache_pool": {"total_bytes_limit": CACHE_BYTES}})
    waiting = {
        name: ts.open(
            {
                "driver": "zarr3",
                "kvstore": {
                    "driver": "s3",
                    "bucket": request.bucket,
                    "path": f"{request.prefix}/{name}/",
                    "endpoint": request.endpoint,
                    "aws_region": "us-east-1",
                    "aws_credentials": {"type": "anonymous"},
                },
            },
            context=context,
            read=True,
        )
        for name in request.workload.modalities
    }
    return partial(_read, {name: w.result() for name, w in waiting.items()})


def _read(
    stores: Mapping[str, Any], chosen: Sequence[Place], modalities: Mapping[str, Sequence[int] | None]
) -> Mapping[str, Any]:
    if chosen[0][2] is None:
        positions = [p[0] for p in chosen]
        asked = {
            m: (stores[m][positions] if bands is None else stores[m].oindex[positions, list(bands)]).read()
            for m, bands in modalities.items()
        }
        return {m: future.result() for m, future in asked.items()}
    windows = {m: [stores[m][p, :, y0:y1, x0:x1].read() for p, y0, y1, x0, x1 in chosen] for m in modalities}
    return {m: np.stack([w.result() for w in found]) for m, found in windows.items()}


Loader = partial(IndexedLoader, opened=opened)
