"""Leases of loaders: when they are taken, by whom, when they are over, and that they trouble no run."""

from __future__ import annotations

import gc
import multiprocessing
import os
import threading
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import torch.utils.data

from support.handmade import Handmade, make
from tensorbank import InvalidInputError, StorageError, StorageOptions
from tensorbank.client import ServedPlan
from tensorbank.errors import ErrorKind
from tensorbank.plans import PlanSource, StoreAddress
from tensorbank.retention import LeaseHolder, list_leases, protected_versions
from tensorbank.storage import Store
from tensorbank_loader import DataLoader, StreamingDataset, World
from tensorbank_loader.plan_lease import PlanLease

WAIT_S = 60
N = 23


@pytest.fixture
def made(tmp_path) -> Handmade:
    return make(tmp_path / "bank", N)


@pytest.fixture
def written(monkeypatch) -> threading.Event:
    """An event that is set once a lease has been written by this process."""
    event, put = threading.Event(), Store.put

    def noted(self, key, data):
        put(self, key, data)
        if "/leases/" in key:
            event.set()

    monkeypatch.setattr(Store, "put", noted)
    return event


def leases(made):
    found, damaged = list_leases(Store(made.folder.as_uri()), "t")
    assert damaged == []
    return found


def test_a_loader_holds_a_lease_from_its_first_batch_to_its_end(made, written):
    before = set(threading.enumerate())  # of loaders of other tests, maybe
    with DataLoader(made.plan, batch_size=5) as loader:
        batches = iter(loader)
        assert not written.is_set()
        assert [t for t in set(threading.enumerate()) - before if t.name == "tensorbank-lease"] == []
        next(batches)
        assert written.wait(WAIT_S)
        (lease,) = leases(made)
        assert (lease.table_id, lease.versions, lease.owner.pid) == ("id", (0,), os.getpid())
        list(batches)
        list(loader)
        assert [found.id for found in leases(made)] == [lease.id], "one for all epochs"
    assert leases(made) == []


def test_a_closed_loader_that_goes_on_takes_another_lease(made, written):
    loader = DataLoader(made.plan, batch_size=5)
    list(loader)
    assert written.wait(WAIT_S)
    loader.close()
    assert leases(made) == []
    written.clear()
    list(loader)
    assert written.wait(WAIT_S)
    assert len(leases(made)) == 1
    loader.close()


def test_a_forgotten_loader_leaves_no_lease(made, written):
    loader = DataLoader(made.plan, batch_size=5)
    list(loader)
    assert written.wait(WAIT_S)
    del loader
    gc.collect()
    assert leases(made) == []


def test_ranks_have_a_lease_each(made, written):
    loaders = [DataLoader(made.plan, batch_size=5, world=World(rank, 2)) for rank in range(2)]
    for loader in loaders:
        written.clear()
        list(loader)
        assert written.wait(WAIT_S)
    assert len(leases(made)) == 2
    for loader in loaders:
        loader.close()
    assert leases(made) == []


@pytest.mark.parametrize("make_it", [DataLoader, StreamingDataset])
def test_leases_can_be_turned_off(made, make_it, monkeypatch):
    def refused(self, key, data):
        raise AssertionError(f"{key} was written")

    monkeypatch.setattr(Store, "put", refused)
    before = set(threading.enumerate())
    list(make_it(made.plan, global_batch_size=5, lease=False))
    monkeypatch.setenv("TENSORBANK_LEASES", "off")
    list(make_it(made.plan, global_batch_size=5))
    assert not [t for t in set(threading.enumerate()) - before if t.name == "tensorbank-lease"]
    with pytest.raises(InvalidInputError, match="lease is 1"):
        make_it(made.plan, global_batch_size=5, lease=1)


def test_a_bank_that_cannot_be_written_is_read_all_the_same(made, monkeypatch):
    asked = threading.Event()

    def refused(self, key, data):
        asked.set()
        raise StorageError("you may not", kind=ErrorKind.DENIED)

    monkeypatch.setattr(Store, "put", refused)
    with DataLoader(made.plan, batch_size=5) as loader:
        assert sum(len(batch["sample_id"]) for batch in loader) == N
        assert asked.wait(WAIT_S)


def test_a_dataset_holds_a_lease_as_long_as_it_is_there(made, written):
    datasets = [
        StreamingDataset(made.plan, global_batch_size=5)
    ]  # not a local, which a look at the frame would keep
    list(datasets[0])
    assert written.wait(WAIT_S)
    (lease,) = leases(made)
    list(datasets[0])
    assert [found.id for found in leases(made)] == [lease.id]
    datasets.clear()
    gc.collect()
    assert leases(made) == []


@pytest.mark.slow
def test_workers_of_a_rank_share_one_lease(made):
    """The first of them takes it, again in each epoch under the same id; the others have none."""
    dataset = StreamingDataset(made.plan, global_batch_size=2)
    context = multiprocessing.get_context("forkserver")
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=None, num_workers=2, multiprocessing_context=context
    )
    ids, pids = set(), set()
    for _ in range(2):
        n = 0
        for batch in loader:
            n += len(batch["sample_id"])
        assert n == N
        found = leases(made)
        ids |= {lease.id for lease in found}
        pids |= {lease.owner.pid for lease in found}
    assert len(ids) == 1
    assert len(pids) == 2
    assert os.getpid() not in pids
    assert sorted(protected_versions(Store(made.folder.as_uri()), "t", datetime.now(UTC)).by_version) == [0]


class Held:
    """The questions that were asked of holders of leases, which write nothing."""

    def __init__(self) -> None:
        self.readings = {}

    def __call__(self, store, lease_id) -> LeaseHolder:
        holder = LeaseHolder(store, lease_id=lease_id)
        holder.hold = lambda some: self.readings.__setitem__(store.url, {(r.table, r.version) for r in some})
        return holder


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (StoreAddress("s3://b/eo"), {"s3://b/eo": {("t", 7), ("t", 3), ("u", 1)}}),
        (StoreAddress("s3://b/eo", StorageOptions(anonymous=True)), {}),
        (StoreAddress("https://host/eo"), {}),
        (ServedPlan("https://host", "https://host/v1/banks/eo", "eo", "p"), {}),
    ],
    ids=["a store", "a public store", "files behind a web server", "a service"],
)
def test_who_can_write_protects_every_snapshot_of_the_plan(made, origin, expected, monkeypatch):
    monkeypatch.delenv("TENSORBANK_LEASES", raising=False)
    source = PlanSource("SELECT", {"t": ("id", 7), "t@3": ("id", 3), "u": ("other", 1)}, 2)
    held = Held()
    lease = PlanLease(replace(made.plan, origin=origin, source=source), None, hold=held)
    lease.take()
    lease.take()
    assert held.readings == expected
    lease.release()
