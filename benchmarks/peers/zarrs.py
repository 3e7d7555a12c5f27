"""zarr-python 3 with the pipeline of zarrs, which fetches and decodes in Rust, over obstore.

Settings from https://github.com/zarrs/zarrs-python (README: "Supported stores", "Supported Indexing Methods"): zarr's
``ObjectStore``, since its pipeline does not read through s3fs; slices, since lists of positions fall back to zarr-python's own
pipeline; ``strict``, so that nothing falls back unseen. A slice is one sample of one modality, and many are read at once by
threads. Chunks are those of plain zarr.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import ObjectStore

from peers.contract import Export, Place, Request
from peers.indexed import IndexedLoader, Reader, cropped
from peers.obstore_s3 import s3_store
from peers.zarr import write

DISTRIBUTIONS = ("zarrs", "zarr", "obstore", "torch")
N_THREADS = 16


def prepare(export: Export, folder: Path, track: str) -> None:
    """Write a group of one array a modality, as plain zarr has it."""
    write(zarr.create_group(str(folder)), export, track)
    zarr.consolidate_metadata(str(folder))


def opened(request: Request) -> Reader:
    """Return the reader of the peer's store over S3 by obstore."""
    zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "codec_pipeline.strict": True})
    group = zarr.open_group(ObjectStore(s3_store(request), read_only=True), mode="r", use_consolidated=True)
    arrays = {m: group[m] for m in request.workload.modalities}
    return partial(_read, arrays, ThreadPoolExecutor(N_THREADS))


def _read(
    arrays: Mapping[str, Any],
    pool: ThreadPoolExecutor,
    chosen: Sequence[Place],
    modalities: Mapping[str, Sequence[int] | None],
) -> Mapping[str, Any]:
    asked = {m: [pool.submit(_sample, arrays[m], p[0]) for p in chosen] for m in modalities}
    return cropped({m: [f.result() for f in found] for m, found in asked.items()}, chosen, modalities)


def _sample(array: Any, position: int) -> Any:
    return np.asarray(array[position : position + 1])[0]


Loader = partial(IndexedLoader, opened=opened)
