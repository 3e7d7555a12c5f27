"""The plans of one service: made once, kept in a folder, found again after a restart.

The id of a plan is a hash of the snapshot and of what was asked of it: the same question has the same id on every replica, and
whoever has the id and may read the bank may read the plan. Plans that this process has seen are known in memory; the files of
any other are looked for in a thread.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import Literal

from tensorbank.errors import TensorBankError
from tensorbank_server.http import Problem, as_problem, disk_problem, internal
from tensorbank_server.monitoring import Metrics
from tensorbank_server.planning.plan_folder import OpenedPlan, PlanFolder, PlanRecord
from tensorbank_server.planning.plan_requests import PlanRequest
from tensorbank_server.workers.bulkheads import Threads
from tensorbank_server.workers.jobs import MakePlan, PlanMade
from tensorbank_server.workers.pool import WorkerPool

__all__ = ["PlanStore", "StoredPlan"]

MAX_RUNNING = 64
"""The most plans being made or waited for."""
State = Literal["submitted", "completed", "failed", "cancelled"]
GONE: tuple[State, ...] = ("failed", "cancelled")
_LOG = logging.getLogger(__name__)


@dataclass
class StoredPlan:
    """A plan that was asked for, and its state."""

    request: PlanRequest
    state: State = "submitted"
    made: PlanMade | None = None
    problem: Problem | None = None
    created_s: float = field(default_factory=time.time)
    owners: set[str] = field(default_factory=set)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    def of(cls, record: PlanRecord, owners: set[str]) -> StoredPlan:
        """Return a finished plan, as its folder holds it."""
        found = cls(record.request, "completed", record.made, created_s=record.created_s, owners=owners)
        found.done.set()
        return found

    @property
    def id(self) -> str:
        return self.request.id


class PlanStore:
    """The plans of one service. For one event loop, but :meth:`open`, which threads may call.

    Parameters
    ----------
    folder
        The files of finished plans.
    limit_s
        Seconds that the making of a plan may take, and as many that it may wait for a worker.
    max_samples
        The most samples of a plan.
    """

    def __init__(
        self,
        folder: PlanFolder,
        workers: WorkerPool,
        metrics: Metrics,
        threads: Threads,
        *,
        limit_s: float,
        max_samples: int,
    ) -> None:
        self._folder = folder
        self._workers = workers
        self._metrics = metrics
        self._threads = threads
        self._limit_s = limit_s
        self._max_samples = max_samples
        self._known: dict[str, StoredPlan] = {}
        self._running: dict[str, tuple[asyncio.Task[None], MakePlan]] = {}

    async def submit(self, request: PlanRequest, principal: str, wait_s: float) -> tuple[StoredPlan, bool]:
        """Return the plan of a request, and whether it is new.

        A plan that is not there is made. This waits ``wait_s`` for it; then the plan is returned as it is, ``submitted``.

        Raises
        ------
        Problem
            503: too many plans are being made.
        """
        found = await self._find(request.id)
        is_made = found is not None and found.state == "completed"
        if is_made and not await self._threads.run(self._folder.has, request.id):
            self._known.pop(request.id, None)  # another replica removed it
            found = None
        found = self._known.get(request.id, found)  # another may have begun it while this one looked
        is_new = found is None or found.state in GONE
        if found is None or is_new:
            if len(self._running) >= MAX_RUNNING:
                raise Problem(
                    503, "overloaded", "too many plans are being made", headers={"Retry-After": "5"}
                )
            found = self._start(request)
        if principal not in found.owners:
            found.owners.add(principal)
            await self._record(found, principal, wants=True)
        if found.state == "submitted":
            try:
                async with asyncio.timeout(wait_s):
                    await found.done.wait()
            except TimeoutError:
                pass
        return found, is_new

    async def get(self, identity: str) -> StoredPlan:
        """Return a plan by its id.

        Raises
        ------
        Problem
            404: there is none, or none any more.
        """
        found = await self._find(identity)
        if found is None:
            raise Problem(404, "unknown-plan", "there is no such plan, or it was removed; ask for it again")
        return found

    def open(self, stored: StoredPlan) -> OpenedPlan:
        """Map a finished plan into memory. Waits for the disk, and may be called from many threads.

        Raises
        ------
        Problem
            409 while it is being made; what went wrong if it failed; 410 if it was cancelled or is gone.
        """
        if stored.state == "submitted":
            raise Problem(409, "not-ready", "the plan is being made", headers={"Retry-After": "1"})
        if stored.state == "failed":
            raise stored.problem or internal()
        if stored.state == "cancelled":
            raise Problem(410, "cancelled", "the plan was cancelled; ask for it again")
        try:
            return self._folder.open(stored.id)
        except TensorBankError as error:
            self._known.pop(stored.id, None)
            raise Problem(410, "gone", "the plan was removed; ask for it again") from error

    async def cancel(self, stored: StoredPlan, principal: str, *, for_all: bool = False) -> None:
        """Note that a caller needs a plan no more. When nobody does, or with ``for_all``, it is ended or removed.

        Raises
        ------
        Problem
            403: others asked for it.
        """
        if (
            stored.state == "completed"
        ):  # replicas may have more owners, and this process fewer than the last one
            stored.owners |= await self._threads.run(self._folder.owners, stored.id)
        if for_all:
            stored.owners.clear()
        elif principal not in stored.owners:
            raise Problem(403, "not-owner", "only others have asked for this plan, so only they can end it")
        else:
            stored.owners.discard(principal)
            await self._record(stored, principal, wants=False)
        if stored.owners:
            return
        running = self._running.pop(stored.id, None)
        if running is not None and not self._workers.kill(running[1]):
            running[0].cancel()  # it waits for a worker
        stored.state = "cancelled"
        stored.done.set()
        await self._threads.run(self._folder.remove, stored.id)

    async def close(self) -> None:
        """End the plans that are being made, and wait until they have ended."""
        for task, job in list(self._running.values()):
            self._workers.kill(job)
            task.cancel()
        await asyncio.gather(*(t for t, _ in self._running.values()), return_exceptions=True)
        self._running.clear()

    def _start(self, request: PlanRequest) -> StoredPlan:
        stored = StoredPlan(request)
        job = MakePlan(
            request.bank,
            {request.table: request.version},
            request.sql,
            self._folder.path(request.id),
            self._max_samples,
            by_date=request.by_date,
        )
        self._known[request.id] = stored
        self._running[request.id] = (asyncio.create_task(self._make(stored, job)), job)
        return stored

    async def _make(self, stored: StoredPlan, job: MakePlan) -> None:
        started_s = time.perf_counter()
        try:
            made = await self._workers.run(job, self._limit_s, wait_s=self._limit_s)
            if stored.state == "cancelled":
                await self._threads.run(self._folder.remove, stored.id)
                return
            record = PlanRecord(stored.request, made, stored.created_s)
            await self._threads.run(self._folder.write, record)
            stored.made, stored.state = made, "completed"
            bank = stored.request.bank
            self._metrics.plan_s.labels(bank).observe(time.perf_counter() - started_s)
            considered, kept = made.levels.get("shards", (0, 0))
            self._metrics.plan_shards_scanned.labels(bank).inc(kept)
            self._metrics.plan_shards_skipped.labels(bank).inc(considered - kept)
            for identity in await self._threads.run(self._folder.evict, time.time()):
                self._known.pop(identity, None)
            self._forget_failures()
        except Problem as problem:
            self._fail(stored, problem)
        except TensorBankError as error:
            told = as_problem(error)
            if told.status >= 500:
                _LOG.error("plan %s: %s", stored.id, error)
            self._fail(stored, told)
        except OSError as error:
            _LOG.error("plan %s: %s", stored.id, error)
            self._fail(stored, disk_problem(error) or internal())
        except Exception:  # noqa: BLE001 - the edge of a task: whoever asks for the plan is told
            _LOG.exception("plan %s failed", stored.id)
            self._fail(stored, internal())
        finally:
            self._running.pop(stored.id, None)
            stored.done.set()

    def _fail(self, stored: StoredPlan, problem: Problem) -> None:
        if stored.state != "cancelled":
            stored.problem, stored.state = problem, "failed"

    async def _find(self, identity: str) -> StoredPlan | None:
        if (found := self._live(identity)) is not None:
            return found
        record = await self._threads.run(self._folder.read, identity)
        if record is None:
            return self._known.get(identity)
        read = StoredPlan.of(record, await self._threads.run(self._folder.owners, identity))
        if (found := self._live(identity)) is None:  # another request may have been faster
            found = self._known[identity] = read
        return found

    def _live(self, identity: str) -> StoredPlan | None:
        """Return a known plan that neither failed nor was cancelled: another replica may have made such a one since."""
        found = self._known.get(identity)
        return None if found is None or found.state in GONE else found

    async def _record(self, stored: StoredPlan, owner: str, *, wants: bool) -> None:
        """Write down that a caller asked for a plan, or needs it no more.

        If the disk is full, this is logged: after a restart the caller may then lack the right to cancel.
        """
        try:
            await self._threads.run(self._folder.add_owner, stored.id, owner, wants=wants)
        except OSError as error:
            _LOG.error("the owner of plan %s cannot be written down: %s", stored.id, error)

    def _forget_failures(self) -> None:
        """Forget plans that failed or were cancelled, but for the last ones, whose problem is still asked for."""
        failed = [i for i, s in self._known.items() if s.state in GONE]
        for identity in failed[:-MAX_RUNNING]:
            del self._known[identity]
