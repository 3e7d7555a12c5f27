"""The parts that routes stand on: banks by name, workers, plans, limits and logs.

One a process; opened and closed by the app.
"""

from __future__ import annotations

import asyncio
import secrets
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

from tensorbank.errors import ErrorKind, NotFoundError, StorageError, nearest
from tensorbank_server.access import Concurrency, Principal, RateStore, SharedRates
from tensorbank_server.documents import EncodedFiles, RowFiles
from tensorbank_server.http import PageTokens, Problem, writing_problem
from tensorbank_server.monitoring import AuditLog, Metrics, Traces
from tensorbank_server.planning import PlanFolder, PlanStore
from tensorbank_server.served_bank import (
    PROBE_AGAIN_S,
    PROBE_S,
    Pinned,
    ServedBank,
    VersionText,
    as_version,
)
from tensorbank_server.settings import Settings, read_secret
from tensorbank_server.workers.bulkheads import Threads
from tensorbank_server.workers.jobs import Job
from tensorbank_server.workers.pool import WorkerPool
from tensorbank_server.workers.process import WorkerOptions
from tensorbank_server.workers.watches import Watch

__all__ = ["Service"]

CLOSE_S = 3.0
"""Seconds that banks have to close; a read that hangs longer is left behind."""

P = ParamSpec("P")
T = TypeVar("T")


class Service:
    """The service of one process. The constructor assigns; :meth:`open` starts workers and threads, :meth:`close` ends them."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings = settings
        self.limits = settings.limits
        self.metrics = metrics
        self.audit = AuditLog(settings.audit_file)
        self.traces = Traces()
        self.sql_slots = Concurrency(settings.limits.sql_processes, settings.limits.sql_processes)
        self.rate_store = _rate_store(settings, metrics)
        self.queries = SharedRates(
            "queries", settings.limits.queries_per_minute, self.rate_store, settings.limits.n_replicas
        )
        self.page_tokens = PageTokens(
            settings.page_secret() or secrets.token_bytes(32), settings.limits.token_bytes
        )
        self.encoded = EncodedFiles(settings.encoded_cache_bytes)
        self.is_ready = False
        """True if requests should be sent here."""
        self.is_ending = False
        """True if new requests are refused, since the service ends."""
        self.banks: dict[str, ServedBank] = {}

    async def open(self) -> None:
        """Find folders, open banks, start workers."""
        self._scratch = tempfile.TemporaryDirectory(prefix="tensorbank-server-")
        scratch = Path(self._scratch.name)
        self.data_folder = self.settings.data_folder or scratch / "data"
        cache = self.data_folder / "index"
        plans_folder = self.settings.plans_folder or self.data_folder / "plans"
        for path in (cache, plans_folder):
            path.mkdir(parents=True, exist_ok=True)
        (scratch / "rows").mkdir()
        files = RowFiles(scratch / "rows", self.settings.row_cache_bytes)
        self.banks = {
            name: ServedBank(name, bank, cache, files, self.settings)
            for name, bank in self.settings.banks.items()
        }
        self.audit.open()
        if self.settings.traces:
            self.traces.open()
        self._threads = Threads("tensorbank-service", self.settings.n_threads)
        self._disk = Watch(
            "data_folder",
            lambda: writing_problem(self.data_folder) or writing_problem(plans_folder),
            every_s=PROBE_S,
            again_s=PROBE_AGAIN_S,
            limit_s=self.settings.bank_probe_s,
        )
        await asyncio.gather(*(watch.start() for watch in self._watches))
        self.metrics.data_folder_up.set_function(partial(_is_well, self._disk))
        for name, bank in self.banks.items():
            self.metrics.bank_up.labels(name).set_function(partial(_is_well, bank.watch))
        addresses = {name: bank.address for name, bank in self.banks.items()}
        options = WorkerOptions(
            addresses, cache, self.settings.worker_memory_bytes, self.settings.worker_max_queries
        )
        self.workers = WorkerPool(self.settings.n_workers, options, self.metrics)
        await self.workers.start()
        folder = PlanFolder(
            plans_folder,
            lifetime_s=self.settings.plan_lifetime_s,
            max_bytes=self.settings.plan_cache_bytes,
        )
        self.plans = PlanStore(
            folder,
            self.workers,
            self.metrics,
            self._threads,
            limit_s=self.limits.plan_s,
            max_samples=self.limits.plan_samples,
        )
        self.is_ready = True

    async def close(self) -> None:
        """End workers and threads, flush, and remove what is temporary."""
        self.is_ready = False
        await self.plans.close()
        await self.workers.close()
        await asyncio.gather(*(watch.close() for watch in self._watches))
        closing = [threading.Thread(target=bank.close, daemon=True) for bank in self.banks.values()]
        for thread in closing:
            thread.start()
        until_s = time.monotonic() + CLOSE_S
        for thread in closing:  # one that waits for a store that hangs is left behind
            thread.join(max(0.0, until_s - time.monotonic()))
        self._threads.close()
        self.audit.close()
        await asyncio.to_thread(self.traces.close)
        if self.rate_store is not None:
            await self.rate_store.close()
        self._scratch.cleanup()

    @property
    def _watches(self) -> list[Watch]:
        return [self._disk, *(bank.watch for bank in self.banks.values())]

    @property
    def disk_problem(self) -> str | None:
        """The problem that keeps the data folder from being written, None if there is none."""
        return self._disk.problem if self.is_ready else None

    async def offload(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call in a thread. It may take time but asks no store; calls that may are the bank's to run."""
        return await self._threads.run(call, *args, **kwargs)

    async def query(self, job: Job[T], principal: Principal) -> T:
        """Run a job in a worker, counted as a query of the caller."""
        await self.queries.spend(principal.id)
        return await self.answer(job)

    async def answer(self, job: Job[T]) -> T:
        """Run a job in a worker, unless its bank cannot be read."""
        bank = self.banks[job.bank]
        try:
            with bank.waiting():
                return await self.workers.run(job, self.limits.query_s)
        except StorageError:
            bank.watch.doubt()
            raise
        except Problem as problem:
            if problem.status == 504:  # by its own fault, or by the store's
                bank.watch.doubt()
            raise

    def bank(self, name: str, principal: Principal, scope: str = "read") -> ServedBank:
        """Return a bank that the caller may see.

        Raises
        ------
        Problem
            404 for one that is not there or not for this caller, 403 where only the scope is missing.
        """
        found = self.banks.get(name)
        if found is None or not (principal.banks is None or name in principal.banks):
            raise Problem(404, "unknown-bank", "there is no such bank; see /v1/banks")
        if not principal.may(scope):
            raise Problem(403, "scope", f"the caller has no scope `{scope}`; see scopes in /v1/config")
        return found

    async def pin(self, bank: str, table: str, snapshot: VersionText | None, principal: Principal) -> Pinned:
        """Return a table that the caller may read, at a version, the newest if None.

        Raises
        ------
        Problem
            404 for a table that is not there, with the nearest names.
        NotFoundError, InvalidInputError
            The table has no such version, or the text names none.
        """
        found = self.bank(bank, principal)
        try:
            version = as_version(snapshot)
            if isinstance(version, str):
                return await found.run(found.pin_named, table, version)
            pinned = found.known(table, version)
            return pinned if pinned is not None else await found.run(found.pin, table, version)
        except NotFoundError as error:
            if error.kind != ErrorKind.UNKNOWN_TABLE:
                raise
            hint = nearest(table, await found.run(found.tables)) or f" See /v1/banks/{bank}/tables."
            raise Problem(404, error.kind, f"there is no table {table!r}.{hint}") from None


def _is_well(watch: Watch) -> float:
    return float(watch.problem is None)


def _rate_store(settings: Settings, metrics: Metrics) -> RateStore | None:
    limits = settings.limits
    if limits.store is None:
        return None
    password = None if limits.store_password_file is None else read_secret(limits.store_password_file)
    return RateStore(limits.store.get_secret_value(), password, metrics, limit_s=limits.store_s)
