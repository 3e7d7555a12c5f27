"""Crash points: an operation that is stopped at each of its requests in turn, and what is there afterwards.

The undisturbed run says what the requests are, and what the snapshots before and after it hold. Then, for every number:
the process is killed at the request of that number; the answer of the write of that number is lost; the store is full, or
read-only, from that write on. Afterwards all tables of the bank must hold what they held before, or what they hold after the
operation (by the reader that was written from the format's page alone, and by TensorBank's own); ``verify`` must find nothing;
the operation run again must end well, and leave what the undisturbed run left; versions under a lease must hold what they held.
Where asked, ``gc`` must then keep the same objects as after that, whichever table they are of.

What the store holds after a run follows from the writes that were done. Of several runs with the same ones, the checks are made
once.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from support.object_server import Trouble
from support.stages import Scene, Stage
from support.table_content import BankContent, content_of, difference
from support.table_life import Operation
from support.warm_process import Ended, WarmProcess

__all__ = ["Bench", "Outcome", "Point", "Undisturbed"]

N_AT_ONCE = 2
N_IN_A_CHILD = 10
"""The scenes that are examined in one process, since the first one costs it twice as much as each other one."""
RANDOM = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{16,}(?:-[0-9a-f]{8})?")
"""The parts of a key that are others in each run."""
_WRITES = ("PUT", "POST", "DELETE")


@dataclass(frozen=True)
class Point:
    """One request of an undisturbed run; ``write`` counts those that write, and is 0 for others.
    ``changes`` is False for those that only begin or prepare an upload, too."""

    number: int
    method: str
    key: str
    write: int
    changes: bool


@dataclass(frozen=True)
class Found:
    """The state that a disturbed run has left: the ``old`` snapshots, the ``new`` ones or ``neither``; how many
    objects are there after another run beside those that an undisturbed one leaves; and what is wrong."""

    snapshot: str
    n_left: int = 0
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """The outcome of one run that was disturbed. ``ended`` is ``done``, ``died``, or the class of the error;
    ``problems`` is empty if all is well."""

    kind: str
    point: Point
    ended: str
    found: Found
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Undisturbed:
    """The run that nothing disturbed: where it began, its requests, and what was there before and after."""

    operation: Operation
    base: Mapping[str, bytes]
    points: tuple[Point, ...]
    before: BankContent
    after: BankContent
    leased: Mapping[str, Any]
    """The samples of versions under a lease."""
    n_objects: int
    kept: tuple[str, ...] = ()
    """The keys that ``gc`` keeps, without logs and reports of ingests, which say what happened."""
    known: dict[tuple[tuple[str, str], ...], Found] = field(default_factory=dict)
    """The states that were found, by the writes that were done."""


def _content(objects: Mapping[str, bytes]) -> BankContent:
    """Return what a bank holds; of one that cannot be read, the reason."""
    try:
        return content_of(objects)
    except Exception as error:  # the reader is made to break off
        return {"unreadable": {"why": f"{type(error).__name__}: {error}"}}


def _kept(objects: Mapping[str, bytes]) -> tuple[str, ...]:
    keys = [key for key in objects if "/_delta_log/" not in key and not key.endswith(".ingest.json")]
    return tuple(sorted(RANDOM.sub("*", key) for key in keys))


@dataclass(frozen=True)
class _Disturbed:
    kind: str
    point: Point
    ended: Ended
    scene: Scene
    writes: tuple[tuple[str, str], ...]


class Bench:
    """Runs of operations on a stage, disturbed at their requests by ``warm``'s children; with ``collects``, ``gc`` follows."""

    def __init__(self, stage: Stage, warm: WarmProcess, *, collects: bool = False) -> None:
        self.stage = stage
        self.warm = warm
        self.collects = collects
        self._bases: dict[str, dict[str, bytes]] = {}
        self._runs: dict[str, Undisturbed] = {}

    def undisturbed(self, operation: Operation) -> Undisturbed:
        """Run an operation without a disturbance, once, and note its requests."""
        if operation.name in self._runs:
            return self._runs[operation.name]
        base = self._base(operation.after)
        scene = self.stage.scene(base)
        ended = self._run(scene, operation, Trouble())
        assert not ended.error, f"{operation.name}: {ended.message}"
        points: list[Point] = []
        n_writes = 0
        for number, request in enumerate(scene.log(), 1):
            n_writes += request.method in _WRITES
            write = n_writes if request.method in _WRITES else 0
            points.append(Point(number, request.method, RANDOM.sub("*", request.key), write, request.done))
        objects = scene.objects()
        ended = self.warm.call("support.table_life:examine", place=scene.place())
        assert not ended.error, f"looking at {operation.name}: {ended.message}"
        leased = ended.value["leased"]
        if self.collects:
            ended = self._run(scene, Operation("gc", "collect"), Trouble())
            assert not ended.error, f"gc after {operation.name}: {ended.message}"
        kept = _kept(scene.objects())
        scene.leave()
        before, after = _content(base), content_of(objects)
        assert (before != after) == operation.changes, (
            f"{operation.name} changes nothing, or what it should not"
        )
        run = Undisturbed(operation, base, tuple(points), before, after, leased, len(objects), kept)
        return self._runs.setdefault(operation.name, run)

    def outcomes(self, run: Undisturbed, kind: str, points: Sequence[Point]) -> list[Outcome]:
        """Return the outcomes of one kind of disturbance at some requests of a run, at writes unless it is a kill."""
        wanted = [p for p in points if kind == "kill" or p.write]
        first: dict[Any, _Disturbed] = {}
        disturbed = []
        with ThreadPoolExecutor(N_AT_ONCE) as pool:
            for one in pool.map(lambda point: self._disturbed(run, kind, point), wanted):
                disturbed.append(one)
                if one.writes in run.known or one.writes in first:
                    one.scene.leave()
                else:
                    first[one.writes] = one
            todo = list(first.values())
            batches = [todo[i : i + N_IN_A_CHILD] for i in range(0, len(todo), N_IN_A_CHILD)]
            for batch, found in zip(batches, pool.map(lambda b: self._found(run, b), batches), strict=True):
                for one, this in zip(batch, found, strict=True):
                    run.known[one.writes] = this
                    one.scene.leave()
        return [self._judged(one, run.known[one.writes]) for one in disturbed]

    def _disturbed(self, run: Undisturbed, kind: str, point: Point) -> _Disturbed:
        scene = self.stage.scene(run.base)
        at = point.number if kind == "kill" else point.write
        ended = self._run(scene, run.operation, Trouble(kind, at))  # type: ignore[arg-type] # one of the stage's kinds
        writes = tuple((r.method, RANDOM.sub("*", r.key)) for r in scene.log() if r.done)
        return _Disturbed(kind, point, ended, scene, writes)

    def _found(self, run: Undisturbed, batch: Sequence[_Disturbed]) -> list[Found]:
        """Look at what some disturbed runs have left, run them again, and look at that."""
        contents = [_content(one.scene.objects()) for one in batch]
        places = [one.scene.place() for one in batch]
        operation = run.operation
        given = {"function": operation.function, "given": dict(operation.given), "collects": self.collects}
        ended = self.warm.call("support.table_life:recover", places=places, **given)
        if ended.error and len(batch) > 1:  # which one was it?
            return [found for one in batch for found in self._found(run, [one])]
        return [
            self._verdict(run, one.scene, content, ended, None if ended.error else ended.value[number])
            for number, (one, content) in enumerate(zip(batch, contents, strict=True))
        ]

    def _verdict(
        self, run: Undisturbed, scene: Scene, content: BankContent, ended: Ended, seen: Any
    ) -> Found:
        """Judge a scene: its content before the second run, and what TensorBank has seen before and after that."""
        problems: list[str] = []
        differences = {"new": difference(content, run.after), "old": difference(content, run.before)}
        snapshot = next((name for name, text in differences.items() if not text), "neither")
        if snapshot == "neither":
            problems += [
                f"the snapshot is not the {name} one: it {text}" for name, text in differences.items()
            ]
        if ended.error:
            problems.append(f"looking at it, or running again: {ended.error}: {ended.message[-1500:]}")
            return Found(snapshot, 0, tuple(problems))
        whens = {"before": content, "after": run.after, "after gc and": run.after}
        for (when, expected), examined in zip(whens.items(), seen, strict=False):
            if "unreadable" in expected:
                continue  # of what the operation repairs
            problems += [f"verify {when} the second run: {text}" for text in examined["damage"]]
            pixels = {
                table: {name: sample["pixels"] for name, sample in held["samples"].items()}
                for table, held in expected.items()
            }
            if {table: held for table, held in examined["tables"].items() if held} != pixels:
                problems.append(f"TensorBank reads other samples {when} the second run: {examined}"[:600])
            if examined["leased"] != run.leased:
                problems.append(f"a lease does not hold {when} the second run: {examined['leased']}"[:600])
        objects = scene.objects()
        if text := difference(_content(objects), run.after):
            problems.append(f"after the second run, the bank {text}")
        if self.collects:
            kept = _kept(objects)
            more, less = (Counter(a) - Counter(b) for a, b in ((kept, run.kept), (run.kept, kept)))
            problems += [f"gc leaves {key}" for key in more] + [f"gc removes {key}" for key in less]
        return Found(snapshot, len(objects) - run.n_objects, tuple(problems))

    def _judged(self, one: _Disturbed, found: Found) -> Outcome:
        problems = list(found.problems)
        if one.ended.died != (one.kind in ("kill", "half")) and (one.ended.died or one.ended.error):
            problems.append(f"the process ended by {one.ended.error}: {one.ended.message}")
        if "Traceback" in one.ended.message:
            problems.append(f"{one.ended.error} is none of our errors: {one.ended.message[-1500:]}")
        if not one.ended.error and found.snapshot != "new":
            problems.append("the operation says that it has ended well, and the snapshot is not the new one")
        return Outcome(one.kind, one.point, one.ended.error or "done", found, tuple(problems))

    def _base(self, operations: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, bytes]:
        """Return the bank that some operations make of an empty one; made once."""
        name = json.dumps(operations, sort_keys=True)
        if not operations:
            return {}
        if name not in self._bases:
            *first, (function, given) = operations
            scene = self.stage.scene(self._base(tuple(first)))
            ended = self._run(scene, Operation(function, function, given), Trouble())
            assert not ended.error, f"{function}: {ended.message}"
            self._bases[name] = scene.objects()
            scene.leave()
        return self._bases[name]

    def _run(self, scene: Scene, operation: Operation, trouble: Trouble) -> Ended:
        given = {"function": operation.function, "given": dict(operation.given)}
        return self.warm.call("support.table_life:run", place=scene.place(trouble), **given)
