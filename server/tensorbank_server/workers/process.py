"""The body of a query worker: banks, and one job at a time. Its process needs no web framework."""

from __future__ import annotations

import contextlib
import resource
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from tensorbank.bank import Bank, LocalEngine
from tensorbank.catalog import Catalog
from tensorbank.errors import TensorBankError
from tensorbank.index_files import IndexMirror
from tensorbank.storage import StorageOptions, Store

__all__ = ["BankAddress", "WorkerOptions", "work"]


@dataclass(frozen=True, slots=True)
class BankAddress:
    """The address at which a worker finds a bank."""

    url: str
    storage: StorageOptions


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """The options of a worker process.

    Parameters
    ----------
    banks
        Addresses of the banks, by name.
    cache
        Folder of copies of index files, shared by all workers.
    memory_bytes
        Address space of a worker.
    max_jobs
        Number of jobs after which a worker is replaced.
    """

    banks: Mapping[str, BankAddress]
    cache: Path
    memory_bytes: int
    max_jobs: int = 1_000


def work(connection: Connection, options: WorkerOptions) -> None:
    """Do the jobs that come through a connection, until it is closed.

    Each comes with its time in seconds, after which the kernel ends the process. What goes back is a kind and a value:
    ``answer``, ``error`` with the job's TensorBankError, ``disk`` with the number and words of an OSError, or ``failure``
    with words for the log.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the service's to handle
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    banks = {}
    for name, address in options.banks.items():
        store = Store(address.url, address.storage)
        banks[name] = Bank(LocalEngine(Catalog(store, IndexMirror(store, options.cache))))
    resource.setrlimit(resource.RLIMIT_AS, (options.memory_bytes, options.memory_bytes))
    connection.send("ready")
    with contextlib.suppress(EOFError, BrokenPipeError):  # the service has ended
        while True:
            job, limit_s = connection.recv()
            signal.setitimer(signal.ITIMER_REAL, limit_s)  # ends the process: nothing in it can hold it up
            try:
                answer: tuple[object, ...] = ("answer", job.do(banks))
            except TensorBankError as error:
                answer = ("error", error)
            except OSError as error:  # of this machine's disk: a store's are TensorBankErrors
                answer = ("disk", error.errno, str(error)[:2_000])
            except MemoryError:
                raise
            except Exception as error:  # noqa: BLE001 - the edge of the process: the service logs it
                answer = ("failure", f"{type(error).__name__}: {error}"[:2_000])
            signal.setitimer(signal.ITIMER_REAL, 0)
            connection.send(answer)
