"""A bank of one table, its writers and readers, and the model of it: each step is done in both, and compared."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

import tensorbank as tb
from support import second_reader
from support.whole_life.answers import Answers, ask
from support.whole_life.model import State, name_of
from support.whole_life.operations import (
    NAMES,
    NOTHING,
    TABLE,
    Collect,
    Compact,
    Copy,
    Hold,
    Ingest,
    Operation,
    Refresh,
    Rename,
    Restore,
)
from support.whole_life.stopped_store import DiedError, StoppedStore
from tensorbank.bank import Bank, LocalEngine
from tensorbank.catalog import Catalog
from tensorbank.errors import ErrorKind, NotFoundError, TensorBankError
from tensorbank.index_files import IndexMirror
from tensorbank.retention import lease_key

__all__ = ["Step", "Stop", "World"]

N_WRITERS = 2
FIRST = Ingest(0, 4)
GONE = (
    ErrorKind.NO_OBJECT,
    ErrorKind.NOT_FOUND,
    ErrorKind.MISSING_FILE,
    ErrorKind.UNKNOWN_SNAPSHOT,
)
"""The kinds of errors by which a version is told to be gone."""
MARGIN_S = 0.1
"""Seconds by which the times of files may be behind a clock."""


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
        self.pins: dict[tuple[str, int], Answers] = {}
        self.name = TABLE
        self.earlier: set[str] = set()
        self.tags: dict[str, int] = {}
        self.leases: dict[str, tuple[int, str]] = {}  # version, and the table's name then
        self.copies: dict[str, tuple[int, State]] = {}
        self.depth = 0
        self.began = 0.0
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

    @property
    def kept(self) -> set[int]:
        """The versions that tags and leases keep."""
        return {*self.tags.values(), *(version for version, _ in self.leases.values())}

    def perform(self, step: Step) -> None:
        """Let a writer do an operation, and look at what came of it. A writer who dies over a renaming does it again."""
        if not self.depth:
            self.began = time.time()
        self.depth += 1
        try:
            self._perform(step)
        finally:
            self.depth -= 1
        if isinstance(step.operation, Rename) and step.stop is not None:
            self.perform(Step(step.operation, step.writer))

    def _perform(self, step: Step) -> None:
        number = step.writer % N_WRITERS
        bank, store = self.writers[number]
        start = self.head
        if step.stop is not None:
            store.arm(step.stop.at, step.stop.after, self._stopping(step, number, start))
        ended, operation, name = NOTHING, step.operation, self.name
        if isinstance(operation, Collect) and self.depth > 1:  # others are at work
            operation = Collect(self.began - MARGIN_S)
        try:
            operation.run(bank, name)
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
        if step not in self.visible or self._newest() == len(self.versions):
            self._observe(step, start, ended, name)
        self.visible.discard(step)

    def _stopping(self, step: Step, number: int, start: State) -> Callable[[], None]:
        stop = step.stop or Stop(1)

        def act() -> None:
            if not stop.meanwhile:
                raise DiedError
            try:
                if self._newest() == len(self.versions):
                    self._observe(
                        step, start, NOTHING, self.name
                    )  # done already, so what comes now comes after it
                    self.visible.add(step)
                for between in stop.meanwhile:
                    self.perform(Step(between.operation, number + 1, between.stop))
            except BaseException as error:  # whatever the interrupted operation makes of it
                self.failure = self.failure or error
                raise

        return act

    def _newest(self) -> int:
        """Return the newest version of the table, whatever its name is by now."""
        for name in (self.name, *NAMES):
            if name not in self.copies:
                with suppress(NotFoundError):
                    newest = self.reader.catalog.version(name).version
                    if name != self.name:
                        self.earlier |= {self.name}
                    self.name = name
                    self.earlier -= {name}
                    return newest
        raise AssertionError(f"the table is gone that was called {self.name}")

    def _observe(self, step: Step, start: State, ended: str, name: str) -> None:
        newest = self._newest()
        operation = step.operation
        accepted = operation.outcomes(start, self.head, self.versions)
        if isinstance(operation, Collect):
            self.collected |= {*range(newest)} - self.kept
        if isinstance(operation, Restore | Copy) and operation.version in self.collected:
            accepted += GONE
        if isinstance(operation, Copy):
            accepted += self._copied(operation)
        if isinstance(operation, Hold):
            self._held(operation, name)
        if name != self.name:  # whatever is found out of a table that is being renamed
            accepted += [ErrorKind.UNKNOWN_TABLE, ErrorKind.EXISTS, *GONE]
        before = len(self.versions) - 1
        most = 2 if isinstance(operation, Refresh) else 3 if isinstance(operation, Compact) else 1
        assert newest - before in range(most + 1), f"{step} led from version {before} to {newest}"
        if newest == before:
            assert ended == "died" or ended in [a for a in accepted if isinstance(a, str)], (
                f"{step} ended in {ended!r} and no version; the model says {accepted}"
            )
            if ended == "died":  # nothing of it may be seen
                self.pin(newest)
            return
        assert ended in (NOTHING, "died"), f"{step} made version {newest}, and ended in {ended!r}"
        for version in range(before + 1, newest + 1):
            accepted = operation.outcomes(start, self.head, self.versions)
            states = [a for a in accepted if isinstance(a, State)]
            answers = ask(self.reader, self.name, version)
            found = next(filter(None, (agreed(answers, state) for state in states)), None)
            assert found is not None, f"{step} made version {version}: {difference(answers, states)}"
            self.versions.append(found)
            self.tally["versions"] += 1
            self.tally[type(operation).__name__] += 1
            self.words.append(operation.word)

    def _copied(self, copy: Copy) -> list[str]:
        """Note a copy that is there, and return the errors that there may be instead."""
        taken = copy.new in (self.name, *self.earlier, *self.copies)
        if not taken and copy.new in self.reader.catalog.tables():
            self.copies[copy.new] = copy.version, self.versions[copy.version]
            self._look_at_copy(self.reader, copy.new)
            self.tally["Copy"] += 1
        return [ErrorKind.EXISTS] if taken else []

    def _look_at_copy(self, bank: tb.Bank, name: str) -> None:
        _, state = self.copies[name]
        answers = ask(bank, name, 0)
        assert agreed(answers, state), f"copy {name}: {difference(answers, [state])}"

    def _held(self, hold: Hold, name: str) -> None:
        """Note a lease that is there, of a version that was not removed before."""
        if self.reader.catalog.store.exists(lease_key(name, hold.name)):
            self.leases[hold.name] = hold.version, name

    def hold(self, name: str, version: int) -> None:
        """Let a reader hold a lease, and give up the one that it had."""
        if name in self.leases:
            _, table = self.leases.pop(name)
            self.reader.catalog.store.delete(lease_key(table, name))
        if version % len(self.versions) not in self.collected:
            self.perform(Step(Hold(name, version % len(self.versions))))

    def pin(self, version: int) -> None:
        """Let a reader note what a version holds, or compare it with what it noted before."""
        self._look(self.reader, version % len(self.versions))

    def tag(self, name: str, version: int) -> None:
        """Give a version a name that keeps it, and take it from the one that had it."""
        bank, _ = self.writers[0]
        if name in self.tags:
            bank.table(self.name).untag(name)
            del self.tags[name]
        if version % len(self.versions) not in self.collected:
            bank.table(self.name).at(version % len(self.versions)).tag(name)
            self.tags[name] = version % len(self.versions)

    def _look(self, bank: tb.Bank, version: int) -> None:
        try:
            answers = ask(bank, self.name, version)
        except TensorBankError as error:
            if version in self.collected and error.kind in GONE:
                return
            raise AssertionError(f"version {version} is gone: {error}") from error
        assert agreed(answers, self.versions[version]), (
            f"version {version}: {difference(answers, [self.versions[version]])}"
        )
        noted = self.pins.setdefault((self.name, version), answers)
        assert noted.exact == answers.exact, f"version {version} has another content than before"

    def close(self, newest: int = 1000) -> None:
        """Look at the newest versions by a reader that has no copies, and at the last one by one that knows the format alone."""
        fresh = tb.open(self.url, cache=self.folder / "fresh")
        for version in range(len(self.versions))[-newest:]:
            self._look(fresh, version)
        for name in self.copies:
            self._look_at_copy(fresh, name)
        for name in self.earlier:
            with pytest.raises(NotFoundError, match="was renamed to"):
                fresh.table(name).snapshot()
        assert fresh.tables() == sorted([self.name, *self.copies])
        told = {info.version: info.operation for info in fresh.table(self.name).history()}
        for version, words in enumerate(self.words):
            if version in told or version not in self.collected:
                assert told[version] in words.split(", ")
        if not self.collected:
            self._look_by_format()

    def _look_by_format(self) -> None:
        snapshot = second_reader.Snapshot(self.folder / "bank", self.name)
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
