"""Documents that the service hands out: rows, tensors, pictures, Zarr and STAC, made from the index and decoded blocks."""

from __future__ import annotations

from tensorbank_server.documents.coordinates import CHUNK, of_band_names, of_plan
from tensorbank_server.documents.encoded import EncodedFiles
from tensorbank_server.documents.lookup import RowFiles, SampleTable
from tensorbank_server.documents.row_json import plain, readable, sample_json
from tensorbank_server.documents.sample_tensors import (
    BlockAddress,
    Cut,
    byte_ranges,
    count_times,
    read_block,
    read_tensor,
)
from tensorbank_server.documents.stac_documents import collection_id

__all__ = [
    "BlockAddress",
    "CHUNK",
    "Cut",
    "EncodedFiles",
    "RowFiles",
    "SampleTable",
    "byte_ranges",
    "collection_id",
    "count_times",
    "of_band_names",
    "of_plan",
    "plain",
    "read_block",
    "read_tensor",
    "readable",
    "sample_json",
]
