"""Icechunk: zarr-python 3 over a versioned store with a client of its own.

Settings from https://icechunk.io ("Quickstart", "Storage", "Performance"): chunks as for plain zarr, the default configuration, a
read-only session of ``main``.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import icechunk
import zarr

from peers.contract import Export, Request
from peers.indexed import IndexedLoader, Reader
from peers.zarr import read, write

DISTRIBUTIONS = ("icechunk", "zarr", "torch")


def prepare(export: Export, folder: Path, track: str) -> None:
    """Write all samples in one commit."""
    repository = icechunk.Repository.create(icechunk.local_filesystem_storage(str(folder)))
    session = repository.writable_session("main")
    write(zarr.create_group(session.store), export, track)
    session.commit("all samples")


def opened(request: Request) -> Reader:
    """Return the reader of the peer's store over S3."""
    storage = icechunk.s3_storage(
        bucket=request.bucket,
        prefix=request.prefix,
        region="us-east-1",
        endpoint_url=request.endpoint,
        allow_http=True,
        force_path_style=True,
        access_key_id="any",
        secret_access_key="any",
    )
    session = icechunk.Repository.open(storage).readonly_session("main")
    return partial(read, zarr.open_group(session.store, mode="r"))


Loader = partial(IndexedLoader, opened=opened)
