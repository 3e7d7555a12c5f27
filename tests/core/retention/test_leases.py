"""Leases: what is written, when they are over by two clocks that differ, and what they and tags protect."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tensorbank import IntegrityError, StorageError
from tensorbank.retention import (
    MAX_SKEW_S,
    Lease,
    Owner,
    create_tag,
    lease_key,
    list_leases,
    protected_versions,
    remove_expired,
)
from tensorbank.storage import Store, time_of_store

NOW = datetime(2126, 3, 1, 12, 0, tzinfo=UTC)
"""A time at which nothing of this test has just been written by the clock of a store."""
OWNER = Owner("ada", "gpu-7", 4711, "train.py")
LEASE = Lease("a1", "id", (5, 3), NOW, NOW + timedelta(minutes=15), OWNER)


def put(store, lease, table="t"):
    store.put(lease_key(table, lease.id), lease.to_bytes())


def test_a_lease_comes_back_as_it_was_written(store):
    assert list_leases(store, "t") == ([], [])
    put(store, LEASE)
    put(store, replace(LEASE, id="b2"), table="u")
    ((found,), damaged) = list_leases(store, "t")
    assert found == replace(LEASE, versions=(3, 5))
    assert damaged == []
    said = json.loads(store.get("t/leases/a1.json"))
    assert (said["since"], said["until"]) == ("2126-03-01T12:00:00+00:00", "2126-03-01T12:15:00+00:00")
    assert said["owner"] == {"user": "ada", "host": "gpu-7", "pid": 4711, "program": "train.py"}


@pytest.mark.parametrize(
    ("seconds", "is_expired"),
    [(0, False), (900, False), (900 + MAX_SKEW_S, False), (900 + MAX_SKEW_S + 1, True), (10_000, True)],
)
def test_a_lease_counts_until_no_clock_can_still_be_before_its_end(folder_store, seconds, is_expired):
    put(folder_store, LEASE)
    now = NOW + timedelta(seconds=seconds)
    assert LEASE.is_expired(now) == is_expired
    assert (3 in protected_versions(folder_store, "t", now).by_version) != is_expired
    assert [lease.id for lease in remove_expired(folder_store, "t", now)] == (["a1"] if is_expired else [])
    assert bool(list_leases(folder_store, "t")[0]) != is_expired


@pytest.mark.parametrize("hours", [-24, -1, 1])
def test_a_lease_counts_after_its_last_renewal_whatever_time_its_holder_has(store, hours):
    """The store's clock tells when it was written; its own end counts if it is later."""
    before = time_of_store(store)
    wrong = before + timedelta(hours=hours)
    put(store, replace(LEASE, since=wrong, until=wrong + timedelta(minutes=15)))
    end = before + timedelta(minutes=20, hours=max(hours, 0))
    assert sorted(protected_versions(store, "t", end - timedelta(seconds=2)).by_version) == [3, 5]
    assert protected_versions(store, "t", end + timedelta(minutes=1)).by_version == {}


def test_a_time_in_another_zone_is_the_same_time():
    east = replace(LEASE, until=LEASE.until.astimezone(tz=None))
    assert Lease.from_bytes(east.to_bytes(), "u").until == LEASE.until


def test_what_is_protected_says_why(store):
    assert protected_versions(store, "t", NOW).by_version == {}
    create_tag(store, "t", "paper-v1", table_id="id", version=3)
    create_tag(store, "t", "paper-v2", table_id="id", version=7)
    create_tag(store, "t", "earlier", table_id="another", version=8)
    put(store, LEASE)
    put(store, replace(LEASE, id="over", versions=(1,), until=NOW - timedelta(hours=1)))
    found = protected_versions(store, "t", NOW, table_id="id")
    lease = "lease of ada on gpu-7, process 4711, train.py until 2126-03-01 12:15:00+00:00"
    assert found.by_version == {3: f"tag paper-v1; {lease}", 5: lease, 7: "tag paper-v2"}
    assert [found.reason(v) for v in (1, 7)] == [None, "tag paper-v2"]
    assert sorted(protected_versions(store, "t", NOW).by_version) == [3, 5, 7, 8]


@pytest.mark.parametrize("key", ["t/leases/a1.json", "t/tags/paper-v1.json"])
def test_what_is_damaged_protects_everything(folder_store, key):
    put(folder_store, LEASE)
    create_tag(folder_store, "t", "paper-v1", table_id="id", version=3)
    broken = bytearray(folder_store.get(key))
    broken[30] ^= 4
    folder_store.put(key, bytes(broken))
    found = protected_versions(folder_store, "t", NOW + timedelta(days=365))
    assert len(found.damaged) == 1
    assert key in found.damaged[0]
    assert "delete it" in found.damaged[0]
    assert key in found.reason(1)
    assert remove_expired(folder_store, "t", NOW) == []
    assert folder_store.exists(key)


@pytest.mark.parametrize("data", [b"", b"{}", b"null", b'{"crc32c": "00000000"}', LEASE.to_bytes()[:-1]])
def test_what_is_no_lease_is_refused(data):
    with pytest.raises(IntegrityError, match="s3://b/t/leases/x"):
        Lease.from_bytes(data, "s3://b/t/leases/x")


def test_objects_of_other_names_are_no_leases(folder_store):
    folder_store.put("t/leases/README.txt", b"x")
    folder_store.put("t/leases/sub/a1.txt", b"x")
    assert list_leases(folder_store, "t") == ([], [])


def test_a_store_that_does_not_answer_protects_nothing_and_says_so(folder_store, monkeypatch):
    def failing(self, prefix):
        raise StorageError("out of reach")

    monkeypatch.setattr(Store, "objects", failing)
    with pytest.raises(StorageError, match="out of reach"):
        protected_versions(folder_store, "t", NOW)
