"""zarr-python 3 over s3fs, and xarray above it.

Settings from https://zarr.readthedocs.io ("Performance", "Storage guide"): one chunk a sample and modality, so that a sample
is one request a modality (0.1 to 4 MB); not sharded, since this version reads the chunks of a shard one after the other. zstd
is its own default codec; the fast track has Blosc with LZ4 of bit planes. ``consolidated`` metadata; the option ``xarray``
reads by ``open_zarr`` and ``isel``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import zarr
from zarr.codecs import BloscCodec, ZstdCodec

from peers.contract import Export, Place, Request
from peers.indexed import IndexedLoader, Reader, cropped

DISTRIBUTIONS = ("zarr", "s3fs", "xarray", "torch")


def prepare(export: Export, folder: Path, track: str) -> None:
    """Return a group of one array a modality."""
    write(zarr.create_group(str(folder)), export, track)
    zarr.consolidate_metadata(str(folder))


def write(group: zarr.Group, export: Export, track: str) -> None:
    """Write all modalities, sample by sample."""
    for name in export.modalities:
        pixels = export.pixels(name)
        array = group.create_array(
            name,
            shape=pixels.shape,
            chunks=(1, *pixels.shape[1:]),
            dtype=pixels.dtype,
            compressors=_compressors(track, pixels.dtype.itemsize),
            dimension_names=("sample", f"{name}_band", "y", "x"),
        )
        for i in range(len(pixels)):
            array[i] = pixels[i]


def _compressors(track: str, itemsize: int) -> list[Any] | None:
    """Return the compressor of a track; bytes of one have no planes worth a shuffle."""
    if track == "zstd":
        return [ZstdCodec(level=3)]
    if track == "fast":
        shuffle = "bitshuffle" if itemsize > 1 else "noshuffle"
        return [BloscCodec(cname="lz4", clevel=5, shuffle=shuffle, typesize=itemsize)]
    return None


def opened(request: Request) -> Reader:
    """Return the reader of the peer's store over S3 by s3fs."""
    storage = {
        "key": "any",
        "secret": "any",
        "client_kwargs": {"endpoint_url": request.endpoint, "region_name": "us-east-1"},
    }
    if request.options.get("xarray"):
        import xarray

        data = xarray.open_zarr(request.s3_url, storage_options=storage, consolidated=True)
        return partial(_read_data_set, data)
    group = zarr.open_group(request.s3_url, mode="r", storage_options=storage, use_consolidated=True)
    return partial(read, group)


def read(
    group: zarr.Group, chosen: Sequence[Place], modalities: Mapping[str, Sequence[int] | None]
) -> Mapping[str, Any]:
    """Read the whole chunks of a batch at once, then cut bands and windows."""
    positions = [p[0] for p in chosen]
    return cropped({m: group[m].oindex[positions] for m in modalities}, chosen, modalities)


def _read_data_set(
    data: Any, chosen: Sequence[Place], modalities: Mapping[str, Sequence[int] | None]
) -> Mapping[str, Any]:
    batch = data[list(modalities)].isel(sample=[p[0] for p in chosen]).load()
    return cropped({m: batch[m].values for m in modalities}, chosen, modalities)


Loader = partial(IndexedLoader, opened=opened)
