"""LanceDB: one binary column a modality, ``StreamingDataset`` with an SQL filter and a projection.

Settings from https://docs.lancedb.com and the docstring of ``lancedb.streaming.StreamingDataset``: fragments of 64 MB, a
scalar index on the column that is filtered by, ``read_batch_size`` of the batch, its own threads and no worker processes;
decoding in ``transform``. With worker processes they are spawned and ``num_splits`` is their number. Compression by field
metadata: ``none``, ``zstd`` level 3, or on the fast track ``lz4``.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import lance
import lancedb
import numpy as np
import pyarrow as pa
import torch
from lancedb.streaming import StreamingDataset

from peers.contract import Batch, Export, Request, cut

DISTRIBUTIONS = ("lancedb", "pylance", "torch")
TABLE = "samples"
FRAGMENT_BYTES = 64 << 20
ROWS_PER_BATCH = 16


def prepare(export: Export, folder: Path, track: str) -> None:
    """Return a table with scalar columns and binary ones."""
    stored = {name: export.pixels(name) for name in export.modalities}
    packing = {"lance-encoding:compression": "none"}
    if track == "zstd":
        packing = {"lance-encoding:compression": "zstd", "lance-encoding:compression-level": "3"}
    elif track == "fast":
        packing = {"lance-encoding:compression": "lz4"}
    scalars = list(export.rows[0])
    schema = pa.schema(
        [pa.field(name, pa.string() if name == "sample_id" else pa.float64()) for name in scalars]
        + [pa.field(name, pa.large_binary(), metadata=packing) for name in stored]
    )

    def batches() -> Iterator[pa.RecordBatch]:
        for first in range(0, len(export), ROWS_PER_BATCH):
            rows = export.rows[first : first + ROWS_PER_BATCH]
            columns = [pa.array([row[name] for row in rows], schema.field(name).type) for name in scalars]
            for pixels in stored.values():
                blobs = [pixels[first + i].tobytes() for i in range(len(rows))]
                columns.append(pa.array(blobs, pa.large_binary()))
            yield pa.RecordBatch.from_arrays(columns, schema=schema)

    data = lance.write_dataset(
        pa.RecordBatchReader.from_batches(schema, batches()),
        str(folder / f"{TABLE}.lance"),
        max_bytes_per_file=FRAGMENT_BYTES,
    )
    for column in ("cloud_cover", "sample_id"):
        data.create_scalar_index(column, "BTREE")


class Loader:
    """A loader by ``StreamingDataset`` in a ``DataLoader``:
    one of each an epoch, which is an argument of theirs.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        work = request.workload
        export = Export(request.export)
        shapes = {m: (export.pixels(m).dtype, export.pixels(m).shape[1:]) for m in work.modalities}
        self._windows: dict[str, list[tuple[int, int, int, int]]] = {}
        for p, y0, y1, x0, x1 in work.windows or ():
            self._windows.setdefault(export.ids[p], []).append((y0, y1, x0, x1))
        where = work.where or None
        if work.windows is not None:
            where = f"sample_id IN ({', '.join(repr(name) for name in self._windows)})"
        database = lancedb.connect(
            request.s3_url,
            storage_options={
                "endpoint": request.endpoint,
                "allow_http": "true",
                "region": "us-east-1",
                "aws_access_key_id": "any",
                "aws_secret_access_key": "any",
            },
        )
        self._n_workers = request.n_workers or 0
        options: dict[str, Any] = {"read_batch_size": request.batch_size, **request.options}
        if self._n_workers:
            options.setdefault("num_splits", self._n_workers)
        self._number = 0
        self._open = partial(
            StreamingDataset,
            database.open_table(TABLE),
            shuffle=request.shuffle,
            shuffle_seed=request.seed,
            columns=["sample_id", *work.modalities],
            filter=where,
            transform=partial(_decoded, shapes, {} if self._windows else dict(work.modalities)),
            **options,
        )
        self._dataset = self._open(epoch=0)
        if request.state is not None:
            self._dataset.load_state_dict(request.state)

    def epoch(self) -> Iterator[Batch]:
        modalities = self.request.workload.modalities
        if self._number:
            self._dataset = self._open(epoch=self._number)
        self._number += 1
        loader = torch.utils.data.DataLoader(
            self._dataset,
            batch_size=self.request.batch_size,
            num_workers=self._n_workers,
            multiprocessing_context="spawn" if self._n_workers else None,
        )
        for batch in loader:
            ids = batch["sample_id"]
            if not self._windows:
                yield ids, {m: batch[m] for m in modalities}
                continue
            crops = [(i, name, w) for i, name in enumerate(ids) for w in self._windows[name]]
            for first in range(0, len(crops), self.request.batch_size):
                some = crops[first : first + self.request.batch_size]
                yield (
                    [f"{name}/{w[0]}/{w[2]}" for _, name, w in some],
                    {
                        m: torch.stack([cut(batch[m][i], b, *w) for i, _, w in some])
                        for m, b in modalities.items()
                    },
                )

    def state_dict(self) -> Any:
        return self._dataset.state_dict()

    def close(self) -> None:
        del self._dataset


def _decoded(shapes: Any, bands: Any, batch: pa.RecordBatch) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{"sample_id": name} for name in batch["sample_id"].to_pylist()]
    for modality, (dtype, shape) in shapes.items():
        for row, blob in zip(rows, batch[modality], strict=True):
            pixels = np.frombuffer(blob.as_buffer(), dtype).reshape(shape)
            row[modality] = torch.from_numpy(np.array(cut(pixels, bands.get(modality))))
    return rows
