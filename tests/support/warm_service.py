"""A process that has imported the service, and forks a child for each ``tensorbank serve``: two seconds of imports less.

A child has the arguments, environment and files of a process of its own, and runs ``python -m tensorbank`` from there on. It is
forked before any library has threads or connections. What follows from a fresh start is tested by services that have one.
"""

from __future__ import annotations

import atexit
import ctypes
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO

from support import DYING_WITH_PARENT, WITH_SUPPORT

__all__ = ["WarmlyStarted"]

MODULES = ("tensorbank.cli.app", "tensorbank_server.app", "tensorbank_server.listening", "uvicorn")
LIMIT_S = 60.0


class WarmlyStarted:
    """A process with what tests use of ``subprocess.Popen``; its standard output is a pipe."""

    def __init__(self, arguments: Sequence[object], stderr: IO[str], environment: dict[str, str]) -> None:
        self.returncode: int | None = None
        call = json.dumps([list(map(str, arguments)), environment, str(Path.cwd())]).encode()
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(_warm())
        reading, writing = os.pipe()
        self.stdout = os.fdopen(reading)
        socket.send_fds(self._connection, [b"!"], [writing, stderr.fileno()])
        os.close(writing)
        self._connection.sendall(call + b"\n")
        self._connection.settimeout(LIMIT_S)
        said = b""
        while not said.endswith(b"\n"):  # not more: the status may stand behind it
            more = self._connection.recv(1)
            assert more, "the warm process is there"
            said += more
        self.pid = int(said)

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end of the process, as ``Popen.wait`` does."""
        if self.returncode is None:
            self._connection.settimeout(timeout)
            try:
                status = self._connection.recv(16)
            except (BlockingIOError, TimeoutError):
                raise subprocess.TimeoutExpired("tensorbank serve", timeout or 0.0) from None
            self.returncode = int(status)
            self._connection.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@cache
def _warm() -> str:
    """Return the address of the warm process of this process, which ends with it."""
    folder = tempfile.TemporaryDirectory(prefix="warm-")
    address = str(Path(folder.name) / "socket")
    command = [sys.executable, "-c", DYING_WITH_PARENT, sys.executable, "-m", "support.warm_service", address]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=WITH_SUPPORT)

    def end() -> None:
        process.terminate()
        process.wait(LIMIT_S)
        folder.cleanup()

    atexit.register(end)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.stdout.close()
    return address


def _served(connection: socket.socket) -> None:
    """Become the process that a caller asks for, in a child: the rest is that of ``python -m tensorbank``."""
    _, files, _, _ = socket.recv_fds(connection, 1, 2)
    with connection, connection.makefile("rb") as given:
        arguments, environment, folder = json.loads(given.readline())
    empty = os.open(os.devnull, os.O_RDONLY)
    for number, file in enumerate([empty, *files]):
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[1:] = arguments
    signal.signal(signal.SIGINT, signal.default_int_handler)
    ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)
    runpy.run_module("tensorbank", run_name="__main__", alter_sys=True)


def main(address: str) -> None:
    """Fork a child for each connection, and send its exit status when it has ended."""
    for module in MODULES:
        importlib.import_module(module)
    waking, woken = socket.socketpair()
    for side in (waking, woken):
        side.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for those who run the tests
    signal.set_wakeup_fd(woken.fileno())
    callers: dict[int, socket.socket] = {}
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen(64)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        ready, _, _ = select.select([listening, waking], [], [])
        if waking in ready:
            waking.recv(4096)
            with suppress(ChildProcessError):
                while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                    with callers.pop(ended[0]) as caller, suppress(OSError):
                        caller.sendall(str(os.waitstatus_to_exitcode(ended[1])).encode())
        if listening in ready:
            caller, _ = listening.accept()
            if (pid := os.fork()) == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for each in (listening, waking, woken, *callers.values()):
                    each.close()
                return _served(caller)
            callers[pid] = caller
            caller.sendall(f"{pid}\n".encode())


if __name__ == "__main__":
    main(sys.argv[1])
