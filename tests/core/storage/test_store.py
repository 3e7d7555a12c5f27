"""Stores of every make under one contract, and what they say when something is wrong."""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

import tensorbank.storage.store
from tensorbank import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    StorageError,
    StorageOptions,
    TableSchema,
)
from tensorbank.bank import Bank, LocalEngine
from tensorbank.catalog.catalog import Catalog
from tensorbank.index_files.mirror import IndexMirror
from tensorbank.schema import Band, Modality
from tensorbank.storage import object_client, retries
from tensorbank.storage.store import Store
from tensorbank.testing import StoreContract
from tensorbank_indexer import IngestOptions, ingest
from tensorbank_indexer.source import Archive, SampleRef, Scan

SCHEMA = TableSchema((Modality("S1", "float32", (Band("vv"), Band("vh")), 1, 8, 8),))


def options_of(server) -> StorageOptions:
    return StorageOptions(server.endpoint, server.access_key, server.secret_key, region=server.region)


class TestFileStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path):
        return Store((tmp_path / "folder with space ü").as_uri())


class TestSeaweedStore(StoreContract):
    @pytest.fixture
    def store(self, s3_server):
        return Store(f"{s3_server.url}/contract", options_of(s3_server))


class TestStoreAtAnOddPrefix(StoreContract):
    @pytest.fixture
    def store(self, s3_server):
        return Store(f"{s3_server.url}/exp#2 a+b/ü?[x]", options_of(s3_server))


class TestMotoStore(StoreContract):
    @pytest.fixture
    def store(self, moto_server):
        return Store(f"{moto_server.url}/contract", options_of(moto_server))


def create_at(url, options, key, number, barrier, results):
    store = Store(url, options)
    store.exists(key)  # the client is made before the race
    barrier.wait(60)
    try:
        store.create(key, f"process {number}".encode())
        results.put((number, "won"))
    except ConflictError as error:
        results.put((number, error.kind))


@pytest.mark.parametrize("server", ["s3_server", "moto_server"])
def test_one_of_many_processes_wins(server, request):
    server = request.getfixturevalue(server)
    store = Store(f"{server.url}/race", options_of(server))
    key = f"key-{uuid.uuid4()}"
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(4), context.Queue()
    args = (store.url, store.options, key)
    processes = [context.Process(target=create_at, args=(*args, i, barrier, results)) for i in range(4)]
    for process in processes:
        process.start()
    said = dict(results.get(timeout=100) for _ in processes)
    for process in processes:
        process.join(30)
    assert sorted(said.values()) == ["exists", "exists", "exists", "won"]
    winner = next(number for number, what in said.items() if what == "won")
    assert store.get(key) == f"process {winner}".encode()


class OverwritingStore(Store):
    """A store that answers conditional writes with success, as some S3 look-alikes do."""

    def create(self, key, data):
        self.put(key, data)


def overwriting_bank(tmp_path) -> Bank:
    store = OverwritingStore((tmp_path / "bank").as_uri())
    return Bank(LocalEngine(Catalog(store, IndexMirror(store, tmp_path / "cache"))))


def test_a_store_that_ignores_conditions_is_refused(tmp_path):
    catalog = overwriting_bank(tmp_path).catalog
    assert not catalog.store.arbitrates_writers()
    with pytest.raises(ConflictError, match="single_writer=True") as caught:
        catalog.require_arbitration()
    assert caught.value.kind == "no-conditional-writes"
    with pytest.raises(ConflictError):
        catalog.create("t", SCHEMA)
    assert catalog.tables() == []
    assert catalog.store.objects() == []
    catalog.create("t", SCHEMA, single_writer=True)
    assert catalog.tables() == ["t"]


class OneSample:
    """A source with only as much as a refused ingest may touch: names, no pixel."""

    root = "nowhere"
    format = "terramesh"
    n_read = 0

    def archives(self):
        return [Archive("a", "train", "s", ())], []

    def scan(self, archive):
        sample = SampleRef("a", "train", "s", "stem", "id", float("nan"), float("nan"), 0, {})
        return Scan(archive, (sample,), ())

    def read(self, *_: object):
        self.n_read += 1
        raise AssertionError("no pixel is read before the store has been tried")


def test_ingest_refuses_such_a_store_before_it_reads_a_pixel(tmp_path):
    bank, source = overwriting_bank(tmp_path), OneSample()
    with pytest.raises(ConflictError) as caught:
        ingest(source, bank, "t", IngestOptions(n_workers=1))
    assert (caught.value.kind, source.n_read) == ("no-conditional-writes", 0)
    assert bank.catalog.store.objects() == []


# ---------------------------------------------------------------- what goes wrong, in one sentence


def catalog_of(store: Store) -> Catalog:
    return Catalog(store, IndexMirror(store, Path("/nowhere")))


N_CALLS = 11
"""The number of calls that `calls` has."""


def calls(store: Store):
    catalog = catalog_of(store)
    return {
        "get": lambda: store.get("x"),
        "range": lambda: store.get_range("x", 0, 1),
        "put": lambda: store.put("x", b"1"),
        "create": lambda: store.create("x", b"1"),
        "exists": lambda: store.exists("x"),
        "delete": lambda: store.delete("x"),
        "objects": lambda: store.objects("p"),
        "folders": store.folders,
        "arbitrates": store.arbitrates_writers,
        "catalog.tables": catalog.tables,
        "catalog.schema": lambda: catalog.schema("t"),
    }


def is_a_sentence(text: str) -> bool:
    return "\n" not in text and len(text) < 500 and "Traceback" not in text and "\x1b" not in text


def test_a_wrong_secret_is_denied(s3_server):
    right, denied = options_of(s3_server), 0
    for options in (replace(right, secret_key="wrong"), replace(right, access_key="nobody", secret_key="x")):
        for name, call in calls(Store(s3_server.url, options)).items():
            with pytest.raises(StorageError, match="check the credentials") as caught:
                call()
            assert caught.value.kind == "denied", name
            assert is_a_sentence(str(caught.value))
            assert right.secret_key not in str(caught.value)
            denied += 1
    assert denied == 2 * N_CALLS


def test_a_bucket_that_does_not_exist(moto_server):
    told = []
    for name, call in calls(Store("s3://no-such-bucket", options_of(moto_server))).items():
        if name in ("exists", "delete"):  # HEAD has no body to tell a bucket from an object
            assert not call()
            continue
        with pytest.raises(NotFoundError, match="there is no bucket no-such-bucket") as caught:
            call()
        assert caught.value.kind == "no-bucket", name
        told.append(name)
    assert len(told) == N_CALLS - 2


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "http://no-such-host.invalid:9"])
def test_an_endpoint_that_nobody_answers(endpoint):
    store = Store("s3://bucket", StorageOptions(endpoint, "key", "secret"))
    for name in ("get", "catalog.schema"):
        started = time.monotonic()
        with pytest.raises(StorageError, match="cannot be reached") as caught:
            calls(store)[name]()
        assert (caught.value.kind, is_a_sentence(str(caught.value))) == ("unreachable", True), str(
            caught.value
        )
        assert endpoint in str(caught.value)
        assert time.monotonic() - started < 30, name


@pytest.fixture
def silent_endpoint():
    """A server that takes every connection and never says a word."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    taken = []

    def take():
        while True:
            try:
                taken.append(listener.accept()[0])
            except OSError:
                return

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(10)
    for connection in taken:
        connection.close()


def test_a_server_that_never_answers_is_given_up(silent_endpoint, monkeypatch):
    monkeypatch.setattr(object_client, "STALL_TIMEOUT_S", 1)
    short = {kind: replace(policy, deadline_s=2) for kind, policy in retries.OBJECT_POLICIES.items()}
    monkeypatch.setattr(tensorbank.storage.store, "OBJECT_POLICIES", short)
    store = Store("s3://bucket", StorageOptions(silent_endpoint, "key", "secret"))
    for name in ("get", "catalog.schema"):
        started = time.monotonic()
        with pytest.raises(StorageError) as caught:
            calls(store)[name]()
        assert caught.value.kind == "unreachable"
        assert time.monotonic() - started < 30, name


def test_the_limits_that_users_get_end_within_100_seconds():
    one_s = max(object_client.STALL_TIMEOUT_S, object_client.CONNECT_TIMEOUT_S)
    policies = [*retries.OBJECT_POLICIES.values(), retries.CLIENT_POLICY]
    assert all(policy.deadline_s + one_s < 100 for policy in policies)


def test_missing_credentials_are_named():
    """In a process of its own: no credentials in the environment, none in the home folder, a metadata service that
    gives none."""
    code = (
        "from tensorbank.storage.store import Store\nfrom tensorbank import StorageOptions\n"
        "try:\n    Store('s3://bucket', StorageOptions('http://127.0.0.1:9')).get('x')\n"
        "except OSError as error:\n    print(type(error).__name__, error.kind, error)\n"
    )
    done = run(code)
    assert done.stdout.startswith("StorageError"), done
    assert "no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in done.stdout
    assert is_a_sentence(done.stdout.strip())


def run(code: str) -> subprocess.CompletedProcess:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, env=environment
    )


def test_a_fork_after_use_is_refused_instead_of_hanging(tmp_path):
    code = f"""
import os, sys
from tensorbank import StorageError
from tensorbank.storage.store import Store
store, fresh = Store({tmp_path.as_uri()!r}), Store({tmp_path.as_uri()!r})
store.put("x", b"1")
sys.stdout.flush()
pid = os.fork()
if pid == 0:
    for s in (store, fresh):
        for call in (lambda: s.get("x"), lambda: s.put("y", b"1"), lambda: s.exists("x"), s.objects):
            try:
                call()
                print("worked")
            except StorageError as error:
                print(error.kind, "forkserver" in str(error))
    sys.stdout.flush()
    os._exit(0)
os.waitpid(pid, 0)
print("parent", store.get("x"))
"""
    done = run(code)
    assert done.stdout.splitlines() == ["forked True"] * 8 + ["parent b'1'"], done.stderr


def test_a_fork_before_use_is_fine(tmp_path):
    code = f"""
import os
from tensorbank.storage.store import Store
store = Store({tmp_path.as_uri()!r})
pid = os.fork()
if pid == 0:
    store.put("x", b"of the child")
    os._exit(0)
os.waitpid(pid, 0)
print(store.get("x"))
"""
    assert run(code).stdout == "b'of the child'\n"


def test_reading_from_a_folder_that_is_not_there_does_not_make_it(tmp_path):
    folder = tmp_path / "mistyped"
    store = Store(folder.as_uri())
    for read in (
        lambda: store.get("x"),
        store.objects,
        store.folders,
        catalog_of(store).tables,
    ):
        with pytest.raises(NotFoundError, match="mistyped"):
            read()
    assert not store.exists("x")
    store.delete("x")
    assert not folder.exists()
    store.put("x", b"1")
    assert store.get("x") == b"1"


def test_a_range_is_checked_before_anything_is_asked():
    store = Store("s3://bucket", StorageOptions("http://127.0.0.1:9", "key", "secret"))
    started = time.monotonic()
    with pytest.raises(InvalidInputError, match="range"):
        store.get_range("x", 7, 7)
    assert time.monotonic() - started < 0.5


def test_secrets_are_not_shown():
    options = StorageOptions("http://h", "key", "hush-hush", "token-token")
    assert "hush" not in repr(options) + repr(Store("s3://b", options))
    assert "token-token" not in repr(options)


def test_signed_urls_open_one_object_each(s3_server):
    store = Store(f"{s3_server.url}/signed", options_of(s3_server))
    store.put("a b/c", b"0123456789")
    assert store.size("a b/c") == 10
    (url,) = store.sign(["a b/c"], 60)
    asked = urllib.request.Request(url, headers={"Range": "bytes=2-4"})
    with urllib.request.urlopen(asked) as answer:
        assert (answer.status, answer.read()) == (206, b"234")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(url.replace("a%20b/c", "a%20b/d"))
    assert refused.value.code == 403
    refused.value.close()
    with pytest.raises(InvalidInputError):
        Store("file:///tmp").sign(["x"], 60)


def test_signed_urls_of_odd_names_open_them(s3_server):
    store = Store(f"{s3_server.url}/exp#2/a+b?c", options_of(s3_server))
    for key in ("x#y", "a b/ü", "q?r=1&s"):
        store.put(key, key.encode())
        (url,) = store.sign([key], 60)
        with urllib.request.urlopen(url) as answer:
            assert answer.read().decode() == key
    assert sorted(o.key for o in store.objects()) == sorted(["x#y", "a b/ü", "q?r=1&s"])


@pytest.mark.parametrize("key", ["a//b", "../x", "a/./b", "a/../b"])
@pytest.mark.parametrize("where", ["folder", "s3"])
def test_a_key_that_is_none_is_refused_at_once(key, where, tmp_path, request):
    store = Store((tmp_path / "bank").as_uri())
    if where == "s3":
        server = request.getfixturevalue("s3_server")
        store = Store(server.url, options_of(server))
    calls = (lambda: store.put(key, b"1"), lambda: store.get_range(key, 0, 1), lambda: store.exists(key))
    for call in calls:
        with pytest.raises(InvalidInputError, match="not the name of an object") as caught:
            call()
        assert caught.value.kind == "bad-key"
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("below", ["", "bank"])
def test_a_file_where_the_folder_of_a_bank_has_to_be_is_said_so(tmp_path, below):
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotFoundError, match="a file stands") as caught:
        tensorbank.create(tmp_path / "file" / below)
    assert caught.value.kind == "no-folder"
    assert (tmp_path / "file").read_text() == "x"
