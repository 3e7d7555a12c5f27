"""Zarrista: Zarr 3 in Rust by zarrs, with an interface of its own, over obstore.

Settings from https://developmentseed.org/zarrista (``AsyncArray``): chunks of a whole sample of one modality, all of a batch
asked for at once in one event loop, and decoded by its own threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import zarr
from zarrista import AsyncArray

from peers.contract import Export, Place, Request
from peers.indexed import IndexedLoader, Reader, cropped
from peers.obstore_s3 import s3_store
from peers.zarr import write

DISTRIBUTIONS = ("zarrista", "obstore", "torch")


def prepare(export: Export, folder: Path, track: str) -> None:
    """Write a group of one array a modality, as plain zarr has it."""
    write(zarr.create_group(str(folder)), export, track)


def opened(request: Request) -> Reader:
    """Return the reader of the peer's store over S3 by obstore."""
    loop = asyncio.new_event_loop()
    arrays = loop.run_until_complete(_arrays(request))
    return partial(_read, loop, arrays)


async def _arrays(request: Request) -> dict[str, Any]:
    store = s3_store(request)
    return {m: await AsyncArray.open(store, f"/{m}") for m in request.workload.modalities}


def _read(
    loop: asyncio.AbstractEventLoop,
    arrays: Mapping[str, Any],
    chosen: Sequence[Place],
    modalities: Mapping[str, Sequence[int] | None],
) -> Mapping[str, Any]:
    async def read() -> list[Any]:
        asked = [arrays[m].retrieve_chunk([p[0], 0, 0, 0]) for m in modalities for p in chosen]
        return await asyncio.gather(*asked)

    found = iter(loop.run_until_complete(read()))
    whole = {m: [next(found).to_numpy()[0] for _ in chosen] for m in modalities}
    return cropped(whole, chosen, modalities)


Loader = partial(IndexedLoader, opened=opened)
