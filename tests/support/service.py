"""Questions that tests ask a running service, and the waiting for its plans."""

from __future__ import annotations

import re
import socket
import time
from pathlib import Path

import httpx

from support.server_process import Served

QUERY = {
    "table": "terramesh",
    "filter": "S2L2A.B08.mean > 500",
    "modalities": ["S2L2A", "S1GRD"],
    "bands": {"S2L2A": ["B08", "B02"]},
}

MADE_S = 120.0


def check_problem(answer: httpx.Response, status: int, code: str) -> dict:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-error-code"] == code
    document = answer.json()
    assert document["status"] == status
    assert document["code"] == code
    assert document["type"].endswith(code)
    assert document["title"]
    assert document["detail"]
    assert document["instance"].endswith(answer.headers["x-request-id"])
    return document


def half_sent(url: str) -> socket.socket:
    """A request whose body never comes."""
    host, port = url.removeprefix("http://").split(":")
    half = socket.create_connection((host, int(port)), timeout=30)
    half.sendall(
        b"POST /v1/banks/bank/plans HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 10\r\n\r\n{"
    )
    return half


def children(pid: int) -> list[int]:
    return [int(p) for t in Path(f"/proc/{pid}/task").iterdir() for p in (t / "children").read_text().split()]


def n_active(served: Served) -> int:
    found = re.search(r"^http_server_active_requests (\S+)$", served.get("/metrics").text, re.MULTILINE)
    assert found is not None
    return int(float(found[1]))


def make(served, head=None, **changes: object):
    """A plan that is made, waited for as every client must: the service answers 202 where it takes longer."""
    answer = served.post("/v1/banks/eo/plans", json=QUERY | changes, headers=head)
    assert answer.status_code in (200, 201, 202), answer.text
    deadline = time.monotonic() + MADE_S
    while answer.json()["state"] == "submitted":
        assert time.monotonic() < deadline, answer.text
        time.sleep(min(0.2, float(answer.headers["retry-after"])))
        answer = served.get(f"/v1/plans/{answer.json()['id']}", headers=head)
    assert answer.json()["state"] == "completed", answer.text
    return answer.json()
