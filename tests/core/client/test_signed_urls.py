"""Addresses of a plan's shards from a service that is slow, gone, or hangs: one question for all threads, and an end."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

import pytest

from tensorbank import ByteRange, NotFoundError, StorageError
from tensorbank.client import ServedPlan
from tensorbank.client.signed_urls import SignedUrls
from tensorbank.fetch import FetchOptions, range_requests
from tensorbank.fetch.fetcher import Fetcher
from tensorbank.fetch.races import Wanted

N = 40


class Service:
    """A stand-in for a plan at a service: answers when it is let, with addresses or an error."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.plan = ServedPlan("https://service", "b", "p")
        self.error = error
        self.n_asked = 0
        self.asked = threading.Event()
        self.let = threading.Event()

    def addresses(self, keys: Any, page: Any = None) -> dict[str, Any]:
        self.n_asked += 1
        self.asked.set()
        assert self.let.wait(30)
        if self.error is not None:
            raise self.error
        now = datetime.now(UTC)
        return {
            "server_time": now.isoformat(),
            "expires": (now + timedelta(seconds=600)).isoformat(),
            "shards": {f"k{i}": f"https://store/k{i}" for i in range(N)},
            "next": None,
        }


def ask_all(urls: SignedUrls, service: Service) -> list[Any]:
    """Ask from many threads at once, and return what each gets."""

    def one(i: int) -> Any:
        try:
            return urls.of(f"k{i}").url
        except Exception as error:
            return error

    with ThreadPoolExecutor(N) as pool:
        coming = [pool.submit(one, i) for i in range(N)]
        assert service.asked.wait(10)
        until_s = time.monotonic() + 10
        while len(urls._missing) < N:
            assert time.monotonic() < until_s
        service.let.set()
        return [c.result(30) for c in coming]


def test_threads_that_ask_at_once_share_one_answer():
    service = Service()
    assert ask_all(SignedUrls(service), service) == [f"https://store/k{i}" for i in range(N)]
    assert service.n_asked == 1


@pytest.mark.parametrize(
    "error", [StorageError("away", kind="unreachable"), ValueError("x"), SystemExit(1)], ids=repr
)
def test_threads_that_ask_at_once_share_one_error(error):
    service = Service(error)
    urls = SignedUrls(service)
    found = ask_all(urls, service)
    assert all(isinstance(e, Exception) for e in found)
    assert service.n_asked < 5, "not one question after the other"
    service.error = None
    assert urls.of("k3").url == "https://store/k3"
    with pytest.raises(NotFoundError) as caught:
        urls.of("k99")
    assert caught.value.kind == "unknown-shard"


def read_all(plan: ServedPlan) -> None:
    store = plan.open(1.0)
    with closing(Fetcher(store, FetchOptions(patience_s=1.0, n_threads=32))) as fetcher:
        pending = fetcher.submit(64, lambda n: Wanted(ByteRange(f"k{n}", 0, 9), lambda _: None))
        for error in pending.wait(for_all=False).values():
            raise error


@pytest.mark.parametrize("access", ["url", "proxy", "dir"])
@pytest.mark.parametrize("how", ["killed", "hangs"])
def test_a_service_that_is_gone_is_an_error_within_the_stated_time(monkeypatch, access, how):
    monkeypatch.setattr(range_requests, "LAST_TRY_S", 0.5)
    monkeypatch.setattr("tensorbank.client.http.STALL_TIMEOUT_S", 3.0)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        if how == "hangs":
            listening.listen(100)  # connections are taken, and nobody answers
        port = listening.getsockname()[1]
        plan = ServedPlan(service=f"http://127.0.0.1:{port}", bank="b", plan="p", access=access)
        started = time.monotonic()
        with pytest.raises(StorageError) as caught:
            read_all(plan)
        assert caught.value.kind == "unreachable"
        assert time.monotonic() - started < 8


class Recovering(BaseHTTPRequestHandler):
    """A service that has just been started again, behind a gateway: it plans once more before it gives bytes."""

    answers: ClassVar[list[tuple[int, bytes]]] = [
        (504, b"<html>Gateway Time-out</html>"),
        (502, b"<html>Bad Gateway</html>"),
        (409, b'{"code": "not-ready", "detail": "the plan is being made"}'),
        (504, b'{"code": "time-limit", "detail": "not answered within 30 s"}'),
        (206, bytes(9)),
    ]

    def do_GET(self) -> None:
        status, body = self.answers.pop(0)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if status == 206:
            self.send_header("Content-Range", "bytes 0-8/9")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_service_that_recovers_is_waited_for():
    with HTTPServer(("127.0.0.1", 0), Recovering) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            service = f"http://127.0.0.1:{server.server_port}"
            store = ServedPlan(service=service, bank="b", plan="p", access="proxy").open(30.0)
            with closing(Fetcher(store, FetchOptions(patience_s=30.0, n_threads=1))) as fetcher:
                came: list[bytes] = []
                pending = fetcher.submit(
                    1, lambda _: Wanted(ByteRange("k", 0, 9), lambda data: came.append(bytes(data)))
                )
                assert not pending.wait(for_all=True)
        finally:
            server.shutdown()
            serving.join()
    assert came == [bytes(9)]
    assert not Recovering.answers
