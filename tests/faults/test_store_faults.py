"""The store bears servers that are busy, bodies that are cut and keys that expire."""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tensorbank as tb
from support.handmade import make
from tensorbank import StorageError
from tensorbank.fetch.fetcher import Fetcher, FetchOptions
from tensorbank.plans import StoreAddress
from tensorbank.ranges import ByteRange
from tensorbank.storage.retries import MAX_PAUSE_S, backoff_s, parse_retry_after
from tensorbank.storage.store import Store
from tensorbank.testing import Faults, FaultServer

N = 120
DATA = np.random.default_rng(0).integers(0, 256, 1 << 20, np.uint8).tobytes()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    made = make(tmp_path_factory.mktemp("served") / "bank", N)
    (made.folder / "object").write_bytes(DATA)
    with FaultServer(made.folder) as server:
        plan = replace(made.plan, origin=StoreAddress(server.url, server.storage))
        yield server, replace(made, plan=plan)


class Keys:
    """A callable that gives new keys each time, and counts."""

    def __init__(self, lifetime_s: float | None = None) -> None:
        self.n = 0
        self.lifetime_s = lifetime_s
        self._lock = threading.Lock()

    def __call__(self) -> dict[str, object]:
        with self._lock:
            self.n += 1
            ends = None if self.lifetime_s is None else datetime.now(UTC) + timedelta(seconds=self.lifetime_s)
            return {
                "access_key_id": f"key-{self.n}",
                "secret_access_key": "s",
                "token": None,
                "expires_at": ends,
            }


# ---------------------------------------------------------------- busy servers


@given(st.integers(0, 60), st.floats(0.01, 5), st.none() | st.floats(0, 1e6))
def test_pauses_grow_and_end(attempt, first_s, retry_after_s):
    pause_s = backoff_s(attempt, first_s, retry_after_s)
    assert 0 <= pause_s <= 1.5 * MAX_PAUSE_S
    if retry_after_s is not None:
        assert min(retry_after_s, MAX_PAUSE_S) <= pause_s <= min(retry_after_s, MAX_PAUSE_S) + first_s
    else:
        assert pause_s >= 0.5 * min(first_s * 2**attempt, MAX_PAUSE_S)


def test_pauses_differ_so_that_clients_do_not_come_back_together():
    for retry_after_s in (None, 3.0):
        assert len({backoff_s(2, 1.0, retry_after_s) for _ in range(20)}) == 20


def test_retry_after_is_seconds_or_a_date():
    now = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert parse_retry_after("120", now) == 120
    assert parse_retry_after("Thu, 01 Jan 2026 12:00:30 GMT", now) == 30
    assert parse_retry_after("Thu, 01 Jan 2026 11:00:00 GMT", now) == 0
    for text in (None, "", "soon", "-3", "1.5", "²"):
        assert parse_retry_after(text, now) is None


@pytest.mark.parametrize("kind", ["throttled", "unavailable"])
def test_a_busy_server_is_left_alone_for_as_long_as_it_asks(served, kind):
    server, _ = served
    server.set(Faults(**{kind: 1.0}, retry_after_s=2))
    fetcher = Fetcher(Store(server.url, server.storage), FetchOptions(max_hedge_share=0, stall_s=60))
    started = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(fetcher.fetch, ByteRange("object", 0, 1000))
        while server.stats()["counts"].get(kind, 0) < 2:  # the read, and the question how long
            assert time.monotonic() - started < 20
        server.set(Faults())
        assert coming.result(60) == DATA[:1000]
    fetcher.close()
    assert time.monotonic() - started >= 2
    assert server.stats()["counts"]["requests"] == 1
    assert fetcher.stats.retries == 1


def test_all_threads_leave_it_alone_when_one_was_told_to(served):
    server, _ = served
    store = Store(server.url, server.storage)
    server.set(Faults(throttled=1.0, retry_after_s=1))
    with pytest.raises(StorageError):
        store.get_range("object", 0, 10)
    told = time.monotonic()
    told_s = []
    server.set(Faults())

    def ask(i: int) -> memoryview:
        while True:
            try:
                return store.get_range("object", i, i + 1)
            except StorageError as error:
                told_s.append(error.retry_after_s)

    with ThreadPoolExecutor(4) as pool:
        assert b"".join(pool.map(ask, range(4))) == DATA[:4]
    assert time.monotonic() - told > 0.9
    assert all(0 < left_s <= 1 for left_s in told_s)
    assert server.stats()["counts"]["requests"] == 4


@pytest.mark.parametrize("call", ["get", "exists", "folders"])
def test_other_questions_wait_too(served, call):
    server, _ = served
    store = Store(server.url, server.storage)
    server.set(Faults(throttled=0.6, retry_after_s=0, seed=2))
    for _ in range(5):
        answer = {
            "get": lambda: store.get("object"),
            "exists": lambda: store.exists("object"),
            "folders": store.folders,
        }
        assert answer[call]()


def test_a_server_that_stays_busy_is_named_so(served):
    server, _ = served
    server.set(Faults(throttled=1.0, retry_after_s=1))
    with pytest.raises(StorageError, match="429") as caught:
        Store(server.url, server.storage).get_range("object", 0, 10)
    assert (caught.value.kind, caught.value.retry_after_s) == ("throttled", 1.0)
    server.set(Faults(throttled=1.0))
    with pytest.raises(StorageError) as caught:
        Store(server.url, server.storage).get_range("object", 0, 10)
    assert (caught.value.kind, caught.value.retry_after_s) == ("throttled", None)


# ---------------------------------------------------------------- cut bodies


def test_a_cut_body_costs_milliseconds_and_one_more_request(served):
    server, _ = served
    n, size = 60, 16_000
    with closing(Fetcher(Store(server.url, server.storage), FetchOptions(max_hedge_share=0))) as fetcher:

        def read_all() -> float:
            started = time.perf_counter()
            for i in range(n):
                wanted = ByteRange("object", i * size, (i + 1) * size)
                assert fetcher.fetch(wanted) == DATA[wanted.start : wanted.end]
            return time.perf_counter() - started

        server.set(Faults())
        usual_s = read_all()
        server.set(Faults(cut=0.25, seed=8))
        cut_s = read_all()
        counts = server.stats()["counts"]
        assert counts["cut"] > 10
        assert counts["requests"] == n + counts["cut"]
        assert fetcher.stats.retries == counts["cut"]
        assert (cut_s - usual_s) / counts["cut"] < 0.1


# ---------------------------------------------------------------- keys that expire


def test_keys_that_expire_within_an_epoch_are_renewed(served):
    """Through the real loader: complete, exactly once, and with as many keys as it takes."""
    server, made = served
    server.set(Faults(expires_after=100))
    keys = Keys()
    plan = replace(
        made.plan,
        origin=StoreAddress(made.plan.bank, tb.StorageOptions(endpoint=server.endpoint, credentials=keys)),
    )
    names = []
    options = FetchOptions(max_gap_bytes=0, max_read_bytes=1)
    with plan.dataloader(batch_size=8, seed=1, options=options) as loader:
        for batch in loader:
            at = [plan.table["sample_id"].to_pylist().index(name) for name in batch["sample_id"]]
            for name, truth in made.truth.items():
                np.testing.assert_array_equal(batch[name].numpy().reshape(truth[at].shape), truth[at])
            names += batch["sample_id"]
    assert len(names) == len(set(names)) == N
    stats = server.stats()
    assert stats["counts"]["expired"] > 0
    assert len(stats["access_keys"]) > 5
    assert keys.n <= len(stats["access_keys"]) + 1


def test_each_expiry_asks_for_new_keys_once_however_many_threads_meet_it(served):
    server, _ = served
    server.set(Faults())
    keys = Keys()
    store = Store(server.url, tb.StorageOptions(endpoint=server.endpoint, credentials=keys))
    assert store.get_range("object", 0, 1) == DATA[:1]
    assert keys.n == 1
    server.set(Faults(only="object", latency_ms=50, expires_after=8))
    for turn in range(4):  # the keys of each turn are good for one more turn
        with ThreadPoolExecutor(8) as pool:
            assert b"".join(pool.map(lambda i: store.get_range("object", i, i + 1), range(8))) == DATA[:8]
        assert keys.n == 1 + turn


def test_keys_are_renewed_before_they_expire_if_they_say_when(served):
    server, _ = served
    server.set(Faults())
    keys = Keys(lifetime_s=1)
    store = Store(server.url, tb.StorageOptions(endpoint=server.endpoint, credentials=keys))
    for n in itertools.count():
        store.get_range("object", 0, 1)
        if keys.n >= 3:
            break
        assert n < 10_000
    assert server.stats()["counts"].get("expired", 0) == 0


def test_new_keys_that_are_refused_as_well_are_an_error(served):
    server, _ = served
    server.set(Faults(denied_after=1))
    keys = Keys()
    store = Store(server.url, tb.StorageOptions(endpoint=server.endpoint, credentials=keys))
    store.get_range("object", 0, 1)
    with pytest.raises(StorageError, match="have expired") as caught:
        store.get_range("object", 0, 1)
    assert caught.value.kind == "denied"
    assert keys.n == 2


def test_a_callable_that_fails_is_named(served):
    server, _ = served
    server.set(Faults())

    def broken():
        raise RuntimeError("the vault is sealed")

    store = Store(server.url, tb.StorageOptions(endpoint=server.endpoint, credentials=broken))
    with pytest.raises(StorageError, match="the vault is sealed") as caught:
        store.get_range("object", 0, 1)
    assert caught.value.kind == "no-credentials"
    assert "\n" not in str(caught.value)


def test_open_hands_them_on_to_index_and_tensors(s3_server, tmp_path):
    """Delta's own client gets the keys of the moment."""
    asked = []

    def keys():
        asked.append(1)
        return {
            "access_key_id": s3_server.access_key,
            "secret_access_key": s3_server.secret_key,
            "token": None,
            "expires_at": None,
        }

    bank = tb.create(
        f"{s3_server.url}/by-callable", endpoint=s3_server.endpoint, credentials=keys, cache=tmp_path
    )
    schema = tb.TableSchema((tb.Modality("S1", "float32", (tb.Band("vv"),), 1, 8, 8),))
    bank.catalog.create("t", schema)
    assert bank.tables() == ["t"]
    assert bank.table("t").schema == schema
    assert asked
    assert s3_server.secret_key not in repr(bank.catalog.store.options)
