"""Plans that were asked for: made once, kept in a folder, found again after a restart.

The id of a plan is a hash of the snapshot and of what was asked of it: the same question has the same id on every replica, and
whoever has the id and may read the bank may read the plan.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from tensorbank.errors import TensorBankError
from tensorbank.planning import PLANNER_VERSION
from tensorbank.plans import Plan
from tensorbank_server.digests import digest
from tensorbank_server.http import Problem, as_problem, disk_problem, internal
from tensorbank_server.metrics import Metrics
from tensorbank_server.workers.bulkheads import Threads
from tensorbank_server.workers.jobs import MakePlan, PlanMade
from tensorbank_server.workers.pool import WorkerPool

__all__ = ["PlanRequest", "PlanStore", "StoredPlan", "plan_sql"]

MAX_OPEN = 64
"""The most plans kept mapped."""
UNFINISHED_S = 3_600.0
"""Seconds after which a file that is being written is taken for left behind."""
MAX_RUNNING = 64
"""The most plans being made or waited for."""
State = Literal["submitted", "completed", "failed", "cancelled"]
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """The request for a plan: a statement of ours over a table at a version,
    and the words that it was made of."""

    bank: str
    table: str
    version: int
    table_id: str
    sql: str
    asked: Mapping[str, Any]
    by_date: bool = False

    @property
    def id(self) -> str:
        """The id of a plan: 32 hexadecimal digits."""
        apart = ("by date",) if self.by_date else ()
        return digest(PLANNER_VERSION, self.bank, self.table_id, self.version, self.sql, *apart)


@dataclass
class StoredPlan:
    """A plan and what has become of it."""

    request: PlanRequest
    state: State = "submitted"
    made: PlanMade | None = None
    problem: Problem | None = None
    created_s: float = field(default_factory=time.time)
    owners: set[str] = field(default_factory=set)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def id(self) -> str:
        return self.request.id


class PlanStore:
    """The plans of one service. For one event loop, but :meth:`plan`, which threads may call.

    Parameters
    ----------
    folder
        Folder where finished plans lie; may be shared by replicas.
    lifetime_s, max_bytes
        Lifetime of plans that nobody uses, and most bytes of all together; the longest unused go first.
    """

    def __init__(
        self,
        folder: Path,
        workers: WorkerPool,
        metrics: Metrics,
        threads: Threads,
        *,
        lifetime_s: float,
        max_bytes: int,
        limit_s: float,
        max_samples: int,
    ) -> None:
        self.folder = folder
        self._workers = workers
        self._metrics = metrics
        self._threads = threads
        self._lifetime_s = lifetime_s
        self._max_bytes = max_bytes
        self._limit_s = limit_s
        self._max_samples = max_samples
        self._known: dict[str, StoredPlan] = {}
        self._running: dict[str, tuple[asyncio.Task[None], MakePlan]] = {}
        self._open: OrderedDict[str, tuple[Plan, frozenset[str]]] = OrderedDict()
        self._lock = threading.Lock()

    async def submit(self, request: PlanRequest, principal: str, wait_s: float) -> tuple[StoredPlan, bool]:
        """The plan of a request, and whether it is new; made if it is not there, and waited for a little.

        Raises
        ------
        Problem
            503: too many plans are being made.
        """
        found = await self._find(request.id)
        found = self._known.get(request.id, found)  # another may have begun it while this one looked
        is_new = found is None or found.state in ("failed", "cancelled")
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
        """A plan by id.

        Raises
        ------
        Problem
            404: there is none, or none any more.
        """
        found = await self._find(identity)
        if found is None:
            raise Problem(404, "unknown-plan", "there is no such plan, or none any more; ask for it again")
        return found

    def plan(self, stored: StoredPlan) -> Plan:
        """The plan itself, mapped into memory.

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
        with self._lock:
            found = self._open.pop(stored.id, None)
            if found is None:
                try:
                    plan = Plan.load(self._path(stored.id))
                    found = (
                        plan,
                        frozenset(k for h in plan.handles for k in plan.addresses[h.name].shard_keys),
                    )
                except TensorBankError as error:
                    self._known.pop(stored.id, None)
                    raise Problem(410, "gone", "the plan is there no more; ask for it again") from error
            self._open[stored.id] = found
            while len(self._open) > MAX_OPEN:
                self._open.popitem(last=False)
        with contextlib.suppress(OSError):  # of a full or read-only disk: the plan can be read all the same
            os.utime(self._path(stored.id))
        return found[0]

    def keys(self, stored: StoredPlan, plan: Plan) -> frozenset[str]:
        """Return the shards of an open plan, gathered when it was opened."""
        with self._lock:
            found = self._open.get(stored.id)
        return (
            found[1]
            if found
            else frozenset(k for h in plan.handles for k in plan.addresses[h.name].shard_keys)
        )

    async def cancel(self, stored: StoredPlan, principal: str, *, for_all: bool = False) -> None:
        """Note that one who asked for a plan needs it no more;
        when nobody does, or ``for_all``, it is ended or removed.

        Raises
        ------
        Problem
            403: others asked for it.
        """
        if (
            stored.state == "completed"
        ):  # replicas may have more owners, and this process fewer than the last one
            stored.owners |= await self._threads.run(self._read_owners, stored.id)
        if for_all:
            stored.owners.clear()
        elif principal not in stored.owners:
            raise Problem(403, "not-owner", "others asked for this plan; it ends when they say so")
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
        await self._threads.run(self._remove, stored.id)

    async def close(self) -> None:
        """Wait for nothing: plans under way end with their workers."""
        for task, job in list(self._running.values()):
            self._workers.kill(job)
            task.cancel()
        await asyncio.gather(*(t for t, _ in self._running.values()), return_exceptions=True)
        self._running.clear()
        self._open.clear()

    def _start(self, request: PlanRequest) -> StoredPlan:
        stored = StoredPlan(request)
        job = MakePlan(
            request.bank,
            {request.table: request.version},
            request.sql,
            self._path(request.id),
            self._max_samples,
            by_date=request.by_date,
        )
        self._known[request.id] = stored
        self._running[request.id] = (asyncio.create_task(self._make(stored, job)), job)
        return stored

    async def _make(self, stored: StoredPlan, job: MakePlan) -> None:
        started_s = time.perf_counter()
        try:
            made: PlanMade = await self._workers.run(job, self._limit_s, wait_s=self._limit_s)
            if stored.state == "cancelled":
                await self._threads.run(self._remove, stored.id)
                return
            await self._threads.run(self._write, stored, made)
            stored.made, stored.state = made, "completed"
            bank = stored.request.bank
            self._metrics.plan_s.labels(bank).observe(time.perf_counter() - started_s)
            considered, kept = made.levels.get("shards", (0, 0))
            self._metrics.plan_shards_scanned.labels(bank).inc(kept)
            self._metrics.plan_shards_skipped.labels(bank).inc(considered - kept)
            for identity in await self._threads.run(self._evict):
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
        found = self._known.get(identity)
        if found is None:
            found = await self._threads.run(self._read, identity)
            if found is not None:
                found = self._known.setdefault(identity, found)  # another request may have been faster
        return found

    async def _record(self, stored: StoredPlan, owner: str, *, wants: bool) -> None:
        """Write down who asked for a plan, or needs it no more; a disk that is full costs the owner that right at most."""
        try:
            await self._threads.run(self._append_owner, stored.id, owner, wants)
        except OSError as error:
            _LOG.error("the owner of plan %s cannot be written down: %s", stored.id, error)

    def _append_owner(self, identity: str, owner: str, wants: bool) -> None:
        line = json.dumps({"owner": owner, "wants": wants}) + "\n"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        descriptor = os.open(self.folder / f"{identity}.owners", flags, 0o600)
        try:
            os.write(descriptor, line.encode())  # one call, so that lines of replicas do not mix
        finally:
            os.close(descriptor)

    def _read_owners(self, identity: str) -> set[str]:
        """Return the callers who asked for a plan and have not said that it is needed no more."""
        try:
            text = (self.folder / f"{identity}.owners").read_text()
        except FileNotFoundError:
            return set()
        owners: set[str] = set()
        for line in text.splitlines():
            try:
                told = json.loads(line)
                owner, wants = told["owner"], told["wants"]
            except (ValueError, KeyError, TypeError):  # torn by a full disk
                continue
            if isinstance(owner, str):
                (owners.add if wants is True else owners.discard)(owner)
        return owners

    def _path(self, identity: str) -> Path:
        return self.folder / f"{identity}.arrow"

    def _write(self, stored: StoredPlan, made: PlanMade) -> None:
        text = json.dumps(
            {"request": asdict(stored.request), "made": asdict(made), "created_s": stored.created_s}
        )
        descriptor, name = tempfile.mkstemp(dir=self.folder, suffix=".part")
        with os.fdopen(descriptor, "w") as target:
            target.write(text)
        Path(name).replace(self.folder / f"{stored.id}.json")

    def _read(self, identity: str) -> StoredPlan | None:
        """A plan of an earlier life of the service, or of another replica."""
        try:
            raw = json.loads((self.folder / f"{identity}.json").read_text())
            if not self._path(identity).exists():
                return None
            made, request = PlanMade(**raw["made"]), PlanRequest(**raw["request"])
            stored = StoredPlan(request, "completed", made, created_s=float(raw["created_s"]))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            _LOG.warning("plan %s cannot be read, and is made anew when it is asked for: %s", identity, error)
            return None
        stored.owners |= self._read_owners(identity)
        stored.done.set()
        return stored

    def _remove(self, identity: str) -> None:
        with self._lock:
            self._open.pop(identity, None)
        for suffix in ("json", "arrow", "owners"):
            (self.folder / f"{identity}.{suffix}").unlink(missing_ok=True)

    def _evict(self) -> list[str]:
        """Remove plans that nobody has used for long, and the longest unused while there are too many; which they were."""
        removed = []
        total, now_s = 0, time.time()
        for modified_s, n_bytes, path in sorted(_sized(self.folder.glob("*.arrow")), reverse=True):
            total += n_bytes
            if total > self._max_bytes or now_s - modified_s > self._lifetime_s:
                self._remove(path.stem)
                removed.append(path.stem)
        for modified_s, _, path in _sized(self.folder.glob("*.part")):  # of processes that were killed
            if now_s - modified_s > UNFINISHED_S:
                path.unlink(missing_ok=True)
        for modified_s, _, path in _sized(self.folder.glob("*.owners")):  # of plans that never were
            if now_s - modified_s > self._lifetime_s and not path.with_suffix(".arrow").exists():
                path.unlink(missing_ok=True)
        return removed

    def _forget_failures(self) -> None:
        """Forget plans that came to nothing, but the last ones, whose problem is still asked for."""
        failed = [i for i, s in self._known.items() if s.state in ("failed", "cancelled")]
        for identity in failed[:-MAX_RUNNING]:
            del self._known[identity]


def _sized(paths: Iterable[Path]) -> Iterator[tuple[float, int, Path]]:
    """Time of the last change and bytes of files; those that others have just removed are left out."""
    for path in paths:
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        yield stat.st_mtime, stat.st_size, path


def plan_sql(
    table: str,
    modalities: Sequence[tuple[str, Sequence[str] | None]],
    columns: Sequence[tuple[str, str]],
    where: str | None,
    n_max: int | None,
) -> str:
    """The statement of a plan.

    Names must have been checked; ``columns`` are names and expressions of ours, and so is ``where``.
    """
    handles = []
    for name, bands in modalities:
        listed = ", ".join("'" + b.replace("'", "''") + "'" for b in bands or ())
        handles.append(f"bands({_quoted(name)}, [{listed}])" if bands else _quoted(name))
    named = (sql if sql == _quoted(name) else f"{sql} AS {_quoted(name)}" for name, sql in columns)
    selected = ", ".join([*named, *handles])
    condition = f" WHERE {where}" if where is not None else ""
    first = f" ORDER BY sample_id, split LIMIT {int(n_max)}" if n_max is not None else ""
    return f"SELECT {selected} FROM {_quoted(table)}{condition}{first}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
