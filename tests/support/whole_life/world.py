"""A bank of one table, its writers and readers, and the model of it: each step is done in both, and compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tensorbank as tb
from support import second_reader
from support.whole_life.answers import Answers, ask
from support.whole_life.model import State, name_of
from support.whole_life.operations import NOTHING, TABLE, Collect, Ingest, Operation, Restore
from support.whole_life.stopped_store import DiedError, StoppedStore
from tensorbank.bank import Bank, LocalEngine
from tensorbank.catalog import Catalog
from tensorbank.errors import ErrorKind, TensorBankError
from tensorbank.index_files import IndexMirror

__all__ = ["Step", "Stop", "World"]

N_WRITERS = 2
FIRST = Ingest(0, 4)
GONE = (
    ErrorKind.NO_OBJECT,
    ErrorKind.NOT_FOUND,
    ErrorKind.MISSING_FILE,
    ErrorKind.UNKNOWN_SNAPSHOT,
    ErrorKind.DAMAGED_LOG,
)
"""The kinds of errors by which a version is told to be gone; of a log that a collection left half, that it is damaged."""


@dataclass(frozen=True)
class Stop:
    """The events at a write of an operation, or right after it: other writers' steps come between, or the writer dies.

    ``at`` is the number of the write, the first one is 1; or of the commit to a log, the first one is -1.
    """

    at: int
    after: bool = False
    meanwhile: tuple[Step, ...] = ()


@dataclass(frozen=True)
class Step:
    """One operation of one writer."""

    operation: Operation
    writer: int = 0
    stop: Stop | None = None


class World:
    """A bank in a folder and all that use it; ``versions`` is the model, by version."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = (folder / "bank").as_uri()
        (folder / "bank").mkdir(exist_ok=True)
        self.versions: list[State] = [State()]
        self.words = ["create"]
        self.pins: dict[int, Answers] = {}
        self.tags: dict[str, int] = {}
        self.collected: set[int] = set()
        self.visible: set[Step] = set()
        self.tally: Counter[str] = Counter()
        self.failure: BaseException | None = None
        self.writers = [self._writer(n) for n in range(N_WRITERS)]
        self.reader = tb.open(self.url, cache=folder / "reader")
        self.perform(Step(FIRST))

    @property
    def head(self) -> State:
        """The newest version of the model."""
        return self.versions[-1]

    def _writer(self, number: int) -> tuple[tb.Bank, StoppedStore]:
        store = StoppedStore(self.url)
        catalog = Catalog(store, IndexMirror(store, self.folder / f"writer-{number}"))
        return Bank(LocalEngine(catalog)), store

    def perform(self, step: Step) -> None:
        """Let a writer do an operation, and look at what came of it."""
        number = step.writer % N_WRITERS
        bank, store = self.writers[number]
        start = self.head
        if step.stop is not None:
            store.arm(step.stop.at, step.stop.after, self._stopping(step, number, start))
        ended = NOTHING
        try:
            step.operation.run(bank)
        except DiedError:
            ended = "died"
            self.writers[number] = self._writer(number)
        except TensorBankError as error:
            ended = str(error.kind)
        finally:
            store.disarm()
        if self.failure is not None:
            raise self.failure
        self.tally[ended] += 1
        self.tally["raced"] += bool(store.stopped and step.stop and step.stop.meanwhile)
        if step not in self.visible:
            self._observe(step, start, ended)
        self.visible.discard(step)

    def _stopping(self, step: Step, number: int, start: State) -> Callable[[], None]:
        stop = step.stop or Stop(1)

        def act() -> None:
            if not stop.meanwhile:
                raise DiedError
            try:
                if self.reader.catalog.version(TABLE).version == len(self.versions):
                    self._observe(step, start, NOTHING)  # done already, so what comes now comes after it
                    self.visible.add(step)
                for between in stop.meanwhile:
                    self.perform(Step(between.operation, number + 1, between.stop))
            except BaseException as error:  # whatever the interrupted operation makes of it
                self.failure = self.failure or error
                raise

        return act

    def _observe(self, step: Step, start: State, ended: str) -> None:
        newest = self.reader.catalog.version(TABLE).version
        accepted = step.operation.outcomes(start, self.head, self.versions)
        if isinstance(step.operation, Collect):
            self.collected |= {*range(newest)} - {*self.tags.values()}
        if isinstance(step.operation, Restore) and step.operation.version in self.collected:
            accepted += GONE
        before = len(self.versions) - 1
        assert newest - before in (0, 1), f"{step} led from version {before} to {newest}"
        if newest == before:
            assert ended == "died" or ended in [a for a in accepted if isinstance(a, str)], (
                f"{step} ended in {ended!r} and no version; the model says {accepted}"
            )
            if ended == "died":  # nothing of it may be seen
                self.pin(newest)
            return
        assert ended in (NOTHING, "died"), f"{step} made version {newest}, and ended in {ended!r}"
        states = [a for a in accepted if isinstance(a, State)]
        answers = ask(self.reader, TABLE, newest)
        found = next(filter(None, (agreed(answers, state) for state in states)), None)
        assert found is not None, f"{step} made version {newest}: {difference(answers, states)}"
        self.versions.append(found)
        self.tally["versions"] += 1
        self.words.append(step.operation.word)

    def pin(self, version: int) -> None:
        """Let a reader note what a version holds, or compare it with what it noted before."""
        self._look(self.reader, version % len(self.versions))

    def tag(self, name: str, version: int) -> None:
        """Give a version a name that keeps it, and take it from the one that had it."""
        bank, _ = self.writers[0]
        if name in self.tags:
            bank.table(TABLE).untag(name)
            del self.tags[name]
        if version % len(self.versions) not in self.collected:
            bank.table(TABLE).at(version % len(self.versions)).tag(name)
            self.tags[name] = version % len(self.versions)

    def _look(self, bank: tb.Bank, version: int) -> None:
        try:
            answers = ask(bank, TABLE, version)
        except TensorBankError as error:
            if version in self.collected and error.kind in GONE:
                return
            raise AssertionError(f"version {version} is gone: {error}") from error
        assert agreed(answers, self.versions[version]), (
            f"version {version}: {difference(answers, [self.versions[version]])}"
        )
        noted = self.pins.setdefault(version, answers)
        assert noted.exact == answers.exact, f"version {version} has another content than before"

    def close(self, newest: int = 1000) -> None:
        """Look at the newest versions by a reader that has no copies, and at the last one by one that knows the format alone."""
        fresh = tb.open(self.url, cache=self.folder / "fresh")
        for version in range(len(self.versions))[-newest:]:
            self._look(fresh, version)
        told = {info.version: info.operation for info in fresh.table(TABLE).history()}
        expected = dict(enumerate(self.words))
        assert told == {v: w for v, w in expected.items() if v in told or v not in self.collected}
        if not self.collected:
            self._look_by_format()

    def _look_by_format(self) -> None:
        snapshot = second_reader.Snapshot(self.folder / "bank", TABLE)
        state = self.head
        assert sorted(r["sample_id"] for r in snapshot.samples) == sorted(map(name_of, state.samples))
        assert {r["sample_id"] for r in snapshot.tiles} == {*map(name_of, state.samples)}
        for column, values in snapshot.columns.items():
            held = {r["sample_id"]: values.get(r["key"]) for r in snapshot.samples}
            assert held == {name_of(n): state.values[column].get(n) for n in state.samples}


def agreed(answers: Answers, state: State) -> State | None:
    """Return the state; None if the answers are of another."""
    return state if answers.told == state.told() and state.has_values(answers.values) else None


def difference(answers: Answers, states: list[State]) -> str:
    """Describe in which points answers differ from each of some states."""
    lines = []
    for state in states:
        told = state.told()
        points = [
            f"{k} is {answers.told[k]} instead of {told[k]}" for k in told if answers.told[k] != told[k]
        ]
        lines.append("; ".join(points) or f"values are {answers.values} instead of {state.values}")
    return " or ".join(lines)[:2000] or "no new version was expected"
