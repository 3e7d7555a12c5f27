"""Groups of Zarr arrays (version 2 and 3) as archives hold them: metadata, chunks, codecs, each within stated limits."""

from __future__ import annotations

from tensorbank_indexer.zarr_groups.array_spec import ArraySpec
from tensorbank_indexer.zarr_groups.chunks import decode_chunk, decode_row
from tensorbank_indexer.zarr_groups.dtypes import parse_fill
from tensorbank_indexer.zarr_groups.group import ZarrGroup

__all__ = [
    "ArraySpec",
    "ZarrGroup",
    "decode_chunk",
    "decode_row",
    "parse_fill",
]
