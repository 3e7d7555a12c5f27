"""Training that a service feeds: ranks, URLs that end, a service that goes away, states that go from one door to the other."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from urllib.parse import urlsplit

import numpy as np
import pytest

import tensorbank as tb
from support import SUPPORT
from support.stored import LIFETIME_S, stored  # noqa: F401 - a fixture
from tensorbank.errors import InvalidInputError, StorageError
from tensorbank.fetch.fetcher import FetchOptions
from tensorbank_loader import StreamingDataset
from tensorbank_server.access.keys import KeyFile

RANK = SUPPORT / "client_rank.py"
LATE = FetchOptions(max_inflight_bytes=1, n_threads=2)
"""The options to read two batches ahead and no more, so that much of an epoch is read long after it began."""
COLUMNS = ("sample_id", "S2L2A[B08,B02]", "LULC")


def select(bank):
    return bank.query("terramesh").select(*COLUMNS)


def ids_of(loader):
    return [batch["sample_id"] for batch in loader]


@pytest.fixture(scope="module")
def sums(stored):  # noqa: F811
    """The checksum of S2L2A of every sample, as the bank itself gives it."""
    plan = select(stored.direct).plan()
    found = {}
    for batch in plan.dataloader(batch_size=20):
        for name, tensor in zip(batch["sample_id"], batch["S2L2A"], strict=True):
            found[name] = zlib.crc32(tensor.numpy())
    return found


@pytest.mark.slow
@pytest.mark.thorough
def test_two_ranks_and_urls_that_end(stored, sums, tmp_path):  # noqa: F811
    n_epochs = 4
    audit = tmp_path / "audit.jsonl"
    with stored.serving(TENSORBANK_AUDIT_FILE=str(audit)) as served:
        started_s = time.monotonic()
        ranks = [
            subprocess.Popen(
                [sys.executable, RANK, served.url, str(rank), "2", str(n_epochs), "0.6"],
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(2)
        ]
        outputs = [rank.communicate(timeout=120)[0] for rank in ranks]
        taken_s = time.monotonic() - started_s
    assert [rank.returncode for rank in ranks] == [0, 0]
    lines = [json.loads(line) for text in outputs for line in text.splitlines()]
    for epoch in range(n_epochs):
        seen = Counter(i for line in lines if line["epoch"] == epoch for i in line["ids"])
        assert seen == Counter(sums.keys()), "each sample exactly once"
    for line in lines:
        assert line["sums"] == [sums[i] for i in line["ids"]]
    assert taken_s > 3 * LIFETIME_S
    actions = Counter(json.loads(line)["action"] for line in audit.read_text().splitlines())
    assert actions["plan"] == 2
    assert actions["credentials"] >= 2 * 3, "URLs ended and were renewed"
    assert "proxy" not in actions


def test_a_state_goes_from_one_door_to_the_other(stored):  # noqa: F811
    options = {"batch_size": 3, "seed": 11}
    with stored.serving() as served:
        doors = {"service": select(tb.open(served.url)), "store": select(stored.direct)}
        whole = ids_of(doors["store"].dataloader(**options))
        for first, second in (("service", "store"), ("store", "service")):
            loader = doors[first].dataloader(**options)
            batches = iter(loader)
            begun = [next(batches)["sample_id"] for _ in range(3)]
            state = json.loads(json.dumps(loader.state_dict()))
            batches.close()
            resumed = doors[second].dataloader(**options)
            resumed.load_state_dict(state)
            assert begun + ids_of(resumed) == whole
            other = doors[second].where("lon > 0").dataloader(**options)
            with pytest.raises(InvalidInputError):
                other.load_state_dict(state)


@pytest.mark.thorough
def test_workers_read_by_urls_of_their_own(stored, sums):  # noqa: F811
    import torch

    with stored.serving() as served:
        dataset = StreamingDataset(select(tb.open(served.url)).plan(), global_batch_size=4, seed=1)
        loader = torch.utils.data.DataLoader(
            dataset, batch_size=None, num_workers=2, multiprocessing_context="forkserver"
        )
        seen = Counter()
        for batch in loader:
            seen.update(batch["sample_id"])
            assert [zlib.crc32(t.numpy()) for t in batch["S2L2A"]] == [sums[i] for i in batch["sample_id"]]
        assert seen == Counter(sums.keys())


@pytest.mark.slow
@pytest.mark.parametrize("keeps_plans", [pytest.param(True, marks=pytest.mark.thorough), False])
def test_a_service_that_restarts_costs_no_sample(stored, sums, tmp_path, keeps_plans):  # noqa: F811
    data = {"TENSORBANK_DATA_FOLDER": str(tmp_path / "data")} if keeps_plans else {}
    with stored.serving(**data) as served:
        address = urlsplit(served.url)
        loader = select(tb.open(served.url)).dataloader(batch_size=2, seed=3, options=LATE)
        batches = iter(loader)
        seen = [next(batches)["sample_id"] for _ in range(2)]
        ended_s = time.monotonic()
        served.process.kill()
        served.process.wait()
    again = threading.Event()
    over = threading.Event()

    def restart():
        time.sleep(LIFETIME_S + 1)  # until the URLs that are known have ended
        with stored.serving(port=address.port, **data):
            again.set()
            over.wait(120)

    thread = threading.Thread(target=restart)
    thread.start()
    try:
        seen += [next(batches)["sample_id"] for _ in range(2)]  # what was read ahead
        time.sleep(max(0.0, ended_s + LIFETIME_S + 0.5 - time.monotonic()))
        assert not again.is_set(), "the reads that follow meet no service"
        seen += [batch["sample_id"] for batch in batches]
        assert again.is_set()
    finally:
        over.set()
        thread.join()
    assert Counter(i for ids in seen for i in ids) == Counter(sums.keys())


@pytest.mark.slow
def test_a_revoked_key_ends_an_epoch_that_can_be_gone_on_with(stored, tmp_path):  # noqa: F811
    keys = KeyFile(tmp_path / "keys.json")
    key, text = keys.create("ann", ["read", "plan"])
    options = {"batch_size": 2, "seed": 3, "options": LATE}
    whole = ids_of(select(stored.direct).dataloader(**options))
    with stored.serving("--keys", str(keys.path), key=text) as served:
        loader = select(tb.open(served.url, key=text)).dataloader(**options)
        seen = []

        def train():
            for batch in loader:
                seen.append(batch["sample_id"])
                if len(seen) == 2:
                    keys.revoke(key.id)
                if len(seen) >= 2:
                    time.sleep(LIFETIME_S / 2)

        with pytest.raises(StorageError) as failed:
            train()
        assert failed.value.kind == "denied"
        assert "was revoked" in str(failed.value)
        assert text not in str(failed.value)
        assert 2 <= len(seen) < len(whole)
        fresh = keys.create("ann", ["read", "plan"])[1]
        resumed = select(tb.open(served.url, key=fresh)).dataloader(**options)
        resumed.load_state_dict(loader.state_dict())
        time.sleep(1.1)  # until the service looks at its keys again
        assert seen + ids_of(resumed) == whole


def test_an_epoch_is_the_same_through_the_service(stored, sums):  # noqa: F811
    with stored.serving() as served:
        seen = Counter()
        for batch in select(tb.open(served.url, access="proxy")).dataloader(batch_size=6, seed=2):
            seen.update(batch["sample_id"])
            np.testing.assert_array_equal(
                [zlib.crc32(t.numpy()) for t in batch["S2L2A"]], [sums[i] for i in batch["sample_id"]]
            )
        assert seen == Counter(sums.keys())
