"""A fault server in a process of its own, and how to reach it."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

from tensorbank.storage import StorageOptions
from tensorbank.testing.fault_server import Faults

__all__ = ["FaultServer"]

_SERVE = "from tensorbank.testing.fault_server import main; main()"


class FaultServer:
    """A server of a bank's folder as an S3 bucket, with faults that can be changed while it runs.
    A context manager.

    Parameters
    ----------
    folder
        Folder of the bank; its name is the bucket's.
    faults
        Faults to inject.

    Examples
    --------
    ::

        with FaultServer(folder, Faults(latency_ms=20, unavailable=0.1)) as server:
            bank = tb.open(server.url, endpoint=server.endpoint, access_key="any", secret_key="any")
            ...
            server.stats()["counts"]["unavailable"]
    """

    def __init__(self, folder: Path, faults: Faults | None = None) -> None:
        self.folder = Path(folder)
        self._first = faults or Faults()
        self._process: subprocess.Popen[str] | None = None
        self.endpoint = ""

    @property
    def url(self) -> str:
        return f"s3://{self.folder.name}"

    @property
    def storage(self) -> StorageOptions:
        """The options for a plan or a store that reads from this server."""
        return StorageOptions(endpoint=self.endpoint, access_key="any", secret_key="any")

    def __enter__(self) -> FaultServer:
        command = [sys.executable, "-c", _SERVE, str(self.folder)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        if self._process.stdout is None:
            raise RuntimeError("the fault server has no output to read its port from")
        self.endpoint = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        self.set(self._first)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def set(self, faults: Faults) -> None:
        """Set the faults from the next request on; counts start from 0."""
        self._ask("faults", faults.to_json().encode())

    def stats(self) -> dict[str, Any]:
        """Return the counts: ``counts``: requests, body_bytes and each kind of fault;
        ``keys``, ``access_keys``: requests by them.
        """
        found: dict[str, Any] = self._ask("stats", None)
        return found

    def _ask(self, what: str, body: bytes | None) -> Any:
        with urllib.request.urlopen(f"{self.endpoint}/-/{what}", data=body, timeout=30) as answer:
            return json.load(answer)
