"""The files of ``deploy`` are valid by their makers' tools,
and do what they say where that can be run here."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import crossplane
import httpx
import pytest
from ruamel.yaml import YAML

import tensorbank as tb
from support.ports import free_port
from support.programs import program, require_programs
from support.server_process import serving
from tensorbank_server.listening import END_S
from tensorbank_server.settings import load_settings

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
BIN = Path(sys.executable).parent


def run(*command: object) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def compose():
    return YAML(typ="safe").load((DEPLOY / "compose.yaml").read_text())


# ------------------------------------------------------------- Dockerfile


def test_the_dockerfile_is_sound():
    run(BIN / "hadolint", DEPLOY / "Dockerfile")


def test_a_bad_dockerfile_would_be_noticed(tmp_path):
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM python\nRUN cd /tmp && pip install numpy\n")
    assert subprocess.run([BIN / "hadolint", bad], capture_output=True).returncode != 0


def test_images_run_as_nobody_in_particular():
    stages = re.split(r"^FROM ", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)[1:]
    final = {s.split(" AS ")[1].split()[0]: s for s in stages if "ENTRYPOINT" in s}
    assert set(final) == {"ingest", "service", "store", "training"}
    for text in final.values():
        user = re.findall(r"^USER (\d+):(\d+)$", text, re.MULTILINE)
        assert user, "a number, so that Kubernetes can tell that it is not root"
        assert user[-1][0] != "0"
        assert re.search(r"^ENTRYPOINT \[", text, re.MULTILINE), "signals reach the program itself"


def test_what_is_copied_is_there_and_reaches_the_build():
    copied = [
        word
        for line in re.findall(r"^COPY (?!--from)(.*)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
        for word in line.split()[:-1]
    ]
    assert {"pyproject.toml", "constraints.txt", "tensorbank", "server"} <= set(copied)
    allowed = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    for name in copied:
        assert (ROOT / name).exists()
        assert f"!{name}" in allowed


def test_the_service_needs_no_torch():
    """The image has the extra ``server`` and nothing of the loader's."""
    meta = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = " ".join([*meta["dependencies"], *meta["optional-dependencies"]["server"]])
    assert "torch" not in needed
    pinned = {line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    for name in re.findall(r"^[\w.-]+", "\n".join(meta["optional-dependencies"]["server"]), re.MULTILINE):
        assert name.lower().replace("-", "_") in {p.replace("-", "_") for p in pinned}


# ---------------------------------------------------------------- compose


def test_the_compose_file_is_valid():
    run(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml")
    rules = "{extends: default, rules: {line-length: {max: 130}, document-start: disable}}"
    run(BIN / "yamllint", "--strict", "-d", rules, DEPLOY / "compose.yaml")


def test_services_are_closed_but_for_what_they_need(compose):
    for name, service in compose["services"].items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), "whoever opens it to others says so"
    assert "ports" not in compose["services"]["service"], "only the front reaches it"


def test_files_and_targets_of_compose_are_there(compose):
    targets = set(re.findall(r" AS (\S+)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE))
    assert any("build" in service for service in compose["services"].values())
    for service in compose["services"].values():
        if "build" in service:
            assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).exists()
            assert service["build"]["target"] in targets
        for volume in service.get("volumes", []):
            if isinstance(volume, dict):  # of the machine, named in the environment
                assert volume["source"].startswith("${")
                continue
            source = volume.split(":")[0]
            assert (DEPLOY / source).exists() if source.startswith(".") else source in compose["volumes"]
        assert set(service.get("secrets", [])) <= set(compose["secrets"])


def test_running_requests_end_before_the_service_is_killed(compose):
    settings = load_settings(DEPLOY / "server.toml")
    grace_s = float(compose["services"]["service"]["stop_grace_period"].removesuffix("s"))
    assert grace_s > settings.drain_s + settings.finish_s + END_S
    assert settings.finish_s > settings.limits.request_s


def made_secrets(folder: Path) -> dict[str, str]:
    run(sys.executable, DEPLOY / "make_secrets.py", folder)
    return {p.name: p.read_text() for p in folder.iterdir()}


def test_secrets_are_made_once_and_fit(tmp_path, compose):
    folder = tmp_path / "secrets"
    found = [made_secrets(folder) for _ in range(2)]
    assert found[0] == found[1], "a second run changes nothing"
    found = found[0]
    of_compose = {Path(s["file"]).name for s in compose["secrets"].values()}
    assert set(found) - of_compose == {"rate_store"}, "that one is of Kubernetes"
    assert of_compose <= set(found)
    (identity,) = json.loads(found["s3_identities.json"])["identities"]
    (keys,) = identity["credentials"]
    bank = load_settings(DEPLOY / "server.toml").banks["eo"]
    assert keys == {"accessKey": bank.access_key, "secretKey": found["s3_secret"]}
    assert folder.stat().st_mode & 0o077 == 0


def test_the_settings_are_settings():
    settings = load_settings(DEPLOY / "server.toml")
    assert settings.access == "keys"
    assert settings.banks["eo"].url.startswith("s3://")
    assert (settings.metrics_host, settings.metrics_port) == ("0.0.0.0", 9090), (
        "a collector is another container"
    )


# ------------------------------------------------------------------ nginx


def test_the_front_is_nginx_configuration():
    parsed = crossplane.parse(str(DEPLOY / "nginx.conf"), strict=True, catch_errors=True)
    assert parsed["status"] == "ok", parsed["errors"]


def test_the_front_takes_what_the_service_takes():
    text = (DEPLOY / "nginx.conf").read_text()
    settings = load_settings(DEPLOY / "server.toml")
    assert f"client_max_body_size {settings.limits.body_bytes >> 10}k;" in text
    read_s = float(re.search(r"proxy_read_timeout (\d+)s", text)[1])
    assert read_s > max(settings.limits.request_s, settings.limits.plan_s, settings.limits.sync_s)


@contextmanager
def fronted(service: str, folder: Path, **changes: str) -> Iterator[str]:
    """Run nginx with the front's configuration before a service; ``changes`` are values of directives."""
    require_programs("nginx-light", "nginx")
    nginx = program("nginx")
    port = free_port()
    text = (DEPLOY / "nginx.conf").read_text().replace(" /tmp/", f" {folder}/")
    changed = {"listen": f"127.0.0.1:{port} default_server", "pid": f"{folder}/nginx.pid", **changes}
    for name, value in changed.items():
        text, n = re.subn(rf"^(\s*){name} [^;]*;", rf"\g<1>{name} {value};", text, flags=re.MULTILINE)
        assert n == 1, name
    text = text.replace("server service:8000;", f"server {service.removeprefix('http://')};")
    text = text.replace("/dev/stdout", f"{folder}/access.log")
    conf = folder / "nginx.conf"
    conf.write_text(text)
    run(nginx, "-t", "-q", "-c", conf)
    log = (folder / "error.log").open("w")
    process = subprocess.Popen([nginx, "-c", conf, "-g", "daemon off; master_process off;"], stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline_s = time.monotonic() + 20
        while True:
            try:
                httpx.get(f"{url}/healthz", timeout=5)
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline_s, (folder / "error.log").read_text()
                time.sleep(0.02)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=20)
        log.close()


@pytest.fixture(scope="module")
def service(make_archives, tmp_path_factory):
    """A service over a bank of a few samples."""
    from tensorbank_indexer import IngestOptions, ingest, open_source

    archive = make_archives(
        "terramesh", "--samples", "20", "--per-tar", "10", "--subset", "both", "--checksums"
    )
    folder = tmp_path_factory.mktemp("fronted") / "bank"
    bank = tb.create(folder)
    ingest(open_source(str(archive[0])), bank, "terramesh", IngestOptions(n_workers=1, samples_per_shard=8))
    with serving(str(folder), "--name", "eo", "--trusted-proxies", "127.0.0.1") as served:
        yield served, bank


def check_problem(answer: httpx.Response, status: int, code: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found = answer.json()
    assert (found["status"], found["code"]) == (status, code)


def test_a_bank_is_opened_and_streamed_behind_the_front(service, tmp_path):
    served, bank = service
    with fronted(served.url, tmp_path) as url:
        remote = tb.open(url)
        assert remote.tables() == ["terramesh"]
        query = remote.query("terramesh").select("sample_id", "S2L2A[B08]")
        mine = {i for batch in query.dataloader(batch_size=5) for i in batch["sample_id"]}
        assert mine == set(bank.sql("SELECT sample_id FROM terramesh").arrow()["sample_id"].to_pylist())
    assert "tensorbank" not in (tmp_path / "access.log").read_text().lower(), "no key and no query"


def test_slow_headers_and_bodies_end(service, tmp_path):
    served, _ = service
    with fronted(served.url, tmp_path, client_header_timeout="1s", client_body_timeout="1s") as url:
        host, port = url.removeprefix("http://").split(":")
        for begun in (
            b"GET /v1/config HTTP/1.1\r\nHost: localhost\r\nX-Slow",
            b"POST /v1/banks/eo/plans HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20\r\n\r\n{",
        ):
            with socket.create_connection((host, int(port)), timeout=15) as slow:
                slow.sendall(begun)
                started_s = time.monotonic()
                try:
                    while slow.recv(4096):
                        pass
                except ConnectionResetError:
                    pass
                assert time.monotonic() - started_s < 10, "the connection was closed"


def test_the_front_refuses_as_the_service_does(service, tmp_path):
    served, _ = service
    with fronted(served.url, tmp_path) as url:
        large = httpx.post(f"{url}/v1/banks/eo/plans", content=b"x" * 70_000)
        check_problem(large, 413, "too-large")
        check_problem(httpx.get(f"{url}/v1/config", headers={"X": "x" * 70_000}), 431, "headers-too-large")
        check_problem(httpx.get(f"{url}/{'x' * 60_000}"), 414, "address-too-long")
        check_problem(httpx.get(f"{url}/{'x' * 7_000}"), 414, "address-too-long")
        check_problem(httpx.request("TRACE", f"{url}/v1/config"), 405, "method-not-allowed")
        for hidden in ("/metrics", "/readyz"):
            check_problem(httpx.get(url + hidden), 404, "not-found")
        host, port = url.removeprefix("http://").split(":")
        for odd in (
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
        ):
            with socket.create_connection((host, int(port)), timeout=15) as connection:
                connection.sendall(odd)
                told = b"".join(iter(lambda: connection.recv(4096), b""))
            assert b"application/problem+json" in told, told
        check_problem(httpx.get(f"{url}/v1/banks/none"), 404, "unknown-bank")


def test_too_many_requests_are_told_when_to_come_again(service, tmp_path):
    served, _ = service
    limits = {
        "limit_req_zone": "$binary_remote_addr zone=requests:10m rate=1r/s",
        "limit_req": "zone=requests burst=5 nodelay",
    }
    with fronted(served.url, tmp_path, **limits) as url, httpx.Client() as client:
        answers = [client.get(f"{url}/healthz") for _ in range(20)]
    assert answers[0].status_code == 200
    check_problem(answers[-1], 429, "rate-limit")
    assert answers[-1].headers["retry-after"] == "1"


def test_a_service_that_is_gone_is_a_problem(tmp_path):
    with fronted(f"http://127.0.0.1:{free_port()}", tmp_path) as url:
        answer = httpx.get(f"{url}/v1/banks")
        check_problem(answer, 503, "overloaded")
        assert answer.headers["retry-after"] == "5"


def test_the_command_line_works_where_only_the_service_is_installed():
    """The image has no other rooms: their commands say what they lack."""
    code = (
        "import sys\n"
        "for name in ('fsspec', 's3fs', 'aiohttp', 'zarr', 'torch'):\n"
        "    sys.modules[name] = None\n"
        "from tensorbank.cli.app import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)

    assert command("serve", "--help").returncode == 0
    assert command("keys", "--help").returncode == 0
    refused = command("ingest", "a", "b", "--table", "t")
    assert (refused.returncode, "needs fsspec" in refused.stderr) == (2, True), refused.stderr
