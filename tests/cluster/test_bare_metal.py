"""One machine without a container: the commands of the units that `make install` leaves, started, stopped, and started again."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

import tensorbank as tb
from support.units import Unit, running
from tensorbank_server.settings import load_settings

ROOT = Path(__file__).parents[2]
STORE, SERVICE, INGEST = UNITS = (
    "tensorbank-store.service",
    "tensorbank-service.service",
    "tensorbank-ingest.service",
)
TRAIN = ROOT / "deploy" / "training" / "train.py"
QUERY = ("--table", "terramesh", "--where", "S2L2A IS NOT NULL", "--select", "S2L2A[B04,B08]")
AGAIN = 75
pytestmark = [pytest.mark.slow, pytest.mark.timeout(580)]


def make(target: str, prefix: Path) -> str:
    options = {
        "PREFIX": str(prefix),
        "UNITS": str(prefix / "units"),
        "OWNER": getpass.getuser(),
        "VENV": str(Path(sys.prefix)),
    }
    done = subprocess.run(
        ["make", "--no-print-directory", target],
        cwd=ROOT,
        env=os.environ | options,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def content(prefix: Path) -> dict[str, tuple[int, str]]:
    """Return mode and hash of every file of an installation."""
    files = [p for p in sorted(prefix.rglob("*")) if p.is_file() and not p.is_relative_to(prefix / "data")]
    return {
        p.relative_to(prefix).as_posix(): (p.stat().st_mode, hashlib.sha256(p.read_bytes()).hexdigest())
        for p in files
    }


def free_ports(n: int) -> list[int]:
    """Return ports below 10,000 more of which are free, too: SeaweedFS takes each a second time for its own protocol."""
    found: list[int] = []
    for port in range(18_000, 28_000):
        with ExitStack() as held:
            try:
                for each in (port, port + 10_000):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", each))
            except OSError:
                continue
        found.append(port)
        if len(found) == n:
            return found
    raise AssertionError("no free ports")


@pytest.fixture(scope="module")
def archive(make_archives) -> Path:
    return make_archives(
        "terramesh", "--samples", "20", "--per-tar", "10", "--subset", "both", "--checksums"
    )[0]


@pytest.fixture
def installed(tmp_path, archive) -> Path:
    """An installation with ports of its own, as an operator would set them."""
    prefix = tmp_path / "opt"
    make("install", prefix)
    master, volume, filer, s3, http, metrics = free_ports(6)
    etc = prefix / "etc"
    endpoint = f"http://127.0.0.1:{s3}"
    ports = {"S3_PORT": s3, "FILER_PORT": filer, "VOLUME_PORT": volume, "MASTER_PORT": master}
    changes = {
        "store.env": ports,
        "service.env": {"SERVE_OPTIONS": f"--port {http}"},
        "ingest.env": {
            "SOURCE": str(archive),
            "AWS_ENDPOINT_URL_S3": endpoint,
            "INGEST_OPTIONS": "--workers 1",
        },
    }
    for name, values in changes.items():
        text = (etc / name).read_text()
        for key, value in values.items():
            text, n = re.subn(rf"^{key}=.*$", f"{key}={value}", text, flags=re.MULTILINE)
            assert n == 1, key
        (etc / name).write_text(text)
    settings = (etc / "server.toml").read_text()
    settings = settings.replace("http://127.0.0.1:8333", endpoint).replace("9090", str(metrics))
    (etc / "server.toml").write_text(settings + "\n[limits]\nsync_s = 25\nplan_s = 120\n")
    return prefix


def unit(prefix: Path, name: str) -> Unit:
    return Unit.read(prefix / "units" / name)


def ingest(prefix: Path, log: Path) -> dict:
    """Run the ingest once, as the timer does; return its report."""
    process = unit(prefix, "tensorbank-ingest.service").start(log)
    assert process.wait(timeout=200) == 0, log.read_text()
    return json.loads((prefix / "data" / "ingest" / "report.json").read_text())


def wait_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline_s = time.monotonic() + 90
    while True:
        try:
            if httpx.get(f"{url}/readyz", timeout=10).status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline_s, log.read_text()
        time.sleep(0.05)


def train(url: str, key: str, checkpoints: Path, epochs: int) -> subprocess.Popen[str]:
    words = [TRAIN, "--bank", url, *QUERY, "--checkpoints", checkpoints, "--epochs", epochs]
    more = ["--batch-size", "4", "--save-every", "1"]
    return subprocess.Popen(
        [sys.executable, *map(str, words), *more],
        env=os.environ
        | {"TENSORBANK_KEY": key, "OMP_NUM_THREADS": "1", "MASTER_PORT": str(free_ports(1)[0])},
        stderr=subprocess.PIPE,
        text=True,
    )


def test_it_is_installed_again_and_removed_without_a_loss(tmp_path):
    prefix = tmp_path / "opt"
    make("install", prefix)
    first = content(prefix)
    assert set(UNITS) <= {Path(name).name for name in first}
    make("install", prefix)
    assert content(prefix) == first, "a second run changes nothing"
    secrets = {Path(n).name: mode for n, (mode, _) in first.items() if "secrets/" in n}
    assert {"s3_secret", "page_signing", "keys.env"} <= secrets.keys()
    assert [n for n, mode in secrets.items() if mode & 0o007] == []
    for name in UNITS:
        assert "/opt/tensorbank/" not in (prefix / "units" / name).read_text().replace(str(prefix), "")
    (prefix / "etc" / "ingest.env").write_text("SOURCE=/mine\n")
    (prefix / "data" / "store" / "object").write_text("mine")
    make("install", prefix)
    make("uninstall", prefix)
    assert (prefix / "etc" / "ingest.env").read_text() == "SOURCE=/mine\n"
    assert (prefix / "data" / "store" / "object").read_text() == "mine"
    assert list((prefix / "units").iterdir()) == []
    assert not (prefix / "venv").exists()


def test_a_prefix_that_would_break_a_unit_is_refused(tmp_path):
    for bad in ("relative", "/", "/with space", "/a#b"):
        done = subprocess.run(
            [ROOT / "deploy" / "systemd" / "install.sh", "install"],
            env=os.environ | {"PREFIX": bad, "UNITS": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, "PREFIX must be" in done.stderr) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_store_service_ingest_and_training_go_on_after_a_stop(installed, tmp_path):
    logs = {name: tmp_path / f"{name}.log" for name in UNITS}
    store, service = unit(installed, STORE), unit(installed, SERVICE)
    settings = load_settings(installed / "etc" / "server.toml")
    port = re.search(r"--port (\d+)", (installed / "etc" / "service.env").read_text())
    assert port is not None
    url = f"http://127.0.0.1:{port[1]}"
    keys = [installed / "venv" / "bin" / "tensorbank", "keys", "create", "ann", "--file", settings.keys_file]
    key = subprocess.run(
        [*map(str, keys)], capture_output=True, text=True, check=True, timeout=60
    ).stdout.strip()
    checkpoints = tmp_path / "checkpoints"

    with running(store, logs[STORE]):
        report = ingest(installed, logs[INGEST])
        assert report["n_added"] == 20, report
        with running(service, logs[SERVICE]) as process:
            wait_ready(url, process, logs[SERVICE])
            expected = tb.open(url, key=key).query("terramesh").select("sample_id").plan()
            assert len(expected) == 20
            with train(url, key, checkpoints, epochs=500) as training:
                assert training.stderr is not None
                assert any(" loss " in line for line in training.stderr), "it has begun"
                training.send_signal(signal.SIGTERM)
                told = training.stderr.read()
                assert training.wait(timeout=60) == AGAIN, told
        assert process.returncode == 0, "the service ended in order"

    with running(store, logs[STORE]), running(service, logs[SERVICE]) as process:
        wait_ready(url, process, logs[SERVICE])
        report = ingest(installed, logs[INGEST])
        assert report["n_added"] == 0, "all of it is there"
        again = tb.open(url, key=key).query("terramesh").select("sample_id").plan()
        assert again.fingerprint == expected.fingerprint
        with train(url, key, checkpoints, epochs=1) as training:
            told = training.communicate(timeout=120)[1]
        assert training.returncode == 0, told
        assert "goes on at step" in told
        audit = [json.loads(line) for line in settings.audit_file.read_text().splitlines()]
        assert {"plan", "credentials"} <= {line["action"] for line in audit}
