"""The README's section on the service runs as it is printed, at another port."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.server_process import serving

README = (Path(__file__).parents[2] / "README.md").read_text()
OF_THE_SERVICE = (Path(__file__).parents[2] / "server" / "README.md").read_text()
ADDRESS = "http://127.0.0.1:8000"


def block(language: str, number: int = 0) -> str:
    found: str = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)[number]
    return found


@pytest.fixture(scope="module")
def served(bank_folder):
    with serving(str(bank_folder), "--name", "demo-bank") as running:
        yield running


def test_curl_as_printed(served):
    for line in block("sh").splitlines():
        done = subprocess.run(
            ["sh", "-c", line.replace(ADDRESS, served.url)],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        answer = json.loads(done.stdout)
        assert answer.get("rows") or answer.get("features"), line


def test_python_as_printed(served):
    code = block("py").replace(ADDRESS, served.url)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.fullmatch(r"(\d+) samples, \(\1, 1, 2, 264, 264\)\n", done.stdout)


def test_training_as_printed(served):
    code = block("py", 1).replace(ADDRESS, served.url)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.fullmatch(r"torch\.Size\(\[8, 2, 264, 264\]\) \['\S+', '\S+'\]\n", done.stdout), done.stdout


def test_every_endpoint_and_setting_is_in_the_manual(served):
    paths = served.get("/openapi.json").json()["paths"]
    for path in paths:
        tail = (
            path.replace("/v1/banks/{bank}/tables/{table}", "T")
            .replace("{sample_id}", "{id}")
            .replace("{plan}", "{id}")
        )
        word = tail.rstrip("/").rsplit("/", 1)[-1].split("{")[0].rstrip(".") or tail.split("/")[-2]
        assert word.strip("/") in OF_THE_SERVICE, path
    limits = served.get("/v1/config").json()["limits"]
    assert len(limits) > 30
    for name in [*limits, "metrics_host", "finish_s", "drain_s", "bank_probe_s"]:
        assert f"`{name}`" in OF_THE_SERVICE, name
    for scope in ("read", "plan", "proxy", "sql", "admin"):
        assert f"| `{scope}` |" in OF_THE_SERVICE
