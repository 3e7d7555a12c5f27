"""LitData: chunks of 64 MB by ``optimize``, ``StreamingDataset`` and ``StreamingDataLoader``.

Settings from https://github.com/Lightning-AI/litdata (README: "Optimize", "Stream", "Cache", "S3-compatible storage"): leaves
of numpy, ``chunk_bytes="64MB"``, ``compression="zstd"`` on the zstd track, ``storage_options`` with ``endpoint_url``. Its
Rust client refuses plain HTTP, for which there is no option; ``allow_http`` is added to the client options that it passes on,
so that its fast path is measured. It has no query over chunks: random access by index, which takes range reads, in a
``DataLoader``.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import litdata
import numpy as np
import torch
from litdata.streaming import downloader

from peers.contract import Batch, Export, Request, Workload, cut, item_name, places

DISTRIBUTIONS = ("litdata", "obstore", "torch")
CHUNK_BYTES = "64MB"

downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True


def prepare(export: Export, folder: Path, track: str) -> None:
    """Write the samples by ``optimize`` with one worker, so that they stay in their order."""
    litdata.optimize(
        fn=partial(_sample, str(export.folder)),
        inputs=list(range(len(export))),
        output_dir=str(folder),
        chunk_bytes=CHUNK_BYTES,
        compression="zstd" if track == "zstd" else None,
        num_workers=1,
        verbose=False,
    )


def _sample(folder: str, index: int) -> dict[str, Any]:
    export = Export(folder)
    pixels = {name: np.array(export.pixels(name)[index]) for name in export.modalities}
    row = export.rows[index]
    return {"sample_id": row["sample_id"], "cloud_cover": row["cloud_cover"], **pixels}


class Loader:
    """A loader by ``StreamingDataLoader`` over everything, or a ``DataLoader`` over chosen indices."""

    def __init__(self, request: Request) -> None:
        self.request = request
        n_workers = 2 if request.n_workers is None else request.n_workers
        options = dict(request.options)
        prefetch = {k: options.pop(k) for k in ("prefetch_factor",) if k in options}
        dataset = litdata.StreamingDataset(
            request.s3_url,
            cache_dir=f"{request.cache}/chunks",
            shuffle=request.shuffle,
            drop_last=False,
            seed=request.seed,
            storage_options={
                "endpoint_url": request.endpoint,
                "aws_access_key_id": "any",
                "aws_secret_access_key": "any",
                "region_name": "us-east-1",
            },
            **options,
        )
        work = request.workload
        if work.positions is None and work.windows is None:
            self._loader: Any = litdata.StreamingDataLoader(
                dataset,
                batch_size=request.batch_size,
                num_workers=n_workers,
                persistent_workers=n_workers > 0,
                **prefetch,
            )
            if request.state is not None:
                self._loader.load_state_dict(request.state)
        else:
            self._loader = torch.utils.data.DataLoader(
                Chosen(dataset, work),
                batch_size=request.batch_size,
                shuffle=request.shuffle,
                generator=torch.Generator().manual_seed(request.seed),
                num_workers=n_workers,
                persistent_workers=n_workers > 0,
                **prefetch,
            )

    def epoch(self) -> Iterator[Batch]:
        for batch in self._loader:
            yield batch["sample_id"], {m: batch[m] for m in self.request.workload.modalities}

    def state_dict(self) -> Any:
        return self._loader.state_dict()

    def close(self) -> None:
        del self._loader


class Chosen(torch.utils.data.Dataset[dict[str, Any]]):
    """A dataset of some samples, or windows of them, by index."""

    def __init__(self, dataset: Any, work: Workload) -> None:
        self._dataset, self._work = dataset, work
        self._places = places(work, len(dataset))

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        place = self._places[index]
        sample = self._dataset[place[0]]
        pixels = {m: cut(sample[m], b, *place[1:]) for m, b in self._work.modalities.items()}
        return {"sample_id": item_name(sample["sample_id"], place), **pixels}
