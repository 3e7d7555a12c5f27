"""WebDataset: generic tars of ``.npy`` a modality and ``.json``, read over plain HTTP by its default opener (curl).

Settings from https://github.com/webdataset/webdataset (README and FAQ, "WebLoader"): ``shardshuffle=100``, a sample shuffle,
``batched`` in the workers and ``batch_size=None`` in the loader. Tars of 64 MB, so that there are at least as many as
workers. It has no query: everything is read, and samples are left out before any array is decoded.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import webdataset as wds
import zstandard

from peers.contract import Batch, Export, Request, cut

DISTRIBUTIONS = ("webdataset", "torch")
TAR_BYTES = 64 << 20
SHUFFLE = 200
_READ = (
    "python3 -c 'import shutil, sys, urllib.request as u; "
    "shutil.copyfileobj(u.urlopen(sys.argv[1]), sys.stdout.buffer, 1 << 20)'"
)


def prepare(export: Export, folder: Path, track: str) -> None:
    """Write ``<modality>.npy``, or ``<modality>.npy.zst`` with a decoder of two lines:
    the library has none for zstd.
    """
    stored = {name: export.pixels(name) for name in export.modalities}
    suffix = "npy" if track == "raw" else "npyzst"
    pack = zstandard.ZstdCompressor(3).compress if track == "zstd" else bytes
    with wds.ShardWriter(str(folder / "%05d.tar"), maxsize=TAR_BYTES, maxcount=10**9, verbose=0) as sink:
        for i, row in enumerate(export.rows):
            sample = {"__key__": row["sample_id"], "json": json.dumps(row).encode()}
            for name, pixels in stored.items():
                sample[f"{name.lower()}.{suffix}"] = pack(_npy(pixels[i]))
            sink.write(sample)


def _npy(pixels: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, pixels)
    return file.getvalue()


class Loader:
    """A loader by ``WebDataset(...).select(...).shuffle(...).map(...).batched(...)`` in a ``WebLoader``."""

    def __init__(self, request: Request) -> None:
        tars = sorted(p.name for p in Path(request.folder).glob("*.tar"))
        urls = [f"{request.http_url}/{name}" for name in tars]
        if request.options.get("opener") == "urllib":
            urls = [f"pipe:{_READ} {u}" for u in urls]
        work = request.workload
        wanted = None
        if work.positions is not None or work.windows is not None:
            ids = Export(request.export).ids
            chosen = work.positions if work.windows is None else {w[0] for w in work.windows}
            wanted = frozenset(ids[p] for p in chosen)
        windows: dict[str, list[tuple[int, int, int, int]]] | None = None
        if work.windows is not None:
            ids, windows = Export(request.export).ids, {}
            for p, *window in work.windows:
                windows.setdefault(ids[p], []).append(tuple(window))
        data = wds.WebDataset(
            urls,
            shardshuffle=100 if request.shuffle else False,
            nodesplitter=wds.split_by_node,
            workersplitter=wds.split_by_worker,
            seed=request.seed,
            empty_check=False,
            handler=wds.reraise_exception,
        )
        if wanted is not None:
            data = data.select(partial(_is_wanted, wanted))
        data = data.compose(partial(_decoded, work.modalities, windows, request.track))
        if request.shuffle:
            data = data.shuffle(request.options.get("shuffle", SHUFFLE), rng=None)
        data = data.batched(request.batch_size, collation_fn=_collate, partial=True)
        n_workers = 2 if request.n_workers is None else request.n_workers
        self._loader = wds.WebLoader(
            data, batch_size=None, num_workers=n_workers, persistent_workers=n_workers > 0
        )

    def epoch(self) -> Iterator[Batch]:
        yield from self._loader

    def close(self) -> None:
        pass


def _is_wanted(wanted: frozenset[str], sample: dict[str, Any]) -> bool:
    return sample["__key__"] in wanted


def _decoded(modalities: Any, windows: Any, track: str, samples: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Decode only the arrays that are asked for."""
    suffix = "npy" if track == "raw" else "npyzst"
    for sample in samples:
        arrays = {}
        for name in modalities:
            data = sample[f"{name.lower()}.{suffix}"]
            arrays[name] = np.load(io.BytesIO(data if track == "raw" else zstandard.decompress(data)))
        key = sample["__key__"]
        if windows is None:
            yield key, {m: cut(arrays[m], bands) for m, bands in modalities.items()}
        else:
            for y0, y1, x0, x1 in windows[key]:
                yield (
                    f"{key}/{y0}/{x0}",
                    {m: cut(arrays[m], bands, y0, y1, x0, x1) for m, bands in modalities.items()},
                )


def _collate(samples: list[tuple[str, dict[str, Any]]]) -> Batch:
    import torch

    names = samples[0][1]
    return [s[0] for s in samples], {m: torch.from_numpy(np.stack([s[1][m] for s in samples])) for m in names}
