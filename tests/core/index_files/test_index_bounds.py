"""Rows that the log and the roll-ups leave open are read:
long texts, parts without a roll-up, names of odd bands."""

from __future__ import annotations

import pyarrow as pa
import pytest

import tensorbank as tb
from support.handmade_index import SCHEMA, part_of
from tensorbank.catalog import Commit

LONG = "\u00e9" * 70


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    """One part with a roll-up, one without, and identifiers that the log has to cut."""
    made = tb.create(tmp_path_factory.mktemp("bounds"))
    made.catalog.create("t", SCHEMA, single_writer=True)
    for number in range(2):
        part = f"part-{number}"
        commit = part_of("t", part, 6)
        ids = pa.array([f"{LONG}{number}{i}\U0010ffff" for i in range(6)])
        covers = pa.array([0.2 + number / 2] * 6)
        samples = commit.samples
        for name, values in (("sample_id", ids), ("cloud_cover", covers)):
            samples = samples.set_column(samples.schema.get_field_index(name), name, values)
        shards = commit.shards
        if number == 0:
            low = pa.array([0.2] * len(shards))
            for name in ("min_cloud_cover", "max_cloud_cover"):
                shards = shards.set_column(shards.schema.get_field_index(name), name, low)
        made.catalog.commit("t", Commit(part, samples, commit.tiles, shards.slice(0, 0 if number else None)))
    return made


def test_a_part_without_a_roll_up_is_looked_at(bank):
    rows = bank.sql("SELECT sample_id, part FROM t WHERE cloud_cover > 0.5").plan().table
    assert rows["part"].to_pylist() == ["part-1"] * 6


@pytest.mark.parametrize("number", [0, 1])
def test_texts_that_the_log_cuts_are_found(bank, number):
    name = f"{LONG}{number}3\U0010ffff"
    for op, n in (("=", 1), (">=", 9 - 6 * number), ("<=", 4 + 6 * number), (">", 8 - 6 * number)):
        found = bank.sql(f"SELECT sample_id FROM t WHERE sample_id {op} '{name}'").plan()
        assert len(found) == n, op
