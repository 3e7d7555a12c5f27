"""Every request passes keys, limits, headers, problems and logs; and the process ends well."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from support.server_process import serving
from support.service import check_problem, children, half_sent
from support.waiting import wait_until
from tensorbank import FormatError, InvalidInputError
from tensorbank_server import Settings, create_app
from tensorbank_server.access.keys import KeyFile
from tensorbank_server.access.rates import Concurrency, Rates
from tensorbank_server.http.problems import Problem
from tensorbank_server.monitoring.logs import redacted

# -------------------------------------------------------- problems


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing/here", 404, "not-found"),
        ("GET", "/v1/banks/", 404, "not-found"),
        ("GET", "/v1/banks/other", 404, "unknown-bank"),
        ("GET", "/v1/banks/eo/tables/other", 404, "unknown-table"),
        ("GET", "/v1/banks/eo/tables/..%2f..%2fetc", 404, "not-found"),
        ("GET", "/v1/banks/eo/tables/a'b", 404, "unknown-table"),
        ("GET", "/v1/banks/eo/tables/terramesh?snapshot=99", 404, "unknown-snapshot"),
        ("GET", "/v1/banks/eo/tables/terramesh?snapshot=-1", 400, "invalid-input"),
        ("GET", "/v1/banks/eo/tables/terramesh?snapshot=", 422, "invalid-request"),
        ("GET", "/v1/banks/eo/tables/terramesh?snapshot=x", 404, "unknown-tag"),
        ("GET", "/v1/banks/eo/tables/terramesh/samples/nobody", 404, "unknown-sample"),
        ("GET", "/v1/banks/eo/tables/terramesh/samples/...", 422, "invalid-request"),
        ("GET", "/v1/banks/eo/tables/terramesh/samples/%00", 422, "invalid-request"),
        ("DELETE", "/v1/banks", 405, "method-not-allowed"),
        ("PUT", "/v1/config", 405, "method-not-allowed"),
    ],
)
def test_every_error_is_a_problem(service, method, path, status, code):
    check_problem(service.client.request(method, path), status, code)


def test_a_validation_problem_points_at_what_is_wrong(service):
    found = check_problem(service.get("/v1/banks/eo/tables/terramesh/rows?length=0"), 422, "invalid-request")
    assert found["errors"][0]["pointer"] == "/query/length"


def test_no_problem_tells_of_the_inside(service, bank_folder):
    for path in ("/v1/banks/eo/tables/other", "/v1/banks/eo/tables/terramesh?snapshot=99"):
        text = service.get(path).text
        assert str(bank_folder) not in text
        assert "delta" not in text.lower()


def test_head_is_get_without_a_body(service, table_url):
    whole, head = service.get(f"{table_url}/schema"), service.client.head(f"{table_url}/schema")
    assert (head.status_code, head.content) == (200, b"")
    for name in ("etag", "content-type", "content-length"):
        assert head.headers[name] == whole.headers[name]


# --------------------------------------------------------- headers


def test_every_answer_has_headers_of_security(service):
    for path in ("/healthz", "/v1/banks", "/nothing"):
        headers = service.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "server" not in headers
        assert "access-control-allow-origin" not in headers


def test_request_number_and_trace_are_kept(service):
    trace = "0af7651916cd43dd8448eb211c80319c"
    given = {"X-Request-Id": "run-7.1", "traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    headers = service.get("/v1/banks", headers=given).headers
    assert headers["x-request-id"] == "run-7.1"
    assert re.fullmatch(f"00-{trace}-[0-9a-f]{{16}}-01", headers["traceparent"])
    line = service.line(request_id="run-7.1")
    assert line["trace_id"] == trace
    unsampled = service.get("/v1/banks", headers={"traceparent": f"00-{trace}-b7ad6b7169203331-00"}).headers
    assert unsampled["traceparent"].endswith("-00"), "nobody is told that a trace is recorded which is not"
    assert service.get("/v1/banks").headers["traceparent"].endswith("-00")
    assert line["status"] == 200
    assert line["event"] == "GET /v1/banks"
    for bad in ("a b", "x" * 65, "é"):
        headers = service.get("/v1/banks", headers={"X-Request-Id": bad.encode()}).headers
        assert re.fullmatch("[0-9a-f]{16}", headers["x-request-id"])


def test_other_names_of_the_host_are_refused(service):
    check_problem(service.get("/v1/banks", headers={"Host": "evil.example"}), 400, "unknown-host")
    assert service.get("/healthz", headers={"Host": "10.0.0.7"}).status_code == 200


def test_metrics_are_those_of_prometheus(service):
    service.get("/v1/banks")
    text = service.get("/metrics").text
    assert (
        'http_server_request_duration_seconds_count{http_request_method="GET",http_response_status_code="200"'
        in text
    )
    assert "tensorbank_build_info" in text


# ------------------------------------------------------------ limits


def test_a_large_body_is_refused(service):
    check_problem(service.post("/v1/banks", content=b" " * 100_000), 413, "too-large")


@pytest.fixture
def slow_clock():
    now = [0.0]
    return now, lambda: now[0]


def test_rates_refill(slow_clock):
    now, clock = slow_clock
    rates = Rates("requests", 60, clock)
    assert [rates.spend("a").remaining for _ in range(60)] == list(range(59, -1, -1))
    with pytest.raises(Problem) as refused:
        rates.spend("a")
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (429, "1")
    assert rates.spend("b").remaining == 59, "others have their own"
    now[0] = 2.5
    assert [rates.spend("a").remaining for _ in range(2)] == [1, 0]
    with pytest.raises(Problem):
        rates.spend("a")


def test_concurrency_counts_per_caller_and_in_all():
    slots = Concurrency(3, 2)
    with slots.slot("a"), slots.slot("a"):
        with pytest.raises(Problem) as refused, slots.slot("a"):
            pass
        assert refused.value.status == 429
        with slots.slot("b"), pytest.raises(Problem) as refused, slots.slot("c"):
            pass
        assert refused.value.status == 503
    assert slots.n_running == 0
    with slots.slot("a"), slots.slot("a"):
        pass


def test_who_asks_too_often_is_told_when_to_come_again(bank_folder):
    with serving(str(bank_folder), TENSORBANK_LIMITS__REQUESTS_PER_MINUTE="5") as served:
        answers = [served.get("/v1/banks") for _ in range(7)]
        assert [a.status_code for a in answers] == [200] * 5 + [429] * 2
        assert answers[0].headers["ratelimit"].startswith('"requests";r=4')
        check_problem(answers[-1], 429, "rate-limit")
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 12
        assert served.get("/healthz").status_code == 200, "probes are always answered"


def test_a_request_that_never_ends_is_ended(bank_folder):
    with serving(str(bank_folder), TENSORBANK_LIMITS__BODY_S="1") as served:
        with half_sent(served.url) as half:
            head = half.recv(4096)
            assert b" 408 " in head.split(b"\r\n")[0]
            assert b"x-error-code: too-slow" in head
            assert half.recv(4096) == b"" or half.recv(4096) == b"", "the connection ends, too"
        assert served.get("/v1/banks").status_code == 200


def test_too_many_at_once_are_told_to_come_again(bank_folder):
    with serving(str(bank_folder), TENSORBANK_LIMITS__MAX_OPEN_PER_KEY="2") as served:
        held: list[socket.socket] = []
        deadline = time.monotonic() + 20
        while (answer := served.get("/v1/banks")).status_code == 200:
            assert time.monotonic() < deadline
            held.append(half_sent(served.url))  # refused itself if it comes while the question is answered
        check_problem(answer, 429, "too-many-at-once")
        assert answer.headers["retry-after"] == "1"
        assert served.get("/healthz").status_code == 200
        for half in held:
            half.close()
        while served.get("/v1/banks").status_code != 200:
            assert time.monotonic() < deadline, "places are not given back"


# -------------------------------------------------------------- keys


def test_keys_open_what_their_scopes_say(bank_folder, tmp_path):
    keys = KeyFile(tmp_path / "keys.json")
    reader, text = keys.create("reader", ["read"])
    _, elsewhere = keys.create("elsewhere", ["read"], banks=["another"])
    _, gone = keys.create("gone", lifetime=timedelta(microseconds=1))
    _, admin = keys.create("admin", ["admin"])
    options = ("--name", "eo", "--keys", str(keys.path), "--host", "127.0.0.1")
    with serving(str(bank_folder), *options, key=text) as served:
        assert served.get("/v1/banks").json()["banks"][0]["name"] == "eo"
        check_problem(httpx.get(f"{served.url}/v1/banks"), 401, "unauthorized")
        for bad in (
            "",
            "Bearer",
            "Bearer x",
            f"Basic {text}",
            f"Bearer {text}x",
            f"Bearer {text[:-1]}",
            "Bearer " + "a" * 9000,
        ):
            answer = httpx.get(f"{served.url}/v1/banks", headers={"Authorization": bad})
            check_problem(answer, 401, "unauthorized")
            assert answer.headers["www-authenticate"].startswith("Bearer")
        as_gone = httpx.get(f"{served.url}/v1/banks", headers={"Authorization": f"Bearer {gone}"})
        check_problem(as_gone, 401, "unauthorized")
        other = {"Authorization": f"Bearer {elsewhere}"}
        assert httpx.get(f"{served.url}/v1/banks", headers=other).json() == {"banks": []}
        hidden = httpx.get(f"{served.url}/v1/banks/eo", headers=other)
        absent = httpx.get(f"{served.url}/v1/banks/no", headers=other)
        drop = ("instance",)
        assert {k: v for k, v in hidden.json().items() if k not in drop} == {
            k: v for k, v in absent.json().items() if k not in drop
        }
        check_problem(served.get("/metrics"), 404, "not-found")
        assert (
            httpx.get(f"{served.url}/metrics", headers={"Authorization": f"Bearer {admin}"}).status_code
            == 200
        )
        keys.revoke(reader.id)
        wait_until(lambda: served.get("/v1/banks").status_code != 200, "a revoked key still opens", 5)
        check_problem(served.get("/v1/banks"), 401, "unauthorized")
        for secret in (text, elsewhere, gone, text[-43:]):
            assert secret not in served.log.read_text()


def test_no_shared_cache_keeps_what_a_key_opened(bank_folder, tmp_path, bank):
    keys = KeyFile(tmp_path / "keys.json")
    _, text = keys.create("me", ["read", "plan", "proxy", "admin"])
    sample_id = (
        bank.sql("SELECT sample_id FROM terramesh WHERE DEM IS NOT NULL").arrow()["sample_id"][0].as_py()
    )
    table = "/v1/banks/eo/tables/terramesh"
    addresses = [
        "/v1/banks",
        "/v1/banks/eo",
        "/v1/banks/eo/tables",
        "/v1/config",
        "/metrics",
        *(f"{table}{tail}" for tail in ("", "/schema", "/snapshots", "/rows", "/size", "/density")),
        *(f"{table}{tail}?snapshot=1" for tail in ("", "/schema", "/rows", "/queryables")),
        *(
            f"{table}/samples/{sample_id}{tail}"
            for tail in ("", "/DEM.npy", "/DEM.tif", "/zarr/zarr.json", "/statistics")
        ),
        f"{table}/samples/{sample_id}/preview.png?snapshot=1",
        *(
            "/stac",
            "/stac/conformance",
            "/stac/collections",
            "/stac/search",
            "/stac/collections/eo.terramesh",
        ),
        "/v1/banks/none",
        f"{table}/samples/nobody",
        "/nothing",
    ]
    with serving(str(bank_folder), "--name", "eo", "--keys", str(keys.path), key=text) as served:
        for address in addresses:
            answer = served.get(address)
            assert answer.status_code in (200, 404), (address, answer.text)
            control = answer.headers["cache-control"]
            assert "private" in control or "no-store" in control, (address, control)
            assert "public" not in control, (address, control)
            assert "authorization" in answer.headers["vary"].lower(), address
            assert httpx.get(f"{served.url}{address}").status_code == 401, address
        fixed = served.get(f"{table}/schema?snapshot=1")
        assert "immutable" in fixed.headers["cache-control"]
        again = served.get(f"{table}/schema?snapshot=1", headers={"If-None-Match": fixed.headers["etag"]})
        assert again.status_code == 304
        assert "private" in again.headers["cache-control"]


def test_a_key_is_kept_as_a_hash_and_readable_by_its_owner(tmp_path):
    keys = KeyFile(tmp_path / "deep" / "keys.json")
    key, text = keys.create("me")
    assert text[-43:] not in keys.path.read_text()
    assert keys.path.stat().st_mode & 0o777 == 0o600
    principal = KeyFile(keys.path).find(text)
    assert principal is not None
    assert principal.id == f"key:{key.id}"
    assert principal.may("read")
    assert not principal.may("sql")


def test_many_makers_lose_no_key(tmp_path):
    path = tmp_path / "keys.json"
    threads = [threading.Thread(target=KeyFile(path).create, args=(f"k{i}",)) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {k.name for k in KeyFile(path).list()} == {f"k{i}" for i in range(20)}


def test_a_damaged_file_opens_nothing(tmp_path):
    path = tmp_path / "keys.json"
    _, text = KeyFile(path).create("me")
    path.write_text("{")
    with pytest.raises(FormatError):
        KeyFile(path).find(text)


@pytest.mark.parametrize(
    "change",
    [
        {"banks": "eo"},
        {"banks": {"eo": 1}},
        {"banks": [5]},
        {"banks": 0},
        {"scopes": "read"},
        {"scopes": {"read": 1}},
        {"scopes": None},
        {"expires": 5},
        {"expires": "2999-01-01"},
        {"expires": "2999-01-01T00:00:00"},
        {"expires": "never"},
        {"revoked": False},
        {"id": 5},
        {"sha256": None},
        {"role": "admin"},
    ],
)
def test_a_key_of_another_form_opens_nothing_and_costs_no_other(tmp_path, change):
    keys = KeyFile(tmp_path / "keys.json")
    _, bad = keys.create("bad")
    _, good = keys.create("good")
    raw = json.loads(keys.path.read_text())
    raw["keys"][0] |= change
    keys.path.write_text(json.dumps(raw))
    fresh = KeyFile(keys.path)
    assert fresh.find(bad) is None
    assert fresh.find(good) is not None
    with pytest.raises(FormatError):  # who edits the file is told
        fresh.list()


def test_a_file_of_keys_that_breaks_opens_nothing_until_it_is_mended(bank_folder, tmp_path):
    keys = KeyFile(tmp_path / "keys.json")
    _, text = keys.create("me")
    whole = keys.path.read_text()
    with serving(str(bank_folder), "--keys", str(keys.path), key=text) as served:
        assert served.get("/v1/banks").status_code == 200
        for broken in ("{", "[]", "[" * 5_000, '{"keys": 5}'):
            keys.path.write_text(broken)
            deadline = time.monotonic() + 10
            while (answer := served.get("/v1/banks")).status_code == 200:
                assert time.monotonic() < deadline
            assert answer.status_code in (401, 503)
        keys.path.write_text(whole)
        while served.get("/v1/banks").status_code != 200:
            assert time.monotonic() < deadline + 10


def test_scopes_and_lifetimes_are_checked(tmp_path):
    keys = KeyFile(tmp_path / "keys.json")
    with pytest.raises(InvalidInputError, match="Did you mean 'plan'"):
        keys.create("x", ["plans"])
    with pytest.raises(InvalidInputError):
        keys.create("x", lifetime=timedelta(0))


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tensorbank", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
    )


def test_keys_by_command(tmp_path):
    file = ("--file", str(tmp_path / "keys.json"))
    made = json.loads(
        command("keys", "create", "ann", *file, "--expires", "90d", "--scope", "read", "--json").stdout
    )
    principal = KeyFile(tmp_path / "keys.json").find(made["key"])
    assert principal is not None
    assert principal.scopes == {"read"}
    listed = command("keys", "list", *file)
    assert made["id"] in listed.stdout
    assert "ann" in listed.stdout
    assert made["key"][-43:] not in listed.stdout
    assert "revoked" in command("keys", "revoke", made["id"], *file).stdout
    assert KeyFile(tmp_path / "keys.json").find(made["key"]) is None
    assert command("keys", "revoke", "nobody", *file).returncode == 2
    assert command("keys", "create", "x", *file, "--expires", "soon").returncode == 2


# ------------------------------------------------------------- start


def test_others_are_served_only_with_keys_or_on_purpose(bank_folder, tmp_path):
    refused = command("serve", str(bank_folder), "--host", "0.0.0.0", "--port", "0")
    assert refused.returncode == 2
    assert "keys create" in refused.stderr
    assert "--insecure" in refused.stderr
    with serving(str(bank_folder), "--host", "0.0.0.0", "--insecure") as served:
        assert served.get("/v1/banks").status_code == 200
    with pytest.raises(InvalidInputError, match="access is by keys"):
        create_app(Settings())


def test_a_wrong_setting_is_named(bank_folder, tmp_path):
    wrong = command("serve", str(bank_folder), TENSORBANK_LIMITZ="1")
    assert wrong.returncode == 2
    assert "TENSORBANK_LIMITS" in wrong.stderr
    wrong = command("serve", str(bank_folder), TENSORBANK_N_WORKERS="none")
    assert "n_workers" in wrong.stderr
    file = tmp_path / "settings.toml"
    file.write_text("[banks.eo]\nurl = 'x'\nuri = 'y'\n")
    assert "banks.eo.uri" in command("serve", "--settings", str(file)).stderr


def test_settings_of_a_file_and_of_the_environment(bank_folder, tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text(
        f"n_workers = 1\n[banks.one]\nurl = '{bank_folder}'\ntitle = 'One'\n[limits]\npage_rows = 7\n"
    )
    with serving("--settings", str(file), TENSORBANK_LIMITS__PAGE_ROWS="9") as served:
        assert served.get("/v1/banks").json()["banks"][0]["title"] == "One"
        assert served.get("/v1/config").json()["limits"]["page_rows"] == 9
        assert served.get("/readyz").json()["workers"] == 1


def test_an_end_lets_running_requests_end(bank_folder):
    with serving(str(bank_folder), TENSORBANK_DRAIN_S="1") as served:
        connection = httpx.Client(base_url=served.url, timeout=30)
        assert connection.get("/readyz").status_code == 200
        served.process.terminate()
        wait_until(lambda: connection.get("/readyz").status_code != 200, "the service still says ready")
        assert connection.get("/v1/banks").status_code == 200, (
            "requests are answered while balancers find out"
        )
        connection.close()
        assert served.process.wait(timeout=20) == 0


def test_workers_end_with_a_killed_service(bank_folder):
    with serving(str(bank_folder)) as served:
        workers = children(served.process.pid)
        assert workers
        served.process.kill()
        served.process.wait()
        wait_until(
            lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), "workers outlive the service"
        )


def test_a_worker_that_was_killed_while_idle_is_nobodys_fault(bank_folder):
    with serving(str(bank_folder), "--name", "eo") as served:
        size = "/v1/banks/eo/tables/terramesh/size"
        assert served.get(size).status_code == 200
        for pid in children(served.process.pid):
            os.kill(pid, signal.SIGKILL)
        answer = served.get(f"{size}?snapshot=1")
        if answer.status_code != 200:  # none was ready in time, or its end was not known yet
            check_problem(answer, 503, answer.json()["code"])
            assert answer.json()["code"] in ("overloaded", "worker-ended")
        assert served.get("/v1/banks/eo/tables/terramesh/schema").status_code == 200
        wait_until(lambda: served.get(size).status_code == 200, "the worker is not replaced")
        assert 'restarts_total{reason="died"}' in served.get("/metrics").text


def test_the_audit_log_is_the_owners(bank_folder, tmp_path):
    audit = tmp_path / "audit.jsonl"
    with serving(str(bank_folder), TENSORBANK_AUDIT_FILE=str(audit)) as served:
        served.get("/v1/banks")
    assert audit.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "text",
    [
        "https://h/b/k?X-Amz-Credential=AKIASECRET&X-Amz-Signature=SECRET",
        "Authorization: Bearer SECRET.SECRET",
        "key tb_live_0123456789ab_SECRETSECRETSECRETSECRETSECRETSECRETSECRET0",
        '{"secret_key": "SECRET"}',
    ],
)
def test_secrets_are_cut_from_logs(text):
    assert "SECRET" not in redacted(text)
