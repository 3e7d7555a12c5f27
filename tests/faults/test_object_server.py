"""The store in memory that crash points happen on is a store like any other."""

from __future__ import annotations

import json

import pytest

from support.object_server import ObjectServer, Trouble
from tensorbank import ConflictError, StorageError, StorageOptions
from tensorbank.storage import Store
from tensorbank.testing import StoreContract


@pytest.fixture
def server():
    with ObjectServer() as running:
        running.world("bank", {})
        yield running


@pytest.fixture
def store(server):
    return Store(
        "s3://bank",
        StorageOptions(endpoint=server.endpoint, access_key="any", secret_key="any", region="us-east-1"),
    )


class TestObjectServer(StoreContract):
    @pytest.fixture
    def store(self, store):
        return store


def test_a_lost_answer_is_that_of_a_write_that_was_done(server, store):
    world = server.worlds["bank"]
    world.begin(Trouble("lost", 2))
    store.create("a", b"1")
    with pytest.raises(StorageError):
        store.create("b", b"2")
    assert world.objects == {"a": b"1", "b": b"2"}
    with pytest.raises(ConflictError):
        store.create("b", b"2")


def test_a_full_store_takes_nothing_but_deletions(server, store):
    world = server.worlds["bank"]
    world.begin(Trouble("full", 2))
    store.put("a", b"1")
    with pytest.raises(StorageError):
        store.create("b", b"2")
    store.delete("a")
    assert world.objects == {}
    world.begin(Trouble())
    store.create("b", json.dumps({}).encode())
    assert [r.method for r in world.log] == ["PUT"]
