"""Amazon's S3 connector for PyTorch: one npz object a sample, ``S3MapDataset`` in a ``DataLoader``.

Settings from https://github.com/awslabs/s3-connector-for-pytorch (README, "Configurations"): ``S3ClientConfig`` as it is but
for path style; objects are named rather than listed. It has no query: the objects of the selected samples are named.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from s3torchconnector import S3ClientConfig, S3MapDataset

from peers.contract import Batch, Export, Request, Workload, cut, item_name, places

DISTRIBUTIONS = ("s3torchconnector", "torch")


def prepare(export: Export, folder: Path, track: str) -> None:
    """Write npz files, deflated on the zstd track: zip members know no zstd in numpy."""
    save = np.savez_compressed if track == "zstd" else np.savez
    stored = {name: export.pixels(name) for name in export.modalities}
    for i, name in enumerate(export.ids):
        save(folder / f"{name}.npz", **{m: pixels[i] for m, pixels in stored.items()})


class Loader:
    """A map-style data set; a window is an object of its own, named again."""

    def __init__(self, request: Request) -> None:
        ids = Export(request.export).ids
        chosen = places(request.workload, len(ids))
        dataset = S3MapDataset.from_objects(
            [f"{request.s3_url}/{ids[p[0]]}.npz" for p in chosen],
            region="us-east-1",
            endpoint=request.endpoint,
            transform=partial(_arrays, request.workload),
            s3client_config=S3ClientConfig(force_path_style=True, **request.options),
        )
        n_workers = 2 if request.n_workers is None else request.n_workers
        self._loader = torch.utils.data.DataLoader(
            Named(dataset, [item_name(ids[p[0]], p) for p in chosen], chosen, request.workload),
            batch_size=request.batch_size,
            shuffle=request.shuffle,
            generator=torch.Generator().manual_seed(request.seed),
            num_workers=n_workers,
            persistent_workers=n_workers > 0,
        )

    def epoch(self) -> Iterator[Batch]:
        yield from self._loader

    def close(self) -> None:
        del self._loader


class Named(torch.utils.data.Dataset[Any]):
    """The objects with the ids of their items."""

    def __init__(self, dataset: Any, names: list[str], chosen: list[Any], work: Workload) -> None:
        self._dataset, self._names, self._places, self._work = dataset, names, chosen, work

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> tuple[str, dict[str, Any]]:
        arrays = self._dataset[index]
        window = self._places[index][1:]
        pixels = {
            m: np.ascontiguousarray(cut(arrays[m], b, *window)) for m, b in self._work.modalities.items()
        }
        return self._names[index], pixels


def _arrays(work: Workload, body: Any) -> dict[str, Any]:
    with np.load(io.BytesIO(body.read())) as archive:
        return {m: archive[m] for m in work.modalities}
