"""A state machine over a bank: Hypothesis chooses what writers, readers and maintainers do, and in which order."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from support.whole_life.model import MODALITIES, UNIVERSE, State
from support.whole_life.operations import (
    NAMES,
    AddModality,
    AddSortedCopy,
    Collect,
    Compact,
    Copy,
    Delete,
    DropColumn,
    DropModality,
    DropSortedCopy,
    Ingest,
    Operation,
    PutColumn,
    Refresh,
    Rename,
    ReplaceModality,
    Restore,
)
from support.whole_life.world import Step, Stop, World

__all__ = ["TableLife"]

PLACES = st.sampled_from([-1, -2, -3, 1, 2, 4, -4, 9])
"""The writes at which an operation is stopped; those below zero count commits to logs only. Many operations have fewer."""
WRITERS = st.integers(0, 1)
SPANS = st.tuples(st.integers(0, len(UNIVERSE) - 1), st.integers(1, 4))
MODALITY = st.sampled_from(MODALITIES)
COLUMNS = st.sampled_from(["x", "y"])
SORTABLE = st.sampled_from(["sample_id", "lon"])
OTHER = st.sampled_from(["copy", "another"])
"""The names of copies."""


def operations(state: State, n_versions: int) -> st.SearchStrategy[Operation]:
    """Return a strategy for operations on a table: most of what can be done, some of what must be refused."""
    held = st.sampled_from(sorted(state.samples) or [0])
    some = st.lists(held, min_size=1, max_size=4, unique=True).map(lambda found: tuple(sorted(found)))
    ingests = st.builds(
        lambda span, edition, both: Ingest(span[0], min(span[1], len(UNIVERSE) - span[0]), edition, both),
        SPANS,
        st.integers(1, 2),
        st.booleans(),
    )
    modes = ["replace", "update"]
    late = st.integers(max(0, n_versions - 5), n_versions - 1)
    put = COLUMNS.flatmap(
        lambda c: st.builds(
            PutColumn,
            st.just(c),
            some,
            st.integers(1, 9),
            st.sampled_from(modes if c in state.values else ["add"]),
        )
    )
    replaced = st.builds(
        lambda modality, span, edition: ReplaceModality(
            modality, span[0], min(span[1], len(UNIVERSE) - span[0]), edition
        ),
        MODALITY,
        SPANS,
        st.integers(1, 3),
    )
    refreshed = st.builds(
        lambda span, edition, both: Refresh(span[0], min(span[1], len(UNIVERSE) - span[0], 3), edition, both),
        SPANS,
        st.integers(1, 3),
        st.booleans(),
    )
    added = st.builds(
        lambda modality, span, edition: AddModality(
            modality, span[0], min(span[1], len(UNIVERSE) - span[0]), edition
        ),
        MODALITY,
        SPANS,
        st.integers(1, 3),
    )
    drop = st.builds(DropColumn, st.sampled_from(sorted(state.values) or ["x"]))
    odd = st.builds(PutColumn, COLUMNS, st.just((0, 11)), st.just(1), st.sampled_from([*modes, "add"]))
    return st.one_of(
        ingests,
        put,
        st.builds(Delete, some),
        st.builds(Compact, st.booleans()),
        st.builds(AddSortedCopy, SORTABLE) | st.builds(DropSortedCopy, SORTABLE),
        st.builds(Restore, late),
        st.one_of(ingests, drop, odd),
        st.one_of(replaced, added, st.builds(DropModality, MODALITY)),
        st.one_of(refreshed, st.builds(Copy, late, OTHER), st.builds(Rename, st.sampled_from(NAMES))),
    )


class TableLife(RuleBasedStateMachine):
    """The life of one table; ``tally`` counts what happened in all of them."""

    tally: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="table-life-"))
        self.world = World(self.folder)
        self.sound = True

    def _operations(self) -> st.SearchStrategy[Operation]:
        return operations(self.world.head, len(self.world.versions))

    def _perform(self, step: Step) -> None:
        try:
            self.world.perform(step)
        except BaseException:
            self.sound = False
            raise

    @rule(data=st.data(), writer=WRITERS)
    def write(self, data: st.DataObject, writer: int) -> None:
        """One writer does something."""
        self._perform(Step(data.draw(self._operations()), writer))

    @rule(data=st.data(), writer=WRITERS, at=PLACES, after=st.booleans())
    def race(self, data: st.DataObject, writer: int, at: int, after: bool) -> None:
        """One writer does something while others, who may die, are quicker."""
        dying = st.one_of(st.none(), st.builds(Stop, PLACES, st.booleans()))
        others = st.one_of(self._operations(), st.just(Collect()))
        between = st.builds(Step, others, st.just(0), dying)
        meanwhile = data.draw(st.lists(between, min_size=1, max_size=2).map(tuple))
        self._perform(Step(data.draw(self._operations()), writer, Stop(at, after, meanwhile)))

    @rule(data=st.data(), writer=WRITERS, at=PLACES, after=st.booleans())
    def die(self, data: st.DataObject, writer: int, at: int, after: bool) -> None:
        """One writer dies over something, and does it again."""
        operation = data.draw(self._operations())
        self._perform(Step(operation, writer, Stop(at, after)))
        self._perform(Step(operation, writer + 1))

    @rule(version=st.integers(0, 40))
    def read(self, version: int) -> None:
        """A reader reads at a version."""
        self.world.pin(version)

    @rule(name=st.sampled_from(["a", "b"]), version=st.integers(0, 40))
    def tag(self, name: str, version: int) -> None:
        """Somebody keeps a version."""
        self.world.tag(name, version)

    @rule(name=st.sampled_from(["lease-a", "lease-b"]), version=st.integers(0, 40))
    def hold(self, name: str, version: int) -> None:
        """A reader holds a lease on a version."""
        self.world.hold(name, version)

    @rule(writer=WRITERS, dies=st.one_of(st.none(), st.integers(1, 12)))
    def collect(self, writer: int, dies: int | None) -> None:
        """Garbage is collected, all of it or up to a removal. Nobody else writes: what is past the grace is in use by nobody."""
        self._perform(Step(Collect(), writer, Stop(dies) if dies else None))

    def teardown(self) -> None:
        """Look at everything once more, unless something was wrong before."""
        try:
            if self.sound:
                self.world.close()
            self.tally.update(self.world.tally)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
