"""Nodes of a made-up network on this host: network namespaces on a bridge, whose links carry so much and no more."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from support import DYING_WITH_PARENT
from support.programs import program

__all__ = ["PACKAGES", "PROGRAMS", "Network"]

PROGRAMS = ("ip", "tc")
PACKAGES = "iproute2"
"""Debian's package that has them."""
BURST = "64kb"
LATENCY = "200ms"


class Network:
    """Nodes that reach each other by addresses of their own, and nothing else.

    Parameters
    ----------
    prefix
        Beginning of the names of the namespaces.
    addresses
        Address of each node, by its name.
    """

    def __init__(self, prefix: str, addresses: Mapping[str, str]) -> None:
        self._prefix = prefix
        self.addresses = dict(addresses)

    @classmethod
    @contextmanager
    def running(cls, mbit_s: Mapping[str, float]) -> Iterator[Network]:
        """Set up nodes with links of so many megabits a second each way, until the block ends."""
        addresses = {name: f"10.77.0.{number}" for number, name in enumerate(mbit_s, start=1)}
        network = cls(f"tb{uuid.uuid4().hex[:6]}", addresses)
        with ExitStack() as ends:
            for name in ("switch", *mbit_s):
                _run("ip", "netns", "add", network.namespace(name))
                ends.callback(_run, "ip", "netns", "del", network.namespace(name))
            switch = network.namespace("switch")
            _run("ip", "-n", switch, "link", "add", "bridge", "type", "bridge")
            _run("ip", "-n", switch, "link", "set", "dev", "bridge", "up")
            for name, rate in mbit_s.items():
                node = network.namespace(name)
                _run(
                    "ip",
                    "-n",
                    node,
                    "link",
                    "add",
                    "eth0",
                    "type",
                    "veth",
                    "peer",
                    "name",
                    name,
                    "netns",
                    switch,
                )
                _run("ip", "-n", switch, "link", "set", "dev", name, "master", "bridge", "up")
                _run("ip", "-n", node, "addr", "add", f"{addresses[name]}/24", "dev", "eth0")
                for device in ("lo", "eth0"):
                    _run("ip", "-n", node, "link", "set", "dev", device, "up")
                for where, device in ((node, "eth0"), (switch, name)):
                    shape = ("tbf", "rate", f"{rate:g}mbit", "burst", BURST, "latency", LATENCY)
                    _run("tc", "-n", where, "qdisc", "add", "dev", device, "root", *shape)
            yield network

    def namespace(self, node: str) -> str:
        """Return the name of a node's namespace."""
        return f"{self._prefix}-{node}"

    def start(self, node: str, command: Sequence[str | Path], **variables: str) -> subprocess.Popen[Any]:
        """Start a program on a node, which ends with this process."""
        return subprocess.Popen(
            [
                *(program("ip"), "netns", "exec", self.namespace(node)),
                *(sys.executable, "-c", DYING_WITH_PARENT, *map(str, command)),
            ],
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def received_bytes(self, node: str) -> int:
        """Return the bytes that a node has received over its link."""
        path = "/sys/class/net/eth0/statistics/rx_bytes"
        return int(_run("ip", "netns", "exec", self.namespace(node), "cat", path))


def _run(*command: str) -> str:
    done = subprocess.run([program(command[0]), *command[1:]], capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise AssertionError(f"{' '.join(command)}: {done.stderr}")
    return done.stdout
