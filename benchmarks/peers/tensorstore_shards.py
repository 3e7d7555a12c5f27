"""TensorStore over TensorBank's own shards: the same bytes, read by another reader, which is told where each sample lies.

Settings as those of :mod:`peers.tensorstore`, but that the shards and blocks are those that ``ingest`` writes: blocks of one band
of a sample. In the environment of the tests, which has both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

import peers.tensorbank
import tensorbank as tb
from peers.contract import Export, Place, Request
from peers.indexed import IndexedLoader, Reader
from peers.tensorstore import CACHE_BYTES

DISTRIBUTIONS = ("tensorstore", "tensorbank", "torch")
ROWS = "rows.json"


def prepare(export: Export, folder: Path, track: str) -> None:
    """Ingest as TensorBank does, and note where each sample lies."""
    peers.tensorbank.prepare(export, folder, track)
    found = (
        tb.open(str(folder)).sql(f"SELECT sample_id, part, row FROM {peers.tensorbank.TABLE}.tiles").arrow()
    )
    columns = (found[name].to_pylist() for name in ("sample_id", "part", "row"))
    rows = {name: (part, row) for name, part, row in zip(*columns, strict=True)}
    (folder / ROWS).write_text(json.dumps([rows[name] for name in export.ids]))


def opened(request: Request) -> Reader:
    """Return the reader of the arrays of all parts over S3."""
    context = ts.Context({"cache_pool": {"total_bytes_limit": CACHE_BYTES}})
    rows = [(part, row) for part, row in json.loads((Path(request.folder) / ROWS).read_text())]
    waiting = {
        (part, name): ts.open(
            {
                "driver": "zarr3",
                "kvstore": {
                    "driver": "s3",
                    "bucket": request.bucket,
                    "path": f"{request.prefix}/{peers.tensorbank.TABLE}/tensors/{part}/{name}/",
                    "endpoint": request.endpoint,
                    "aws_region": "us-east-1",
                    "aws_credentials": {"type": "anonymous"},
                },
            },
            context=context,
            read=True,
        )
        for part in sorted({part for part, _ in rows})
        for name in request.workload.modalities
    }
    return partial(_read, rows, {at: w.result() for at, w in waiting.items()})


def _read(
    rows: Sequence[tuple[str, int]],
    stores: Mapping[tuple[str, str], Any],
    chosen: Sequence[Place],
    modalities: Mapping[str, Sequence[int] | None],
) -> Mapping[str, Any]:
    """Ask for all samples of a batch before the first is awaited."""
    asked = {
        m: [_cut(stores[rows[p[0]][0], m][rows[p[0]][1], 0], bands, *p[1:]).read() for p in chosen]
        for m, bands in modalities.items()
    }
    return {m: np.stack([w.result() for w in found]) for m, found in asked.items()}


def _cut(store: Any, bands: Sequence[int] | None, y0: int, y1: int | None, x0: int, x1: int | None) -> Any:
    some = store if bands is None else store[list(bands)]
    return some if y1 is None else some[:, y0:y1, x0:x1]


Loader = partial(IndexedLoader, opened=opened)
