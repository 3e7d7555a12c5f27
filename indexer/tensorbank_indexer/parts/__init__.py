"""A part being written: which samples it takes, its shards, its tasks and checkpoints."""

from __future__ import annotations

from tensorbank_indexer.parts.encoded_sample import EncodedModality, encode_sample
from tensorbank_indexer.parts.ingest_setting import IngestSetting
from tensorbank_indexer.parts.part_plan import (
    WRITER_VERSION,
    PartPlan,
    place_numbers,
    plan_part,
    samples_per_shard_for,
)
from tensorbank_indexer.parts.part_writer import PartWriter, Progress
from tensorbank_indexer.parts.shard_task import ShardResult
from tensorbank_indexer.parts.table_fit import conform, stored_numbers

__all__ = [
    "WRITER_VERSION",
    "EncodedModality",
    "IngestSetting",
    "PartPlan",
    "PartWriter",
    "Progress",
    "ShardResult",
    "conform",
    "encode_sample",
    "place_numbers",
    "plan_part",
    "samples_per_shard_for",
    "stored_numbers",
]
