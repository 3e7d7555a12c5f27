"""Ray Data: Parquet through pyarrow's S3 client, ``iter_torch_batches``.

Settings from https://docs.ray.io/en/latest/data ("Loading data", "Iterating over data", "Performance tips"): columns and an
expression are pushed into the reader, arrays are decoded in ``map_batches``, ``local_shuffle_buffer_size=200``,
``prefetch_batches=2``. Starting Ray is part of the first batch, since no loader runs without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from pyarrow.fs import S3FileSystem
from ray.data.expressions import col

from peers import parquet
from peers.contract import Batch, Export, Request

DISTRIBUTIONS = ("ray", "pyarrow", "torch")
STORE_BYTES = 2 << 30
BUFFER = 200


def prepare(export: Export, folder: Path, track: str) -> None:
    """Write Parquet files."""
    parquet.write(export, folder, track)


class Loader:
    """A Ray of its own, for one data set."""

    def __init__(self, request: Request) -> None:
        ray.init(num_cpus=2, include_dashboard=False, object_store_memory=STORE_BYTES, log_to_driver=False)
        ray.data.DataContext.get_current().enable_progress_bars = False
        self.request = request
        work = request.workload
        export = Export(request.export)
        windows: dict[str, list[tuple[int, int, int, int]]] | None = None
        condition = None
        if work.windows is not None:
            windows = {}
            for p, y0, y1, x0, x1 in work.windows:
                windows.setdefault(export.ids[p], []).append((y0, y1, x0, x1))
            condition = col("sample_id").is_in(list(windows))
        elif work.where.startswith("cloud_cover < "):
            condition = col("cloud_cover") < float(work.where.split()[-1])
        elif work.positions is not None:
            condition = col("sample_id").is_in([export.ids[p] for p in work.positions])
        store = S3FileSystem(
            access_key="any",
            secret_key="any",
            endpoint_override=request.endpoint.removeprefix("http://"),
            scheme="http",
            region="us-east-1",
        )
        files = sorted(p.name for p in Path(request.folder).glob("*.parquet"))
        data = ray.data.read_parquet(
            [f"{request.bucket}/{request.prefix}/{name}" for name in files],
            filesystem=store,
            columns=["sample_id", "cloud_cover", *work.modalities],
        )
        if condition is not None:
            data = data.filter(expr=condition)
        self._data = data.map_batches(
            partial(_arrays, parquet.shapes_of(export, work.modalities), dict(work.modalities), windows),
            batch_size=request.batch_size,
        )

    def epoch(self) -> Iterator[Batch]:
        shuffle = self.request.options.get("buffer", BUFFER) if self.request.shuffle else None
        for batch in self._data.iter_batches(
            batch_size=self.request.batch_size,
            prefetch_batches=2,
            local_shuffle_buffer_size=shuffle,
            local_shuffle_seed=self.request.seed if shuffle else None,
        ):
            names = self.request.workload.modalities
            yield batch["item"].tolist(), {m: torch.from_numpy(np.ascontiguousarray(batch[m])) for m in names}

    def close(self) -> None:
        ray.shutdown()


def _arrays(shapes: Any, modalities: Any, windows: Any, rows: dict[str, Any]) -> dict[str, Any]:
    wanted = [
        (i, w)
        for i, name in enumerate(rows["sample_id"])
        for w in ([()] if windows is None else windows[name])
    ]
    names = [rows["sample_id"][i] for i, _ in wanted]
    found: dict[str, Any] = {
        "item": np.array([f"{n}/{w[0]}/{w[2]}" if w else n for n, (_, w) in zip(names, wanted, strict=True)])
    }
    for m, bands in modalities.items():
        found[m] = np.stack([parquet.decoded(rows[m][i], *shapes[m], bands, w) for i, w in wanted])
    return found
