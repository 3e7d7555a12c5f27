"""Reading of samples: from the byte ranges of a plan to decoded blocks in the caller's buffers."""

from __future__ import annotations

from tensorbank.reading.batch_read import BatchRead
from tensorbank.reading.buffers import Buffers
from tensorbank.reading.codec import (
    DECODE_S_PER_GB,
    DEFAULT_PROFILE,
    PROFILES,
    codec_for,
    crc32c,
    decode_block,
    decode_run,
    forbid_blosc_threads,
)
from tensorbank.reading.raw import RawRead, fetch_raw, ranges_of
from tensorbank.reading.read_plan import Reads, plan_reads
from tensorbank.reading.sample_reader import SampleReader
from tensorbank.reading.shard_assembler import ShardAssembler
from tensorbank.reading.skipped import Skipped
from tensorbank.reading.xarray_dataset import as_dataset, read_tensors

__all__ = [
    "BatchRead",
    "Buffers",
    "DECODE_S_PER_GB",
    "DEFAULT_PROFILE",
    "PROFILES",
    "RawRead",
    "Reads",
    "SampleReader",
    "ShardAssembler",
    "Skipped",
    "as_dataset",
    "codec_for",
    "crc32c",
    "decode_block",
    "decode_run",
    "fetch_raw",
    "forbid_blosc_threads",
    "plan_reads",
    "ranges_of",
    "read_tensors",
]
