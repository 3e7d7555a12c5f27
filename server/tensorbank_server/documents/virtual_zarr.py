"""Zarr v3 documents of what is stored otherwise: one sample, or the samples of a plan. Pure.

An inner chunk of a sharded array has the bytes of a chunk of an unsharded one with the same inner codecs. So a selection is an
array ``[sample, time, band, y, x]`` with a chunk a block, whose chunks are ranges of shards, served
or referred to without decoding.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tensorbank.errors import ErrorKind, NotFoundError
from tensorbank.layout import dimension_names
from tensorbank.plans import Handle
from tensorbank.schema import Modality

__all__ = ["ChunkKey", "array_document", "inner_codecs", "parse_chunk_key"]

_CHUNK = re.compile(r"c((?:/(?:0|[1-9][0-9]{0,17})){4,5})")


@dataclass(frozen=True, slots=True)
class ChunkKey:
    """The place of one chunk: its sample in the array, its date, and its band among those delivered."""

    sample: int
    time: int
    band: int


def inner_codecs(stored: Mapping[str, Any]) -> list[dict[str, object]]:
    """Return the codecs of a block, from the ``zarr.json`` of the array that it is stored in."""
    found: list[dict[str, object]] = stored["codecs"][0]["configuration"]["codecs"]
    return found


def array_document(
    handle: Handle,
    modalities: Sequence[Modality],
    codecs: Sequence[Mapping[str, object]],
    n_samples: int | None,
) -> dict[str, object]:
    """Return ``zarr.json`` of the array of one handle; it has no sample axis where ``n_samples`` is None."""
    m = handle.modality
    shape, chunk = list(handle.shape), [1, 1, *handle.shape[2:]]
    dimensions = list(dimension_names(m, modalities))
    if n_samples is None:
        dimensions = dimensions[1:]
    else:
        shape, chunk = [n_samples, *shape], [1, *chunk]
    names = [m.band_names[b] for b in handle.bands]
    fill = m.fill_value
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": shape,
        "data_type": m.dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": "NaN" if isinstance(fill, float) and math.isnan(fill) else fill,
        "codecs": [dict(codec) for codec in codecs],
        "attributes": {**m.attributes, "band_names": names},
        "dimension_names": dimensions,
        "storage_transformers": [],
    }


def parse_chunk_key(text: str, handle: Handle, n_samples: int | None) -> ChunkKey:
    """Parse a chunk key: ``c/7/0/3/0/0``, or ``c/0/3/0/0`` in an array without a sample axis.

    Raises
    ------
    NotFoundError
        It is no key of the array.
    """
    found = _CHUNK.fullmatch(text)
    numbers = [int(n) for n in found[1].split("/")[1:]] if found else []
    if n_samples is None:
        numbers = [0, *numbers]
    grid = (n_samples or 1, handle.n_times, len(handle.bands), 1, 1)
    if len(numbers) != 5 or not all(n < size for n, size in zip(numbers, grid, strict=True)):
        raise NotFoundError("no such chunk", kind=ErrorKind.NO_CHUNK)
    return ChunkKey(*numbers[:3])
