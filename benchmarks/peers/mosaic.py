"""MosaicML Streaming: MDS shards of 64 MB, ``StreamingDataset`` and ``StreamingDataLoader``.

Settings from https://docs.mosaicml.com/projects/streaming (fast guide, "Dataset conversion", "Cloud storage"): ``MDSWriter``
with ``ndarray:<dtype>:<shape>`` columns, ``size_limit=1 << 26``, ``compression="zstd:3"`` on the zstd track; ``batch_size``
given to both, ``num_canonical_nodes=1``, ``predownload`` and ``shuffle_algo`` as they are. Hashes are written and not
validated, which is its default. It has no query: all is read, and what was not asked for is dropped on arrival, as in a
training loop.

torchvision and transformers are imported by the library for parts that are not used here; the published torchvision does not
fit a CPU build of torch, so empty modules stand in for both.
"""

from __future__ import annotations

import importlib.machinery
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from peers.contract import Batch, Export, Request, cut


def _any_class(name: str) -> type:
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (), {})


def _stand_in(*names: str) -> None:
    for name in names:
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        module.__path__ = []
        module.__getattr__ = _any_class  # type: ignore[method-assign]
        sys.modules[name] = module


_stand_in(
    "torchvision",
    "torchvision.datasets",
    "torchvision.transforms",
    "torchvision.transforms.functional",
    "transformers",
    "transformers.feature_extraction_utils",
    "transformers.tokenization_utils_base",
    "transformers.models",
    "transformers.models.auto",
    "transformers.models.auto.tokenization_auto",
)

import torch  # noqa: E402
from streaming import MDSWriter, StreamingDataLoader, StreamingDataset  # noqa: E402
from streaming.base.util import clean_stale_shared_memory  # noqa: E402

DISTRIBUTIONS = ("mosaicml-streaming", "torch")
SHARD_BYTES = 1 << 26
SCALARS = ("cloud_cover", "lon", "lat")


def prepare(export: Export, folder: Path, track: str) -> None:
    """Write one column per modality, of fixed shapes."""
    stored = {name: export.pixels(name) for name in export.modalities}
    columns = {"sample_id": "str", **dict.fromkeys(SCALARS, "float64")}
    for name, pixels in stored.items():
        columns[name] = f"ndarray:{pixels.dtype.name}:{','.join(map(str, pixels.shape[1:]))}"
    with MDSWriter(
        out=str(folder),
        columns=columns,
        compression="zstd:3" if track == "zstd" else None,
        hashes=["xxh64"],
        size_limit=SHARD_BYTES,
    ) as out:
        for i, row in enumerate(export.rows):
            sample = {"sample_id": row["sample_id"], **{name: row[name] for name in SCALARS}}
            out.write(sample | {name: np.ascontiguousarray(p[i]) for name, p in stored.items()})


class Loader:
    """A loader by ``StreamingDataset`` in a ``StreamingDataLoader``."""

    def __init__(self, request: Request) -> None:
        clean_stale_shared_memory()
        os.environ["S3_ENDPOINT_URL"] = request.endpoint
        self.request = request
        n_workers = 2 if request.n_workers is None else request.n_workers
        work = request.workload
        ids = Export(request.export).ids
        self._wanted = None if work.positions is None else frozenset(ids[p] for p in work.positions)
        self._windows: dict[str, list[tuple[int, int, int, int]]] | None = None
        if work.windows is not None:
            self._windows = {}
            for p, y0, y1, x0, x1 in work.windows:
                self._windows.setdefault(ids[p], []).append((y0, y1, x0, x1))
        dataset = StreamingDataset(
            remote=request.s3_url,
            local=f"{request.cache}/mds",
            batch_size=request.batch_size,
            shuffle=request.shuffle,
            shuffle_seed=request.seed,
            num_canonical_nodes=1,
            **request.options,
        )
        self._loader = StreamingDataLoader(
            dataset,
            batch_size=request.batch_size,
            num_workers=n_workers,
            persistent_workers=n_workers > 0,
        )
        if request.state is not None:
            self._loader.load_state_dict(request.state)

    def epoch(self) -> Iterator[Batch]:
        modalities = self.request.workload.modalities
        if self._wanted is None and self._windows is None:
            for batch in self._loader:
                yield batch["sample_id"], {m: batch[m] for m in modalities}
            return
        yield from rebatched(self._items(), self.request.batch_size)

    def _items(self) -> Iterator[tuple[str, dict[str, Any]]]:
        modalities = self.request.workload.modalities
        for batch in self._loader:
            for i, name in enumerate(batch["sample_id"]):
                if self._windows is not None:
                    for y0, y1, x0, x1 in self._windows.get(name, ()):
                        yield (
                            f"{name}/{y0}/{x0}",
                            {m: cut(batch[m][i], b, y0, y1, x0, x1) for m, b in modalities.items()},
                        )
                elif self._wanted is not None and name in self._wanted:
                    yield name, {m: cut(batch[m][i], b) for m, b in modalities.items()}

    def state_dict(self) -> Any:
        return self._loader.state_dict()

    def close(self) -> None:
        del self._loader
        clean_stale_shared_memory()


def rebatched(items: Iterator[tuple[str, dict[str, Any]]], batch_size: int) -> Iterator[Batch]:
    """Yield the batches of what is left."""
    kept: list[tuple[str, dict[str, Any]]] = []
    for item in items:
        kept.append(item)
        if len(kept) == batch_size:
            yield _stack(kept)
            kept = []
    if kept:
        yield _stack(kept)


def _stack(kept: list[tuple[str, dict[str, Any]]]) -> Batch:
    return [k[0] for k in kept], {m: torch.stack([k[1][m] for k in kept]) for m in kept[0][1]}
