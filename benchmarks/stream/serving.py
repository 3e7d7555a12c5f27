"""Servers of a bank's folder: nginx at the speed of loopback, and one of given latency and bandwidth."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tensorbank import Plan, StorageOptions
from tensorbank.plans import StoreAddress
from tensorbank.testing import Faults, FaultServer

__all__ = ["Origin", "fault_server", "loopback", "origin_of"]

START_S = 10.0

# tcp_nopush costs 40 ms a request on small reads.
NGINX = """
{user} worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; tcp_nopush off; tcp_nodelay on; keepalive_requests 1000000;
  client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
  uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
  server {{ listen 127.0.0.1:{port}; root "{root}"; }}
}}
"""


@dataclass(frozen=True, slots=True)
class Origin:
    """The server that a bank is read from."""

    server: str
    url: str
    storage: StorageOptions

    def plan(self, plan: Plan) -> Plan:
        """Return a plan of the local bank, read from here."""
        return replace(plan, origin=StoreAddress(self.url, self.storage))


def origin_of(server: FaultServer) -> Origin:
    """Return the origin that a running fault server is."""
    return Origin("fault server", server.url, server.storage)


@contextmanager
def fault_server(folder: Path, faults: Faults) -> Iterator[tuple[FaultServer, Origin]]:
    """Return a server that does what it is told."""
    with FaultServer(folder, faults) as server:
        yield server, origin_of(server)


@contextmanager
def loopback(folder: Path) -> Iterator[Origin]:
    """Serve a folder as fast as the machine can:
    by nginx, or where that is not installed by the fault server without faults.
    """
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        with fault_server(folder, Faults()) as (_, origin):
            yield origin
        return
    with tempfile.TemporaryDirectory() as own, closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        taken.close()
        user = "user root;" if os.geteuid() == 0 else ""  # its workers must see the folder
        config = Path(own, "nginx.conf")
        config.write_text(NGINX.format(user=user, folder=own, port=port, root=folder.resolve()))
        process = subprocess.Popen([program, "-c", str(config)], stderr=subprocess.DEVNULL)
        try:
            _await(port, Path(own, "error.log"))
            yield Origin("nginx", f"http://127.0.0.1:{port}", StorageOptions())
        finally:
            process.terminate()
            process.wait()


def _await(port: int, log: Path) -> None:
    """Return when something listens."""
    until = time.monotonic() + START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError as error:
            if time.monotonic() > until:
                raise RuntimeError(
                    f"nginx does not start: {log.read_text() if log.exists() else error}"
                ) from error
            time.sleep(0.02)
        else:
            return
