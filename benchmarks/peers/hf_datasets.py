"""Hugging Face datasets, streamed: Parquet over plain HTTP, with its columns and filters.

Settings from https://huggingface.co/docs/datasets/stream: ``load_dataset("parquet", streaming=True, columns=..., filters=...)``,
``shuffle(buffer_size=...)``. The default buffer of 1,000 samples would be 4.3 GB of these; 200 is what WebDataset gets.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import load_dataset

from peers import parquet
from peers.contract import Batch, Export, Request

DISTRIBUTIONS = ("datasets", "torch")
BUFFER = 200


def prepare(export: Export, folder: Path, track: str) -> None:
    """Write Parquet files."""
    parquet.write(export, folder, track)


class Loader:
    """A loader by an ``IterableDataset`` in a ``DataLoader``."""

    def __init__(self, request: Request) -> None:
        work = request.workload
        export = Export(request.export)
        ids = export.ids
        windows: dict[str, list[tuple[int, int, int, int]]] | None = None
        filters: list[tuple[str, str, Any]] | None = None
        if work.windows is not None:
            windows = {}
            for p, y0, y1, x0, x1 in work.windows:
                windows.setdefault(ids[p], []).append((y0, y1, x0, x1))
            filters = [("sample_id", "in", list(windows))]
        elif work.where.startswith("cloud_cover < "):
            filters = [("cloud_cover", "<", float(work.where.split()[-1]))]
        elif work.positions is not None:
            filters = [("sample_id", "in", [ids[p] for p in work.positions])]
        files = sorted(p.name for p in Path(request.folder).glob("*.parquet"))
        columns = ["sample_id", *(["cloud_cover"] if filters and filters[0][0] == "cloud_cover" else [])]
        data = load_dataset(
            "parquet",
            data_files=[f"{request.http_url}/{name}" for name in files],
            split="train",
            streaming=True,
            columns=[*columns, *work.modalities],
            filters=filters,
            cache_dir=request.cache,
        )
        if request.shuffle:
            data = data.shuffle(seed=request.seed, buffer_size=request.options.get("buffer", BUFFER))
        data = data.map(
            partial(_arrays, parquet.shapes_of(export, work.modalities), dict(work.modalities), windows),
            batched=True,
            batch_size=1,
            remove_columns=[*columns, *work.modalities],
        )
        n_workers = 2 if request.n_workers is None else request.n_workers
        self._loader = torch.utils.data.DataLoader(
            data,
            batch_size=request.batch_size,
            num_workers=n_workers,
            persistent_workers=n_workers > 0,
            collate_fn=_collate,
        )

    def epoch(self) -> Iterator[Batch]:
        yield from self._loader

    def close(self) -> None:
        del self._loader


def _arrays(shapes: Any, modalities: Any, windows: Any, rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Turn one row into as many items as it has windows."""
    (name,) = rows["sample_id"]
    wanted = [()] if windows is None else windows[name]
    found: dict[str, list[Any]] = {"item": [f"{name}/{w[0]}/{w[2]}" if w else name for w in wanted]}
    for m, bands in modalities.items():
        found[m] = [parquet.decoded(rows[m][0], *shapes[m], bands, w) for w in wanted]
    return found


def _collate(items: list[dict[str, Any]]) -> Batch:
    names = [n for n in items[0] if n != "item"]
    return [i["item"] for i in items], {m: torch.from_numpy(np.stack([i[m] for i in items])) for m in names}
