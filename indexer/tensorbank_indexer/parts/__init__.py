"""A part being written: which samples it takes, its shards, its workers and checkpoints."""

from __future__ import annotations

from tensorbank_indexer.parts.part_plan import PartPlan, plan_part, samples_per_shard_for
from tensorbank_indexer.parts.part_writer import PartWriter, Progress
from tensorbank_indexer.parts.shard_task import ShardResult
from tensorbank_indexer.parts.table_fit import stored_numbers

__all__ = [
    "PartPlan",
    "PartWriter",
    "Progress",
    "ShardResult",
    "plan_part",
    "samples_per_shard_for",
    "stored_numbers",
]
