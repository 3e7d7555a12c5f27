"""Traces: off unless asked for, joined to the caller's, without secrets, and no end of a service waits for a collector."""

from __future__ import annotations

import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from support.server_process import serving
from support.waiting import wait_until

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GIVEN = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


@pytest.fixture
def collector():
    """A collector of OTLP; return its address, and the bodies that it has been sent."""
    bodies: list[bytes] = []

    class Collect(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collect)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", bodies
    server.shutdown()
    server.server_close()


def spans(bodies: list[bytes]) -> list:
    return [
        span
        for body in list(bodies)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def test_each_request_is_a_span_below_the_callers(bank_folder, collector):
    url, bodies = collector
    told = {"TENSORBANK_TRACES": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_BSP_SCHEDULE_DELAY": "50"}
    with serving(str(bank_folder), "--name", "eo", **told) as served:
        answer = served.get("/v1/banks/eo?secret-word=7", headers=GIVEN)
        missing = served.get("/v1/banks/none", headers=GIVEN)
        wait_until(lambda: len(spans(bodies)) >= 3, "the spans arrive: readiness, and two requests")
        line = served.line(request_id=answer.headers["x-request-id"])
    found = {
        next(a.value.string_value for a in span.attributes if a.key == "tensorbank.request_id"): span
        for span in spans(bodies)
    }
    span = found[answer.headers["x-request-id"]]
    assert span.name == "GET /v1/banks/{bank}"
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert answer.headers["traceparent"] == f"00-{TRACE}-{span.span_id.hex()}-01"
    assert line["trace_id"] == TRACE
    status = {a.key: a.value.int_value for a in span.attributes}["http.response.status_code"]
    assert status == 200
    refused = {a.key: a.value.string_value for a in found[missing.headers["x-request-id"]].attributes}
    assert refused["error.type"] == "unknown-bank"
    assert b"secret-word" not in b"".join(bodies)
    assert b"/v1/banks/none" not in b"".join(bodies), "what a caller asks for is no attribute"


def test_nothing_is_sent_unless_asked_for(bank_folder, collector):
    url, bodies = collector
    with serving(
        str(bank_folder), "--name", "eo", OTEL_EXPORTER_OTLP_ENDPOINT=url, OTEL_BSP_SCHEDULE_DELAY="50"
    ) as served:
        assert served.get("/v1/banks", headers=GIVEN).status_code == 200
        assert served.stop() == 0
    assert bodies == []


def test_a_collector_that_hangs_holds_up_nothing(bank_folder):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with serving(
            str(bank_folder), "--name", "eo", TENSORBANK_TRACES="true", OTEL_EXPORTER_OTLP_ENDPOINT=url
        ) as served:
            assert [served.get("/v1/banks").status_code for _ in range(20)] == [200] * 20
            began_s = time.monotonic()
            assert served.stop() == 0
            assert time.monotonic() - began_s < 30
