"""The floor: what anybody writes first. One npz object a sample, one boto3 ``get_object`` after the other, ``numpy.load``."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import boto3
import numpy as np
from botocore.config import Config

from peers.contract import Batch, Export, Request, cut, item_name, places

DISTRIBUTIONS = ("boto3",)


def prepare(export: Export, folder: Path, track: str) -> None:
    """Write npz files, deflated on the zstd track: zip members know no zstd in numpy."""
    save = np.savez_compressed if track == "zstd" else np.savez
    stored = {name: export.pixels(name) for name in export.modalities}
    for i, name in enumerate(export.ids):
        save(folder / f"{name}.npz", **{m: pixels[i] for m, pixels in stored.items()})


class Loader:
    """A loop."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self._client = boto3.client(
            "s3",
            endpoint_url=request.endpoint,
            aws_access_key_id="any",
            aws_secret_access_key="any",
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}),
        )
        self._rng = np.random.default_rng(request.seed)

    def epoch(self) -> Iterator[Batch]:
        work = self.request.workload
        ids = Export(self.request.export).ids
        items = places(work, len(ids))
        if self.request.shuffle:
            items = [items[i] for i in self._rng.permutation(len(items))]
        for first in range(0, len(items), self.request.batch_size):
            names, samples = [], []
            for place in items[first : first + self.request.batch_size]:
                name = ids[place[0]]
                answer = self._client.get_object(
                    Bucket=self.request.bucket, Key=f"{self.request.prefix}/{name}.npz"
                )
                arrays = np.load(io.BytesIO(answer["Body"].read()))
                names.append(item_name(name, place))
                samples.append({m: cut(arrays[m], b, *place[1:]) for m, b in work.modalities.items()})
            yield names, {m: np.stack([s[m] for s in samples]) for m in work.modalities}

    def close(self) -> None:
        self._client.close()
