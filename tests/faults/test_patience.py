"""Seconds after which each caller reports a store that is dead, silent, refusing or busy, and the requests that it sees.

The table is in :mod:`tensorbank.storage.retries`. Deadlines are made short here, so that the bounds are those of the table less
the deadline: one layer that waited beside another would exceed them.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import tensorbank as tb
from support.handmade_index import part_of
from tensorbank import StorageError, StorageOptions
from tensorbank.catalog import Catalog
from tensorbank.cli import main
from tensorbank.client.http import HttpPool
from tensorbank.client.service import POLICY, ServiceClient
from tensorbank.fetch import Fetcher, FetchOptions, range_requests
from tensorbank.index_files import IndexMirror
from tensorbank.ranges import ByteRange
from tensorbank.storage import object_client, retries, store
from tensorbank.storage.store import Store
from tensorbank.testing import Faults, FaultServer
from tensorbank_demo.landscape import write_archives
from tensorbank_indexer.containers import files
from tensorbank_indexer.containers.files import SourceFiles

DEADLINE_S = 1.0
"""Seconds of every policy in these tests, in place of 30, or 300 for ranges."""
STALL_S = 0.5
"""Seconds of silence that end a request, in place of 20."""
SLACK_S = 8.0
"""Seconds for a busy machine, and for one more try: far less than a second layer of 30 s would take."""
URL = "s3://bucket"
ARCHIVES = "ARCHIVES"
"""The word of a command in whose place the folder of made-up archives comes."""

REAL = {
    "silence_s": object_client.STALL_TIMEOUT_S,
    "objects": (retries.OBJECT_POLICIES["unreachable"], retries.OBJECT_POLICIES["throttled"]),
    "client": retries.CLIENT_POLICY,
}
"""The silence and policies before the tests change them."""

Call = Callable[[str, str, Path], object]
"""A question to the store at an endpoint and a URL, with a folder for copies."""


def options(endpoint: str) -> StorageOptions:
    """The options for a server that takes any key."""
    return StorageOptions(endpoint, "key", "secret", region="us-east-1")


def catalog(endpoint: str, url: str, cache: Path) -> Catalog:
    """The catalog of a bank."""
    place = Store(url, options(endpoint))
    return Catalog(place, IndexMirror(place, cache))


def plan(endpoint: str, url: str, cache: Path) -> object:
    """Open a bank and plan."""
    bank = tb.open(
        url, endpoint=endpoint, access_key="key", secret_key="secret", region="us-east-1", cache=cache
    )
    return bank.sql("SELECT S2L2A FROM t").plan()


def read(endpoint: str, url: str, _: Path) -> object:
    """Read a range, as loaders and ``verify`` do."""
    with closing(Fetcher(Store(url, options(endpoint)), FetchOptions(patience_s=DEADLINE_S))) as fetcher:
        return fetcher.fetch(ByteRange("object", 0, 9))


CALLS: dict[str, Call] = {
    "plan": plan,
    "tables": lambda endpoint, url, cache: catalog(endpoint, url, cache).tables(),
    "history": lambda endpoint, url, cache: catalog(endpoint, url, cache).history("t"),
    "upload": lambda endpoint, url, _: Store(url, options(endpoint)).put("new", b"1"),
    "commit": lambda endpoint, url, cache: catalog(endpoint, url, cache).commit("t", part_of("t", "p", 1)),
    "claim": lambda endpoint, url, _: Store(url, options(endpoint)).claim("new", b"1"),
    "range": read,
}


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make all deadlines short, and nothing else."""
    short = {kind: replace(policy, deadline_s=DEADLINE_S) for kind, policy in retries.OBJECT_POLICIES.items()}
    monkeypatch.setattr(store, "OBJECT_POLICIES", short)
    of_client = replace(retries.CLIENT_POLICY, deadline_s=DEADLINE_S)
    monkeypatch.setattr(object_client, "CLIENT_POLICY", of_client)
    monkeypatch.setattr(object_client, "STALL_TIMEOUT_S", STALL_S)
    monkeypatch.setattr(range_requests, "LAST_TRY_S", STALL_S)


def reported(call: Callable[[], object]) -> tuple[StorageError, float]:
    """Return the error that a call ends in, and after how many seconds."""
    started_s = time.monotonic()
    with pytest.raises(StorageError) as caught:
        call()
    return caught.value, time.monotonic() - started_s


@pytest.fixture
def dead() -> str:
    """The endpoint of a port where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def silent() -> Iterator[str]:
    """The endpoint of a server that takes connections and never answers."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    taken: list[socket.socket] = []

    def take() -> None:
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


class Refusing(ThreadingHTTPServer):
    """A server that gives every request, listings and uploads included, the same answer, and counts them."""

    answer: tuple[int, str, dict[str, str]] = (503, "SlowDown", {})
    n_asked = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class RefusingHandler(BaseHTTPRequestHandler):
    """The handler of one connection to such a server."""

    protocol_version = "HTTP/1.1"
    server: Refusing

    def refuse(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        status, code, headers = self.server.answer
        self.server.n_asked += 1
        body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = refuse  # noqa: N815 - the names are http.server's

    def log_message(self, *_: object) -> None:
        """Say nothing on standard error."""


@pytest.fixture
def refusing() -> Iterator[Refusing]:
    """A server that refuses everything."""
    with Refusing(("127.0.0.1", 0), RefusingHandler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join(10)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultServer]:
    """A server of one object, which does what it is told."""
    folder = tmp_path_factory.mktemp("served") / "bucket"
    folder.mkdir()
    (folder / "object").write_bytes(bytes(100))
    with FaultServer(folder) as running:
        yield running


@pytest.mark.parametrize("name", CALLS)
def test_a_dead_store_is_reported(name, dead, tmp_path):
    error, seconds = reported(lambda: CALLS[name](dead, URL, tmp_path))
    assert error.kind == "unreachable"
    assert seconds < DEADLINE_S + SLACK_S


@pytest.mark.parametrize("name", CALLS)
def test_a_silent_store_is_reported(name, silent, tmp_path):
    error, seconds = reported(lambda: CALLS[name](silent, URL, tmp_path))
    assert error.kind == "unreachable"
    assert seconds < DEADLINE_S + STALL_S + SLACK_S


@pytest.mark.parametrize("name", CALLS)
def test_a_refused_key_is_reported_at_once(name, refusing, tmp_path):
    refusing.answer = (403, "AccessDenied", {})
    error, seconds = reported(lambda: CALLS[name](refusing.endpoint, URL, tmp_path))
    assert error.kind == "denied"
    assert seconds < SLACK_S
    assert 1 <= refusing.n_asked <= 4, "a question or two, each asked once, and one for the reason"


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "1"}], ids=["", "Retry-After"])
@pytest.mark.parametrize("name", CALLS)
def test_a_busy_store_is_reported(name, headers, refusing, tmp_path):
    refusing.answer = (503, "SlowDown", headers)
    error, seconds = reported(lambda: CALLS[name](refusing.endpoint, URL, tmp_path))
    assert error.kind == "throttled"
    assert seconds < DEADLINE_S + SLACK_S
    assert 2 <= refusing.n_asked <= 30


@pytest.mark.parametrize(
    "command",
    [
        ["tables", URL],
        ["show", URL, "t"],
        ["history", URL, "t"],
        ["query", URL, "SELECT 1 FROM t"],
        ["verify", URL, "t"],
        ["bench", "stream", URL, "SELECT S2L2A FROM t"],
        ["ingest", ARCHIVES, URL, "--table", "t"],
    ],
    ids=lambda command: command[0],
)
def test_a_command_reports_a_dead_store(command, dead, monkeypatch, capsys, tmp_path):
    archives = write_archives(tmp_path / "archives", n_samples=1, samples_per_tar=1, seed=1).root
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    words = [str(archives) if word == ARCHIVES else word for word in command]
    started_s = time.monotonic()
    assert main([*words, "--endpoint", dead, "--region", "us-east-1"]) == 1
    assert time.monotonic() - started_s < DEADLINE_S + SLACK_S
    assert "cannot be reached" in capsys.readouterr().err


@pytest.mark.parametrize("faults", [Faults(unavailable=1.0), Faults(unavailable=1.0, retry_after_s=1)])
def test_a_service_that_is_dead_or_busy_is_reported(faults, server, dead):
    server.set(faults)
    policy = replace(POLICY, deadline_s=DEADLINE_S)
    for endpoint, kind in ((server.endpoint, "throttled"), (dead, "unreachable")):
        service = ServiceClient(endpoint, policy=policy)
        error, seconds = reported(lambda service=service: service.get("/bucket/object"))
        assert error.kind == kind
        assert seconds < DEADLINE_S + SLACK_S


def test_an_archive_is_reported(server, dead, monkeypatch):
    policy = {k: replace(p, first_pause_s=0.01, deadline_s=DEADLINE_S) for k, p in files.POLICIES.items()}
    monkeypatch.setattr(files, "POLICIES", policy)
    _, seconds = reported(lambda: SourceFiles(f"{dead}/a").read("b", 0, 9))
    assert seconds < SLACK_S
    server.set(Faults(unavailable=1.0))
    error, seconds = reported(lambda: SourceFiles(f"{server.endpoint}/bucket").read("object", 0, 9))
    assert error.kind == "throttled"
    assert seconds < DEADLINE_S + SLACK_S
    assert server.stats()["counts"]["unavailable"] == files.POLICIES["throttled"].n_tries


def seconds_told(caller: str) -> list[int]:
    """Return the seconds of a row of the table: dead, silent, refused, busy."""
    (row,) = [line for line in (retries.__doc__ or "").splitlines() if line.startswith(caller)]
    return [int(word) for word in row.removeprefix(caller).replace("``", "").split() if word.isdigit()]


def longest_s(policy: retries.RetryPolicy, try_s: float) -> float:
    """Return how long tries that each take ``try_s`` and the longest pauses between them can last."""
    waited_s = 0.0
    for attempt in range(policy.n_tries or 10**6):
        waited_s += try_s
        pause_s = min(policy.max_pause_s, 1.5 * policy.first_pause_s * 2.0 ** min(attempt, 64))
        left_s = policy.deadline_s - waited_s
        if left_s <= 0 or attempt + 1 == policy.n_tries:
            break
        waited_s += min(left_s, pause_s)
    return waited_s


def test_the_table_is_what_the_policies_allow():
    """The other tests make deadlines short: here are the real ones. 5 s more are for the question after how long to ask."""
    silence_s = REAL["silence_s"]
    for caller, of_silence, of_busy in (
        ("planning: ``tb.open``, ``plan``, ``tensorbank tables``,", *REAL["objects"]),
        ("uploads and commits of ``tensorbank ingest``", REAL["client"], REAL["client"]),
    ):
        dead, silent, _, busy = seconds_told(caller)
        assert longest_s(of_silence, 0.0) <= dead
        assert longest_s(of_silence, silence_s) <= silent
        assert longest_s(of_busy, 0.5) + retries.TIMEOUT_S <= busy


# ---------------------------------------------------------------- requests that a store sees


def test_a_broken_store_sees_one_request_a_try_of_a_question(server, monkeypatch):
    monkeypatch.setattr(store, "OBJECT_POLICIES", retries.OBJECT_POLICIES)  # tries end it, not a busy machine
    server.set(Faults(reset=1.0))
    reported(lambda: Store(server.url, server.storage).get("object"))
    assert server.stats()["counts"]["reset"] == retries.OBJECT_POLICIES["unreachable"].n_tries


def test_a_busy_store_sees_one_request_a_try_and_one_that_asks_for_how_long(server, monkeypatch):
    n_asked = []
    once = store.Store._ask_once
    monkeypatch.setattr(
        store.Store,
        "_ask_once",
        lambda self, *given, **named: n_asked.append(1) or once(self, *given, **named),
    )
    server.set(Faults(unavailable=1.0))
    reported(lambda: Store(server.url, server.storage).get("object"))
    assert len(n_asked) >= 2
    assert server.stats()["counts"]["unavailable"] == 2 * len(n_asked)


@pytest.mark.parametrize(("kind", "n_each"), [("reset", 1), ("unavailable", 2)])
def test_a_read_sends_one_request_a_try(kind, n_each, server):
    server.set(Faults(**{kind: 1.0}))
    with closing(
        Fetcher(Store(server.url, server.storage), FetchOptions(patience_s=DEADLINE_S, stall_s=60))
    ) as fetcher:
        reported(lambda: fetcher.fetch(ByteRange("object", 0, 9)))
        n_tries = fetcher.stats.retries + 1
    assert 2 <= n_tries < 20
    assert server.stats()["counts"][kind] == n_each * n_tries


def test_a_late_answer_to_a_service_is_not_asked_for_twice(silent, monkeypatch):
    """The pool of connections has one try of its own only for a connection that was closed while it idled."""
    monkeypatch.setattr("tensorbank.client.http.STALL_TIMEOUT_S", STALL_S)
    error, seconds = reported(lambda: HttpPool().ask("GET", f"{silent}/x", {}))
    assert error.kind == "unreachable"
    assert seconds < STALL_S + SLACK_S
