"""``tensorbank serve`` as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from support import DYING_WITH_PARENT
from support.warm_service import WarmlyStarted

START_S = 60.0
LINE_S = 10.0


PATIENT = {
    "TENSORBANK_N_WORKERS": "1",
    "TENSORBANK_LIMITS__SYNC_S": "25",
    "TENSORBANK_LIMITS__PLAN_S": "120",
    "TENSORBANK_LIMITS__QUERY_S": "25",
    "TENSORBANK_LIMITS__BANK_S": "25",
    "TENSORBANK_BANK_PROBE_S": "20",
}
"""The limits that a busy machine keeps to, where a test is of something else."""


@dataclass
class Served:
    """A running service. ``client`` asks it, with a key where there is one."""

    process: subprocess.Popen[str] | WarmlyStarted
    url: str
    log: Path
    client: httpx.Client
    extra: dict[str, Any] = field(default_factory=dict)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.client.get(path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.client.post(path, **options)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def line(self, **wanted: Any) -> dict[str, Any]:
        """The line of the log that has these values; it is written when the answer has gone."""
        deadline = time.monotonic() + LINE_S
        while time.monotonic() < deadline:
            for line in self.lines():
                if all(line.get(name) == value for name, value in wanted.items()):
                    return line
            time.sleep(0.01)
        raise AssertionError(f"no line of the log has {wanted}: {self.log.read_text()[-3000:]}")

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=40)


@contextmanager
def serving(
    *arguments: str,
    key: str | None = None,
    ready: bool = True,
    port: int = 0,
    fresh: bool = False,
    **environment: str,
) -> Iterator[Served]:
    """Run ``tensorbank serve`` as a process of its own, until the block ends; ``fresh``: one that imports everything itself."""
    log = Path(tempfile.mkstemp(suffix=".log")[1])
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TENSORBANK_", "AWS_"))}
    environment = {**kept, **PATIENT, **environment}
    given = ["serve", *arguments, "--port", str(port)]
    process: subprocess.Popen[str] | WarmlyStarted
    with log.open("w") as sink:
        if fresh:
            command = [sys.executable, "-c", DYING_WITH_PARENT, sys.executable, "-m", "tensorbank", *given]
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=sink, text=True, env=environment
            )
        else:
            process = WarmlyStarted(given, sink, environment)
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert " at http" in first, f"{first}\n{log.read_text()[-3000:]}"
        url = first.rsplit(" at ", 1)[1].strip().replace("0.0.0.0", "127.0.0.1")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        with httpx.Client(base_url=url, headers=headers, timeout=START_S) as client:
            if ready:
                assert client.get("/readyz").status_code == 200, log.read_text()[-3000:]
            yield Served(process, url, log, client)
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        log.unlink(missing_ok=True)
