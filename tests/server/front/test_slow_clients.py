"""Clients that send or read slowly, or not at all: they hold a connection for a while, and nobody else up."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from support.server_process import Served
from support.service import half_sent, n_active
from support.waiting import wait_until

N_HALF, N_DEAF = 64, 70


def connected(url: str, request: bytes, receive_bytes: int | None = None) -> socket.socket:
    """A connection that has sent some bytes, with a small window if one is asked for."""
    host, port = url.removeprefix("http://").split(":")
    connection = socket.socket()
    connection.settimeout(30)
    if receive_bytes is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    connection.connect((host, int(port)))
    connection.sendall(request)
    return connection


@contextmanager
def deaf_readers(served: Served, path: str, n: int) -> Iterator[list[socket.socket]]:
    """Open clients that ask for a large answer and do not read it."""
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    with ExitStack() as stack:
        yield [stack.enter_context(connected(served.url, request, 4_096)) for _ in range(n)]


@pytest.fixture(scope="module")
def large(bank, table_url) -> str:
    """Return the address of an answer of some megabytes, more than sockets hold."""
    (sample_id, *_) = (
        bank.sql("SELECT sample_id FROM terramesh WHERE S2L2A IS NOT NULL").arrow()["sample_id"].to_pylist()
    )
    return f"{table_url}/samples/{sample_id}/tensors.npz"


@pytest.mark.thorough
def test_neither_half_requests_nor_deaf_readers_hold_a_place(serving_of, bank_folder, large):
    limits = {"TENSORBANK_LIMITS__SEND_STALL_S": "2", "TENSORBANK_LIMITS__BODY_S": "10"}
    with serving_of(str(bank_folder), **limits) as served, ExitStack() as stack:
        assert len(served.get(large).content) > 1 << 20
        halves = [stack.enter_context(half_sent(served.url)) for _ in range(N_HALF)]
        stack.enter_context(deaf_readers(served, large, N_DEAF))
        wait_until(lambda: n_active(served) > N_HALF, "the slow clients have not begun")
        statuses = [served.get("/v1/banks/eo/tables/terramesh/schema").status_code for _ in range(20)]
        posted = served.post("/stac/search", json={"limit": 1})
        assert statuses == [200] * 20
        assert posted.status_code == 200
        wait_until(lambda: n_active(served) <= N_HALF + 2, "deaf readers are not dropped")
        for half in halves:
            assert b" 408 " in half.recv(4_096).split(b"\r\n")[0]
        wait_until(lambda: n_active(served) <= 2, "requests stay open")


def test_a_slow_reader_gets_everything(serving_of, bank_folder, large):
    with serving_of(str(bank_folder), TENSORBANK_LIMITS__SEND_STALL_S="2") as served:
        whole = served.get(large).content
        request = f"GET {large} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        with connected(served.url, request, 65_536) as connection:
            received, began_s = bytearray(), time.monotonic()
            while part := connection.recv(65_536):
                received += part
                time.sleep(0.05)  # slower than the limit as a whole, and never still
        assert bytes(received).partition(b"\r\n\r\n")[2] == whole
        assert time.monotonic() - began_s > 0.5


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (b"GET / HTTP\r\n\r\n", 400, "bad-request"),
        (b"\x00\x01\x02\r\n\r\n", 400, "bad-request"),
        (b"GET /v1/banks HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "bad-request"),
        (b"GET /v1/banks HTTP/1.1\r\n\r\n", 400, "bad-request"),
        (b"GET /v1/banks HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 70_000 + b"\r\n\r\n", 431, "headers-too-large"),
        (b"GET /" + b"a" * 3_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414, "address-too-long"),
        (b"GET /v1/banks?" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414, "address-too-long"),
        (b"GET /v1/banks?" + b"&" * 100 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "bad-request"),
        (
            b"POST /stac/search HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n",
            501,
            "not-implemented",
        ),
        (
            b"POST /stac/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + b"9" * 19 + b"\r\n\r\n",
            413,
            "too-large",
        ),
        (
            b"POST /stac/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + b"9" * 5_000 + b"\r\n\r\n",
            400,
            "bad-request",
        ),
    ],
)  # fmt: skip
def test_what_is_no_request_is_told_so_by_a_problem(service, sent, status, code):
    with connected(service.url, sent) as connection:
        received = bytearray()
        while part := connection.recv(65_536):
            received += part
            head, _, body = bytes(received).partition(b"\r\n\r\n")
            if body.endswith(b"}"):
                break
    assert head.split(b" ", 2)[1] == str(status).encode(), head
    assert b"content-type: application/problem+json" in head.lower()
    document = json.loads(body)
    assert (document["status"], document["code"]) == (status, code)


def test_headers_that_do_not_come_are_not_waited_for(serving_of, bank_folder):
    with (
        serving_of(str(bank_folder), TENSORBANK_LIMITS__HEADER_S="0.3") as served,
        connected(served.url, b"GET /v1/banks HTT") as connection,
    ):
        assert b" 408 " in connection.recv(4_096).split(b"\r\n")[0]
        assert served.get("/v1/banks").status_code == 200
