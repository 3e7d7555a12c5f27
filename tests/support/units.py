"""Units of systemd, run without it: their commands as child processes, with the environment and the folder that the unit names.

It knows what the units of ``deploy/systemd`` use: ``EnvironmentFile``, ``Environment``, ``ExecStart``, ``ExecStartPost``,
``WorkingDirectory``; ``${NAME}`` is one word, and ``$NAME`` as many as it has.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Unit", "running"]

SYSTEM = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
"""The environment that systemd gives."""


@dataclass(frozen=True)
class Unit:
    """A unit: its settings in their order."""

    name: str
    settings: tuple[tuple[str, str], ...]

    @classmethod
    def read(cls, path: Path) -> Unit:
        lines = [line for line in path.read_text().splitlines() if line and line[0] not in "#;["]
        return cls(
            path.name, tuple((name, value) for name, _, value in (line.partition("=") for line in lines))
        )

    def all(self, name: str) -> list[str]:
        return [value for known, value in self.settings if known == name]

    def one(self, name: str) -> str:
        (value,) = self.all(name)
        return value

    def environment(self) -> dict[str, str]:
        """Return the environment of its processes, and nothing of this one's."""
        found = dict(SYSTEM)
        for file in self.all("EnvironmentFile"):
            lines = [line for line in Path(file).read_text().splitlines() if line and line[0] != "#"]
            found |= {name: value for name, _, value in (line.partition("=") for line in lines)}
        return found | dict(
            word.split("=", 1) for line in self.all("Environment") for word in shlex.split(line)
        )

    def command(self, setting: str = "ExecStart") -> list[str]:
        environment = self.environment()
        words: list[str] = []
        for word in shlex.split(self.one(setting)):
            if (whole := re.fullmatch(r"\$([A-Z_]+)", word)) is not None:
                words += environment[whole[1]].split()
            else:
                words.append(re.sub(r"\$\{(\w+)\}", lambda m: environment[m[1]], word))
        return words

    def start(self, log: Path) -> subprocess.Popen[bytes]:
        """Start its program, in a session of its own."""
        with log.open("ab") as sink:
            return subprocess.Popen(
                self.command(),
                cwd=self.one("WorkingDirectory"),
                env=self.environment(),
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )

    def after_start(self) -> None:
        """Run what comes after the start, until it has ended."""
        limit_s = float(self.one("TimeoutStartSec"))
        subprocess.run(
            self.command("ExecStartPost"),
            cwd=self.one("WorkingDirectory"),
            env=self.environment(),
            check=True,
            timeout=limit_s,
        )


@contextmanager
def running(unit: Unit, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the program of a unit until the block ends; then stop it as systemd does, within the unit's time."""
    process = unit.start(log)
    try:
        if unit.all("ExecStartPost"):
            unit.after_start()
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=float(unit.one("TimeoutStopSec")))
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(timeout=30)
