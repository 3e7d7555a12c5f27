"""Shard keys by their hashes give back what was hashed."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorbank import FormatError, InvalidInputError
from tensorbank.addressing.shard_keys import NO_SHARD, ShardKeys

KEYS = [f"t/tensors/part-{i // 4}/S2/c/{i % 4}/0/0/0/0" for i in range(12)]
HASHES = np.random.default_rng(1).integers(1, 2**64, len(KEYS), dtype=np.uint64)


def shards(*numbers: int) -> ShardKeys:
    return ShardKeys.of([(HASHES[list(numbers)], pa.array([KEYS[n] for n in numbers], pa.string()))])


@given(st.lists(st.one_of(st.none(), st.integers(0, 11)), max_size=60), st.permutations(range(12)))
def test_rows_get_their_keys_and_the_dictionary_is_in_their_order(rows, order):
    hashes = np.array([NO_SHARD if r is None else HASHES[r] for r in rows], np.uint64)
    found = shards(*order).encode(hashes, "S2")
    assert found.to_pylist() == [None if r is None else KEYS[r] for r in rows]
    assert found.dictionary.to_pylist() == list(dict.fromkeys(KEYS[r] for r in rows if r is not None))


def test_several_tables_are_one_list():
    both = ShardKeys.of([(HASHES[:5], pa.array(KEYS[:5])), (HASHES[3:], pa.array(KEYS[3:]))])
    assert both.encode(HASHES, "S2").to_pylist() == KEYS


def test_a_shard_of_another_snapshot_is_refused():
    with pytest.raises(InvalidInputError, match="another snapshot"):
        shards(0, 1).encode(HASHES[[0, 5]], "S2")
    with pytest.raises(InvalidInputError, match="'S2'"):
        ShardKeys.of([]).encode(HASHES[:1], "S2")


def test_keys_that_share_a_hash_are_not_told_apart():
    same = np.array([7, 7], np.uint64)
    with pytest.raises(FormatError, match="same hash"):
        ShardKeys.of([(same, pa.array(KEYS[:2]))])
