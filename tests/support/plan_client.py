"""A client of the plans of a service that knows nothing but HTTP and the format."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import xarray

from tensorbank.reading.codec import decode_block
from tensorbank.schema import Modality

__all__ = ["open_references", "pixels_of", "records_of"]


def records_of(answer: httpx.Response) -> list[dict[str, Any]]:
    """Return the records of an answer, a line each."""
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def pixels_of(
    tensors: Mapping[str, Any], shard_bytes: Callable[[str, int, int], bytes], modality: Modality, name: str
) -> npt.NDArray[np.generic]:
    """Return the decoded blocks of one task, (band, y, x), by a client that knows the format only."""
    blocks = []
    for start, end in tensors[name]["ranges"]:
        data = memoryview(shard_bytes(tensors[name]["shard"], start, end))
        at = 0
        while at < len(data):
            n = int.from_bytes(data[at + 12 : at + 16], "little") + 4
            out = np.empty((modality.height, modality.width), modality.dtype)
            decode_block(data[at : at + n], out)
            blocks.append(out)
            at += n
    return np.stack(blocks)


def open_references(document: Mapping[str, Any]) -> xarray.Dataset:
    """Open references in the format of Kerchunk, and return what they lead to."""
    return xarray.open_dataset(
        "reference://",
        engine="zarr",
        backend_kwargs={
            "storage_options": {
                "fo": document,
                "remote_protocol": "http",
                "asynchronous": True,
                "remote_options": {"asynchronous": True},
            },
            "consolidated": True,
        },
        mask_and_scale=False,
        chunks=None,
    )
