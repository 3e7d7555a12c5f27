"""Plans that were asked for: made once, kept in a folder, found again after a restart.

The id of a plan is a hash of the snapshot and of what was asked of it: the same question has the same id on every replica, and
whoever has the id and may read the bank may read the plan.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from tensorbank.errors import TensorBankError
from tensorbank.plan import Plan
from tensorbank.planner import PLANNER_VERSION
from tensorbank_server.digests import digest
from tensorbank_server.disks import disk_problem
from tensorbank_server.jobs import MakePlan, PlanMade
from tensorbank_server.metrics import Metrics
from tensorbank_server.problems import Problem, as_problem, internal
from tensorbank_server.workers import WorkerPool

__all__ = ["PlanRequest", "PlanStore", "StoredPlan", "plan_sql"]

MAX_OPEN = 64
"""Plans kept mapped."""
UNFINISHED_S = 3_600.0
"""After which a file that is being written is taken for left behind."""
MAX_RUNNING = 64
"""Plans being made or waited for."""
State = Literal["submitted", "completed", "failed", "cancelled"]
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """What was asked: a statement of ours over a table at a version, and the words that it was made of."""

    bank: str
    table: str
    version: int
    table_id: str
    sql: str
    asked: Mapping[str, Any]
    by_date: bool = False

    @property
    def id(self) -> str:
        """32 hexadecimal digits."""
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
    used_s: float = field(default_factory=time.time)
    owners: set[str] = field(default_factory=set)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def id(self) -> str:
        return self.request.id


class PlanStore:
    """Plans of one service. For one event loop, but :meth:`plan`, which threads may call.

    Parameters
    ----------
    folder
        Where finished plans lie; may be shared by replicas.
    lifetime_s, max_bytes
        Of plans that nobody uses, and of all together; the longest unused go first.
    """

    def __init__(
        self,
        folder: Path,
        workers: WorkerPool,
        metrics: Metrics,
        *,
        lifetime_s: float,
        max_bytes: int,
        limit_s: float,
        max_samples: int,
    ) -> None:
        self.folder = folder
        self._workers = workers
        self._metrics = metrics
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
        found = self._find(request.id)
        is_new = found is None or found.state in ("failed", "cancelled")
        if found is None or is_new:
            if len(self._running) >= MAX_RUNNING:
                raise Problem(
                    503, "overloaded", "too many plans are being made", headers={"Retry-After": "5"}
                )
            found = self._start(request)
        found.owners.add(principal)
        if found.state == "submitted":
            try:
                async with asyncio.timeout(wait_s):
                    await found.done.wait()
            except TimeoutError:
                pass
        return found, is_new

    def get(self, identity: str) -> StoredPlan:
        """A plan by id.

        Raises
        ------
        Problem
            404: there is none, or none any more.
        """
        found = self._find(identity)
        if found is None:
            raise Problem(404, "unknown-plan", "there is no such plan, or none any more; ask for it again")
        found.used_s = time.time()
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
                    found = plan, frozenset(k for h in plan.handles for k in plan.addresses[h.name].keys)
                except TensorBankError as error:
                    self._known.pop(stored.id, None)
                    raise Problem(410, "gone", "the plan is there no more; ask for it again") from error
            self._open[stored.id] = found
            while len(self._open) > MAX_OPEN:
                self._open.popitem(last=False)
        self._path(stored.id).touch()
        return found[0]

    def keys(self, stored: StoredPlan, plan: Plan) -> frozenset[str]:
        """Shards of an open plan, gathered when it was opened."""
        with self._lock:
            found = self._open.get(stored.id)
        return found[1] if found else frozenset(k for h in plan.handles for k in plan.addresses[h.name].keys)

    def cancel(self, stored: StoredPlan, principal: str) -> None:
        """One who asked for a plan needs it no more; when nobody does, it is ended or removed."""
        stored.owners.discard(principal)
        if stored.owners:
            return
        running = self._running.pop(stored.id, None)
        if running is not None:
            self._workers.kill(running[1])
        stored.state = "cancelled"
        stored.done.set()
        self._remove(stored.id)

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
            made: PlanMade = await self._workers.run(job, self._limit_s)
            if stored.state == "cancelled":
                self._remove(stored.id)
                return
            self._write(stored, made)
            stored.made, stored.state = made, "completed"
            bank = stored.request.bank
            self._metrics.plan_s.labels(bank).observe(time.perf_counter() - started_s)
            considered, kept = made.levels.get("shards", (0, 0))
            self._metrics.plan_shards_scanned.labels(bank).inc(kept)
            self._metrics.plan_shards_skipped.labels(bank).inc(considered - kept)
            self._evict()
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

    def _find(self, identity: str) -> StoredPlan | None:
        found = self._known.get(identity)
        if found is None:
            found = self._read(identity)
            if found is not None:
                self._known[identity] = found
        return found

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
        except (FileNotFoundError, ValueError):
            return None
        if not self._path(identity).exists():
            return None
        made = PlanMade(**raw["made"])
        stored = StoredPlan(PlanRequest(**raw["request"]), "completed", made, created_s=raw["created_s"])
        stored.done.set()
        return stored

    def _remove(self, identity: str) -> None:
        with self._lock:
            self._open.pop(identity, None)
        for suffix in ("json", "arrow"):
            (self.folder / f"{identity}.{suffix}").unlink(missing_ok=True)

    def _evict(self) -> None:
        """Forget plans that nobody has used for long, and the longest unused while there are too many."""
        files = sorted(self.folder.glob("*.arrow"), key=lambda p: p.stat().st_mtime, reverse=True)
        total = 0
        for path in files:
            stat = path.stat()
            total += stat.st_size
            if total > self._max_bytes or time.time() - stat.st_mtime > self._lifetime_s:
                self._remove(path.stem)
                self._known.pop(path.stem, None)
        for path in self.folder.glob("*.part"):  # of processes that were killed
            if time.time() - path.stat().st_mtime > UNFINISHED_S:
                path.unlink(missing_ok=True)
        for identity in [i for i, s in self._known.items() if s.state in ("failed", "cancelled")][
            :-MAX_RUNNING
        ]:
            del self._known[identity]


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
