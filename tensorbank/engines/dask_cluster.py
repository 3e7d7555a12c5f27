"""A Dask cluster: one of this machine, or any that has a scheduler already."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any, TypeVar

import dask
from distributed import Client, LocalCluster
from distributed.utils import silence_logging_cmgr

from tensorbank.engines.program import helper_ended
from tensorbank.errors import ErrorKind, StorageError, TensorBankError

__all__ = ["CALL_S", "KEPT", "DaskCluster"]

CALL_S = 30.0
"""Seconds that a scheduler or a worker has to answer a question."""
KEPT = "and it goes on where it keeps what is finished"
"""The words on what becomes of a run: an ingest keeps shards, a verification what its file for that says."""
NAMED = 3
"""The number of workers that an error names."""
OWN = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,
}
"""The settings of a cluster of our own, of which nobody looks at the dashboard.

Its processes look neither at their stacks a hundred times a second nor at the system twice. And malloc may keep what is freed: by
Dask's threshold it gives back the arrays of each sample, and the system has eight times as many page faults to serve."""

T = TypeVar("T")


class DaskCluster:
    """A connection to a scheduler, and the cluster behind it if that is our own.

    Parameters
    ----------
    address
        Address of the scheduler; None starts processes of this machine, which answer on loopback to those who have the keys of
        this run, and end with this process.
    n_workers
        Processes of this machine.
    wait_s
        Seconds to wait for a scheduler and a first worker, and for another one when all are gone.
    """

    def __init__(self, address: str | None, n_workers: int, wait_s: float) -> None:
        self.address = address
        self.name = address or "this machine"
        self.n_workers = n_workers
        self.wait_s = wait_s
        self._stack = ExitStack()
        self._client: Client | None = None
        self._idle_since_s: float | None = None

    @property
    def client(self) -> Client:
        """The client; :meth:`open` makes it."""
        assert self._client is not None, "the cluster is open"
        return self._client

    def open(self) -> None:
        """Connect, if that is not done, and wait for a first worker.

        Raises
        ------
        TensorBankError
            No scheduler or no worker was there in time; or processes of this machine did not start.
        """
        if self._client is not None:
            return
        # Each loss of a worker would be told on the screen; what matters of it becomes an error of ours.
        self._stack.enter_context(silence_logging_cmgr(logging.CRITICAL))
        try:
            self._client = self._stack.enter_context(
                Client(self.address or self._started(), timeout=self.wait_s, set_as_default=False)
            )
        except OSError as error:
            raise TensorBankError(
                f"no scheduler answers at {self.name} within {self.wait_s:g} s: {error}; start one, or give its address",
                kind=ErrorKind.SCHEDULER_LOST,
            ) from error
        except RuntimeError as error:  # of Dask: "Nanny failed to start."
            raise helper_ended("a process of Dask") from error
        self._idle_since_s = None
        while not self.n_threads():
            time.sleep(0.05)

    def _started(self) -> LocalCluster:
        # A process that takes the place of a killed one has as long as any; Dask would give it up after 15 s.
        self._stack.enter_context(
            dask.config.set(OWN | {"distributed.deploy.lost-worker-timeout": self.wait_s})
        )
        # Without limits on memory, as processes have none: Dask would stop giving tasks to a worker that keeps freed memory.
        cluster: LocalCluster = self._stack.enter_context(
            LocalCluster(
                n_workers=self.n_workers,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                protocol="tls://",
                security=True,  # loopback is open to every user of the machine
                dashboard_address="127.0.0.1:0",
                memory_limit=0,
                preload=["tensorbank.engines.worker_task"],
                silence_logs=logging.CRITICAL,
            )
        )
        return cluster

    def close(self) -> None:
        """Disconnect, which gives up what is under way, and end processes of our own."""
        self._stack.close()
        self._client = None

    def n_threads(self) -> int:
        """Return how many tasks the workers execute at a time; 0 if there is no worker at this moment.

        Raises
        ------
        TensorBankError
            There has been none for longer than the cluster waits.
        """
        if self.client.status in ("closing", "closed"):
            raise self.lost()
        try:
            n = sum(self.ask(self._running).values())
        except OSError:  # a timeout is one, too
            n, cause = 0, "no scheduler answers"
        else:
            cause = "no worker takes tasks"
        now_s = time.monotonic()
        if n:
            self._idle_since_s = None
        elif self._idle_since_s is None:
            self._idle_since_s = now_s
        elif now_s - self._idle_since_s > self.wait_s:
            raise TensorBankError(
                f"{cause} at {self.name} for {self.wait_s:g} s; run again when workers are there, {KEPT}",
                kind=ErrorKind.NO_WORKERS,
            )
        return n

    async def _running(self) -> dict[str, int]:
        scheduler: Any = self.client.scheduler
        return dict(await scheduler.ncores_running()) if scheduler is not None else {}

    def ask(self, question: Callable[[], Awaitable[T]]) -> T:
        """Return the answer to a question, which has some time."""
        answer: T = self.client.sync(question, callback_timeout=CALL_S)
        return answer

    def require(self, look: Callable[..., None], *arguments: object) -> None:
        """Call a function on every worker of this moment, and raise if one cannot call it, or if it raises there.

        Raises
        ------
        TensorBankError
            By the kind of the first worker's error; the first few workers are named.
        """

        async def asked() -> dict[str, BaseException | None]:
            answers: dict[str, BaseException | None] = await self.client.run(
                look, *arguments, on_error="return"
            )
            return answers

        try:
            answers = self.ask(asked)
        except ImportError as error:
            raise self.unlike(str(error)) from error
        except OSError as error:
            raise self.lost() from error
        bad = {address: error for address, error in answers.items() if error is not None}
        if not bad:
            return
        first = next(iter(bad.values()))
        kind = first.kind if isinstance(first, TensorBankError) else ErrorKind.OTHER_RELEASE
        told = [f"{address}: {error}" for address, error in sorted(bad.items())[:NAMED]]
        more = f"; and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
        error_class = StorageError if isinstance(first, StorageError) else TensorBankError
        raise error_class(
            f"{len(bad)} of {len(answers)} workers of {self.name} cannot take tasks, so nothing is begun: "
            f"{'; '.join(told)}{more}",
            kind=kind,
        )

    def lost(self) -> TensorBankError:
        """Return the error that the scheduler is gone."""
        return TensorBankError(
            f"the scheduler of {self.name} is gone; run again when it is back, {KEPT}",
            kind=ErrorKind.SCHEDULER_LOST,
        )

    def unlike(self, reason: str) -> TensorBankError:
        """Return the error that the cluster does not have our TensorBank."""
        return TensorBankError(
            f"{self.name} cannot load tasks of this TensorBank: {reason}; install the same release, with the extra "
            "distributed, for the scheduler and all workers",
            kind=ErrorKind.OTHER_RELEASE,
        )
