"""TerraMesh as it is published: a tar a modality, a ``.zarr.zip`` a sample, read as its official loader does.

The loader (``terramesh.py`` of https://huggingface.co/datasets/ibm-esa-geospatial/TerraMesh) opens same-named tars of modalities
with WebDataset, in lockstep, and each member by zarr 2 as a zip. Only the tars of the modalities that are asked for are
read. It is written down here anew, since that file needs the hub. Filters as for generic tars.
"""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import torch
import webdataset as wds
import zarr
from numcodecs import Zstd

from peers.contract import Batch, Export, Request, cut

DISTRIBUTIONS = ("webdataset", "zarr", "torch")
SAMPLES_PER_TAR = 16
SHUFFLE = 200


def prepare(export: Export, folder: Path, track: str) -> None:
    """Write ``<modality>/NNNNN.tar``; the raw track keeps arrays uncompressed,
    the other packs them by zstd 3 in place of lz4.
    """
    packing = Zstd(3) if track == "zstd" else None
    for name in export.modalities:
        pixels = export.pixels(name)
        (folder / name).mkdir()
        for first in range(0, len(export), SAMPLES_PER_TAR):
            with tarfile.open(folder / name / f"{first // SAMPLES_PER_TAR:05d}.tar", "w") as tar:
                for i in range(first, min(first + SAMPLES_PER_TAR, len(export))):
                    data = _zipped(np.asarray(pixels[i]), packing)
                    member = tarfile.TarInfo(f"{export.ids[i]}.zarr.zip")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))


def _zipped(pixels: Any, packing: Any) -> bytes:
    files: dict[str, bytes] = {}
    zarr.group(files).create_dataset("bands", data=pixels, chunks=pixels.shape, compressor=packing)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


class Loader:
    """A loader that walks in lockstep over tars in a ``WebLoader``."""

    def __init__(self, request: Request) -> None:
        work = request.workload
        export = Export(request.export)
        n_tars = -(-len(export) // SAMPLES_PER_TAR)
        urls = [f"{n:05d}.tar" for n in range(n_tars)]
        wanted = None
        if work.positions is not None or work.windows is not None:
            chosen = work.positions if work.windows is None else {w[0] for w in work.windows}
            wanted = frozenset(export.ids[p] for p in chosen)
        windows: dict[str, list[tuple[int, int, int, int]]] | None = None
        if work.windows is not None:
            windows = {}
            for p, y0, y1, x0, x1 in work.windows:
                windows.setdefault(export.ids[p], []).append((y0, y1, x0, x1))
        n_workers = 2 if request.n_workers is None else request.n_workers
        stages: list[Any] = [wds.SimpleShardList(urls, seed=request.seed)]
        if request.shuffle:
            stages = [wds.SimpleShardList(urls), wds.shuffle(100, seed=request.seed)]
        stages += [
            wds.split_by_node,
            wds.split_by_worker,
            partial(_in_lockstep, request.http_url, dict(work.modalities), wanted, windows),
        ]
        if request.shuffle:
            stages.append(wds.shuffle(request.options.get("shuffle", SHUFFLE)))
        stages.append(wds.batched(request.batch_size, collation_fn=_collate, partial=True))
        self._loader = wds.WebLoader(
            wds.DataPipeline(*stages),
            batch_size=None,
            num_workers=n_workers,
            persistent_workers=n_workers > 0,
        )

    def epoch(self) -> Iterator[Batch]:
        yield from self._loader

    def close(self) -> None:
        del self._loader


def _in_lockstep(root: str, modalities: Any, wanted: Any, windows: Any, shards: Any) -> Iterator[Any]:
    for shard in shards:
        tars = [_members(f"{root}/{name}/{shard['url']}") for name in modalities]
        for members in zip(*tars, strict=True):
            key = members[0][0]
            if any(name != key for name, _ in members):
                raise ValueError(f"tars of {shard['url']} are out of step at {key}")
            if wanted is not None and key not in wanted:
                continue
            arrays = {m: _unzipped(data) for m, (_, data) in zip(modalities, members, strict=True)}
            for window in [()] if windows is None else windows[key]:
                name = f"{key}/{window[0]}/{window[2]}" if window else key
                yield name, {m: cut(arrays[m], bands, *window) for m, bands in modalities.items()}


def _members(url: str) -> Iterator[tuple[str, bytes]]:
    for sample in wds.tarfile_to_samples()(iter([{"url": url}])):
        yield sample["__key__"], sample["zarr.zip"]


def _unzipped(data: bytes) -> Any:
    archive = fsspec.get_filesystem_class("zip")(fo=io.BytesIO(data), mode="r")
    return zarr.open_group(zarr.storage.FSStore("", fs=archive, mode="r"), mode="r")["bands"][...]


def _collate(samples: list[tuple[str, dict[str, Any]]]) -> Batch:
    names = samples[0][1]
    return [s[0] for s in samples], {m: torch.from_numpy(np.stack([s[1][m] for s in samples])) for m in names}
