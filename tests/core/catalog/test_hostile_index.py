"""An index that somebody else wrote, or a disk changed: addresses that cannot be are refused by name, and nothing is read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import tensorbank as tb
from support.handmade_index import SCHEMA, part_of
from tensorbank import IntegrityError
from tensorbank.index_schema import shards_schema

SQLS = ("SELECT S2L2A FROM t", "SELECT bands(S2L2A, ['B03', 'B11']) FROM t")


def bank_with(folder: Path, **changed: Any) -> tb.Bank:
    """A bank whose third sample has an address of one's own, in the shards' table, too."""
    bank = tb.create(folder)
    bank.catalog.create("t", SCHEMA)
    commit = part_of("t", "part-0", 6, missing=0)
    rows = commit.samples.to_pylist()
    rows[2]["S2L2A"]["ref"] |= changed
    shards = commit.shards.to_pylist()
    if "key" in changed:
        shards.append({**shards[0], "S2L2A": {**shards[0]["S2L2A"], "key": changed["key"]}})
    commit = replace(
        commit,
        samples=pa.Table.from_pylist(rows, commit.samples.schema),
        shards=pa.Table.from_pylist(shards, shards_schema(SCHEMA)),
    )
    bank.catalog.commit("t", commit)
    return tb.open(folder)


HOSTILE = [
    {"offset": 1 << 62},
    {"offset": (1 << 63) - 1},
    {"offset": -5},
    {"length": 1 << 40, "block_bytes": [1 << 30] * 5},
    {"length": -1, "block_bytes": [-1] * 5},
    {"key": "../../other/tensors/p/S2L2A/c/0/0/0/0/0"},
    {"key": "t/tensors/p/S2L2A' OR 'a' = 'a/c/0/0/0/0/0"},
    {"key": "x"},
    {"key": ""},
]


@pytest.mark.parametrize("sql", SQLS, ids=["whole", "bands"])
@pytest.mark.parametrize("changed", HOSTILE, ids=str)
def test_an_address_that_cannot_be_is_refused(tmp_path, sql, changed):
    bank = bank_with(tmp_path, **changed)
    with pytest.raises(IntegrityError) as caught:
        bank.sql(sql).plan().addresses  # noqa: B018 - looked at for its errors
    assert caught.value.kind == "bad-address"
    assert "S2L2A" in str(caught.value) or changed.get("key", "?") in str(caught.value)


@pytest.mark.parametrize("changed", [h for h in HOSTILE if "key" in h], ids=str)
def test_pixels_are_not_looked_for_elsewhere(tmp_path, changed):
    bank = bank_with(tmp_path, **changed)
    statistics = "SELECT (S2L2A.B03.min + S2L2A.B03.max) / 2 AS v FROM t WHERE sample_id LIKE '%0002'"
    middle = bank.sql(statistics).arrow()["v"][0].as_py()
    assert middle is not None
    with pytest.raises(IntegrityError) as caught:
        bank.sql(
            f"SELECT sample_id FROM t WHERE sample_id LIKE '%0002' AND pixels_share(S2L2A.B03, '> {middle:.3f}') > 0.5"
        ).arrow()
    assert caught.value.kind == "bad-address"


@pytest.mark.parametrize("blocks", [[], [30], [30] * 6, [30, None, 30, 30, 30], None], ids=str)
def test_another_number_of_blocks_is_refused(tmp_path, blocks):
    bank = bank_with(tmp_path, block_bytes=blocks)
    with pytest.raises(IntegrityError) as caught:
        bank.sql(SQLS[1]).plan().addresses  # noqa: B018 - looked at for its errors
    assert caught.value.kind == "bad-address"


def test_the_bank_is_sound_without_that(tmp_path):
    bank = bank_with(tmp_path)
    for sql in SQLS:
        assert len(bank.sql(sql).plan().addresses["S2L2A"].shard_of) == 6
