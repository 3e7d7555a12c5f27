"""Schedulers and workers of Dask as processes of their own, which tests may kill."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from distributed import LocalCluster

__all__ = ["DaskProcesses"]

LIMIT_S = 60.0
TESTS = str(Path(__file__).parents[1])
PROGRAM = """
import asyncio, os, sys, threading
from distributed import Scheduler, Worker
def end_with_parent():
    sys.stdin.read()
    os._exit(0)
threading.Thread(target=end_with_parent, daemon=True).start()
async def main():
    role, *rest = sys.argv[1:]
    if role == "scheduler":
        server = Scheduler(host="127.0.0.1", port=0, dashboard=False, dashboard_address="127.0.0.1:0")
    else:
        server = Worker(rest[0], host="127.0.0.1", nthreads=1, name=rest[1], memory_limit=0, local_directory=rest[2])
    async with server:
        print(server.address, flush=True)
        await server.finished()
{before}
asyncio.run(main())
"""


class DaskProcesses:
    """A scheduler and workers. Use it as a context; what is left of them is killed at its end, or ends with this process.

    The scheduler is a thread of this process, unless it is to be killed as well.
    """

    def __init__(self, folder: Path, *, own_scheduler: bool = False) -> None:
        self.folder = folder
        self.own_scheduler = own_scheduler
        self._stack = ExitStack()
        self.processes: dict[str, subprocess.Popen[str]] = {}
        self.scheduler = ""
        self._numbers = itertools.count()

    def __enter__(self) -> DaskProcesses:
        if self.own_scheduler:
            self.scheduler = self._address(self._started("", "scheduler"))
        else:
            made = LocalCluster(
                n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL
            )
            self.scheduler = self._stack.enter_context(made).scheduler_address
        return self

    def __exit__(self, *_: object) -> None:
        for address in list(self.processes):
            self.kill(address)
        self._stack.close()

    def workers(self, n: int, before: str = "") -> list[str]:
        """Start workers, which execute some Python before they begin; return their addresses."""
        names = [f"worker-{next(self._numbers)}" for _ in range(n)]
        started = [self._started(before, "worker", self.scheduler, name, str(self.folder)) for name in names]
        return [self._address(process) for process in started]

    def kill(self, address: str) -> None:
        """End a process by SIGKILL."""
        process = self.processes.pop(address)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(timeout=LIMIT_S)
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()

    def _started(self, before: str, *arguments: str) -> subprocess.Popen[str]:
        path = os.pathsep.join(filter(None, (TESTS, os.environ.get("PYTHONPATH"))))
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM.replace("{before}", before), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        self.processes[f"starting {process.pid}"] = process
        return process

    def _address(self, process: subprocess.Popen[str]) -> str:
        """Return the address at which a process listens, once it does."""
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address, "a process of Dask did not start"
        del self.processes[f"starting {process.pid}"]
        self.processes[address] = process
        return address
