"""Checkpoints of an ingest: what was kept comes back, and what was damaged meanwhile does not."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest

from tensorbank.storage import Store
from tensorbank_indexer.parts import checkpoint
from tensorbank_indexer.parts.shard_task import ShardResult
from tensorbank_indexer.reports import StageSeconds
from tensorbank_indexer.rows import IndexRows
from tensorbank_indexer.source import Finding


@pytest.fixture
def kept(tmp_path):
    """A store with the checkpoint of one shard, the path of it, and the result."""
    rows = IndexRows(*(pa.table({name: [1.5, None, 3.0]}) for name in ("samples", "tiles", "shards")))
    result = ShardResult(3, rows, [Finding("odd", "archive", "reason", "action")], 100, 50, StageSeconds())
    store = Store(tmp_path.as_uri())
    checkpoint.save(store, "t", "part-1", result)
    return store, tmp_path / "t/tensors/part-1.progress/3.arrow", result


def test_what_was_kept_comes_back(kept):
    store, _, result = kept
    assert checkpoint.load(store, "t", "part-1", 3) == result
    assert checkpoint.load(store, "t", "part-1", 4) is None


def test_a_damaged_one_is_none(kept):
    store, path, _ = kept
    sound = path.read_bytes()
    draws = random.Random(1)
    for bit in draws.sample(range(8 * len(sound)), 200):
        body = bytearray(sound)
        body[bit // 8] ^= 1 << bit % 8
        path.write_bytes(body)
        assert checkpoint.load(store, "t", "part-1", 3) is None
    for n in (0, 3, 4, len(sound) // 2, len(sound) - 1):
        path.write_bytes(sound[:n])
        assert checkpoint.load(store, "t", "part-1", 3) is None
