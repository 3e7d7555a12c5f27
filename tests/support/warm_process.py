"""A process that has imported everything and used nothing, which forks a child for each call: milliseconds instead of seconds.

The children are forked before obstore, DuckDB and PyArrow have threads, which do not survive a fork. A child may be killed; the
others and the warm process go on. :func:`support.warm_process.WarmProcess.call` may be used from several threads at once.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from support import WITH_SUPPORT

__all__ = ["Ended", "WarmProcess"]

LIMIT_S = 280.0
PAUSES = 0.02
"""The factor of all pauses between tries: what is tested is what is tried again, not for how long."""


@dataclass(frozen=True)
class Ended:
    """The end of a call. ``error`` is the class of what it raised, ``died`` if it was killed or broke down, else empty."""

    value: Any = None
    error: str = ""
    message: str = ""

    @property
    def died(self) -> bool:
        return self.error == "died"


class WarmProcess:
    """The warm process, as a context manager.

    Parameters
    ----------
    modules
        Modules that it imports. None may start a thread by being imported.
    limit_s
        Seconds after which a call is killed, and an error.
    """

    def __init__(self, modules: Sequence[str], limit_s: float = LIMIT_S) -> None:
        self._modules = modules
        self._limit_s = limit_s
        self._folder = tempfile.TemporaryDirectory(prefix="warm-")
        self._address = str(Path(self._folder.name) / "socket")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> WarmProcess:
        command = [sys.executable, "-m", "support.warm_process", self._address, *self._modules]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=WITH_SUPPORT
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.communicate(timeout=60)
        self._folder.cleanup()

    def call(self, name: str, /, **arguments: Any) -> Ended:
        """Call ``module:function`` in a child, and wait for its end. Arguments and value are JSON."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(self._limit_s)
            connection.connect(self._address)
            connection.sendall(json.dumps([name, arguments]).encode() + b"\n")
            with connection.makefile("rb") as file:
                first = file.readline()
                try:
                    line = file.readline()
                except TimeoutError:
                    os.kill(int(first), signal.SIGKILL)
                    raise AssertionError(f"{name} {arguments} did not end within {self._limit_s} s") from None
        return Ended(error="died") if not line.endswith(b"\n") else Ended(**json.loads(line))


def hasten() -> None:
    """Make the pauses between tries short, in this process."""
    from tensorbank.storage import object_client, retries

    policy = replace(retries.CLIENT_POLICY, first_pause_s=0.005, max_pause_s=0.02, n_tries=4)
    object_client.CLIENT_POLICY = policy
    backoff_s = retries.backoff_s
    retries.backoff_s = lambda *given, **named: PAUSES * backoff_s(*given, **named)


def _work(connection: socket.socket, line: bytes) -> None:
    """Do one call in a child; returns nothing to anybody but the connection."""
    connection.sendall(f"{os.getpid()}\n".encode())
    name, arguments = json.loads(line)
    module, _, function = name.partition(":")
    try:
        ended = {"value": getattr(importlib.import_module(module), function)(**arguments)}
    except Exception as error:  # the edge of a process
        said = str(error) or type(error).__name__
        kinds = [kind.__name__ for kind in type(error).__mro__]
        if "TensorBankError" not in kinds:
            said = traceback.format_exc()
        ended = {"error": type(error).__name__, "message": said}
    connection.sendall(json.dumps(ended).encode() + b"\n")


def main(address: str, modules: Sequence[str]) -> None:
    """Fork a child for each connection, until the input ends."""
    for module in modules:
        importlib.import_module(module)
    hasten()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen(64)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            ready, _, _ = select.select([listening, sys.stdin], [], [])
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            if sys.stdin in ready:
                return
            connection, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                with connection, connection.makefile("rb") as file:
                    _work(connection, file.readline())
                    os._exit(0)
            connection.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
