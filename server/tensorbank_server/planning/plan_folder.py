"""The files of finished plans, in a folder that replicas of a service may share.

A plan has three files: ``<id>.arrow``, the plan itself; ``<id>.json``, its request and the facts known without opening it,
written last, so that a plan is there when this file is; and ``<id>.owners``, a line for each caller who asked for it, or
needs it no more. The time of the last change of ``<id>.arrow`` says when the plan was used last.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from tensorbank.errors import NotFoundError
from tensorbank.plans import Plan
from tensorbank_server.planning.plan_requests import PlanRequest
from tensorbank_server.recent import Recent
from tensorbank_server.workers.jobs import PlanMade

__all__ = ["OpenedPlan", "PlanFolder", "PlanRecord"]

MAX_OPEN = 64
"""The most plans kept mapped."""
UNFINISHED_S = 3_600.0
"""Seconds after which a file that is being written is taken for left behind."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PlanRecord:
    """The facts about a finished plan that its folder holds beside it. ``created_s`` is of the wall clock."""

    request: PlanRequest
    made: PlanMade
    created_s: float


@dataclass(frozen=True, slots=True)
class OpenedPlan:
    """A plan, mapped into memory, and the keys of all shards that its samples lie in."""

    plan: Plan
    keys: frozenset[str]


class PlanFolder:
    """The plans in a folder. Every method but :meth:`path` waits for the disk, and may be called from many threads.

    Parameters
    ----------
    folder
        An existing folder.
    lifetime_s, max_bytes
        Lifetime of plans that nobody uses, and most bytes of all together; the longest unused go first.
    """

    def __init__(self, folder: Path, *, lifetime_s: float, max_bytes: int) -> None:
        self.folder = folder
        self._lifetime_s = lifetime_s
        self._max_bytes = max_bytes
        self._opened: Recent[str, OpenedPlan] = Recent(MAX_OPEN)

    def path(self, identity: str) -> Path:
        """Return the path of the plan itself."""
        return self.folder / f"{identity}.arrow"

    def write(self, record: PlanRecord) -> None:
        """Write what is known about a plan whose own file is there; it appears at once or not at all.

        Raises
        ------
        OSError
            The disk is full, or broken.
        """
        descriptor, name = tempfile.mkstemp(dir=self.folder, suffix=".part")
        with os.fdopen(descriptor, "w") as target:
            target.write(json.dumps(asdict(record)))
        Path(name).replace(self.folder / f"{record.request.id}.json")

    def read(self, identity: str) -> PlanRecord | None:
        """Return what is known about a plan; None if there is none of this id, or its record cannot be read.

        It may have been made by another replica, or before the last restart.
        """
        try:
            raw = json.loads((self.folder / f"{identity}.json").read_text())
            if not self.path(identity).exists():
                return None
            return PlanRecord(PlanRequest(**raw["request"]), PlanMade(**raw["made"]), float(raw["created_s"]))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            _LOG.warning("plan %s cannot be read, and is made anew when it is asked for: %s", identity, error)
            return None

    def has(self, identity: str) -> bool:
        """Tell whether a plan is there: another replica may have removed one that this process knows."""
        return self.path(identity).exists()

    def open(self, identity: str) -> OpenedPlan:
        """Map a plan into memory, and note that it is used. One that another replica removed is forgotten.

        Raises
        ------
        NotFoundError, FormatError, StorageError
            It is not there any more, or cannot be read.
        """
        found = self._opened.get(identity)
        if found is None:
            plan = Plan.load(self.path(identity))
            keys = frozenset(k for h in plan.handles for k in plan.addresses[h.name].shard_keys)
            found = self._opened.put(identity, OpenedPlan(plan, keys))
        try:
            os.utime(self.path(identity))
        except FileNotFoundError as error:
            self._opened.drop(identity)
            raise NotFoundError(f"plan {identity} was removed") from error
        except OSError:  # of a full or read-only disk: the plan can be read all the same
            pass
        return found

    def add_owner(self, identity: str, owner: str, *, wants: bool) -> None:
        """Write down that a caller asked for a plan, or needs it no more.

        Raises
        ------
        OSError
            The disk is full, or broken.
        """
        line = json.dumps({"owner": owner, "wants": wants}) + "\n"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        descriptor = os.open(self.folder / f"{identity}.owners", flags, 0o600)
        try:
            os.write(descriptor, line.encode())  # one call, so that lines of replicas do not mix
        finally:
            os.close(descriptor)

    def owners(self, identity: str) -> set[str]:
        """Return the callers who asked for a plan and have not said that they need it no more."""
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

    def remove(self, identity: str) -> None:
        """Remove a plan; one that is not there is no error."""
        self._opened.drop(identity)
        for suffix in ("json", "arrow", "owners"):
            (self.folder / f"{identity}.{suffix}").unlink(missing_ok=True)

    def evict(self, now_s: float) -> list[str]:
        """Remove plans that nobody used for long, the longest unused while there are too many, and files that were left behind.

        Parameters
        ----------
        now_s
            Seconds of the wall clock.

        Returns
        -------
        The ids of the plans that were removed.
        """
        removed = []
        total_bytes = 0
        for modified_s, n_bytes, path in sorted(_sized(self.folder.glob("*.arrow")), reverse=True):
            total_bytes += n_bytes
            if total_bytes > self._max_bytes or now_s - modified_s > self._lifetime_s:
                self.remove(path.stem)
                removed.append(path.stem)
        for modified_s, _, path in _sized(self.folder.glob("*.part")):  # of processes that were killed
            if now_s - modified_s > UNFINISHED_S:
                path.unlink(missing_ok=True)
        for modified_s, _, path in _sized(self.folder.glob("*.owners")):  # of plans that never were
            if now_s - modified_s > self._lifetime_s and not path.with_suffix(".arrow").exists():
                path.unlink(missing_ok=True)
        return removed


def _sized(paths: Iterable[Path]) -> Iterator[tuple[float, int, Path]]:
    """Yield time of last change, bytes and path of files; files that others have just removed are left out."""
    for path in paths:
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        yield stat.st_mtime, stat.st_size, path
