"""Keys of a bank, written out."""

from __future__ import annotations

import pytest

from tensorbank import InvalidInputError
from tensorbank.layout import (
    array_key,
    check_table_name,
    index_key,
    is_below,
    is_shard_key,
    part_key,
    part_of_key,
    place_of_key,
    report_key,
    shard_key,
)


def test_keys_are_these():
    assert index_key("t", "tiles") == "t/index/tiles"
    assert part_key("t", "part-1") == "t/tensors/part-1"
    assert report_key("t", "part-1") == "t/tensors/part-1.ingest.json"
    assert array_key("t", "part-1", "S2") == "t/tensors/part-1/S2"
    assert shard_key("t", "part-1", "S2", 12) == "t/tensors/part-1/S2/c/12/0/0/0/0"


def test_a_shard_key_tells_its_place():
    key = "t/tensors/part-1/S2/c/12/0/0/0/0"
    assert is_shard_key(key)
    assert place_of_key(key) == ("t/tensors/part-1/S2", 12)
    assert part_of_key(key) == "part-1"


@pytest.mark.parametrize(
    "key",
    [
        "",
        None,
        7,
        "t/tensors/part-1/S2/zarr.json",
        "t/tensors/part-1/S2/c/12",
        "t/tensors/../S2/c/12/0/0/0/0",
        "t/tensors/part-1/./c/12/0/0/0/0",
        "/t/tensors/part-1/S2/c/12/0/0/0/0",
        "t/tensors/part-1/S2/c/-1/0/0/0/0",
        "t/tensors/part'1/S2/c/12/0/0/0/0",
        "t/tensors/part\n1/S2/c/12/0/0/0/0",
        "t/tensors/part-1/S2/c/12/0/0/0/0/",
    ],
)
def test_what_leads_elsewhere_is_no_shard_key(key):
    assert not is_shard_key(key)


@pytest.mark.parametrize("path", ["a", "a/b.parquet", "ä/b c"])
def test_paths_below(path):
    assert is_below(path)


@pytest.mark.parametrize(
    "path", ["", None, "/a", "a//b", "../a", "a/../b", "a/.", "a\\b", "a\0b", "a" * 1025]
)
def test_paths_that_lead_out(path):
    assert not is_below(path)


@pytest.mark.parametrize("name", ["t", "T_1", "a" * 63])
def test_names_of_tables(name):
    assert check_table_name(name) == name


@pytest.mark.parametrize("name", ["", "1a", "a-b", "a.b", "ä", "a" * 64, "select", "Order", None])
def test_names_that_sql_cannot_say_without_quotes(name):
    with pytest.raises(InvalidInputError) as caught:
        check_table_name(name)
    assert caught.value.kind == "bad-name"
