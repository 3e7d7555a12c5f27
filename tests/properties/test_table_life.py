"""The life of a table under several writers, readers and maintainers, beside a model of it; and mistakes that it must notice."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from support.differential.planted import planted
from support.whole_life.machine import TableLife
from support.whole_life.operations import (
    AddModality,
    AddSortedCopy,
    Collect,
    Compact,
    Copy,
    Delete,
    DropModality,
    Hold,
    Ingest,
    PutColumn,
    Refresh,
    Rename,
    ReplaceModality,
    Restore,
)
from support.whole_life.world import Step, Stop, World
from tensorbank.catalog import changes as table_changes
from tensorbank.catalog import commits, copies, membership, publishing, renaming
from tensorbank.columns import changes as column_changes
from tensorbank.corrections import dropped_modality, restoration
from tensorbank.delta import actions, log_writer
from tensorbank.errors import ErrorKind, TensorBankError
from tensorbank.maintenance import compaction, merge
from tensorbank.planning import views
from tensorbank.removal import garbage, kept_versions
from tensorbank.retention import expiry, protection
from tensorbank.sorted_copies import sorted_copy
from tensorbank_indexer.modality_changes import index_change, job

LIFE = settings(
    stateful_step_count=8,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.generate],  # to make a life shorter that went wrong takes minutes
)


@pytest.mark.parametrize("n_lives", [4, pytest.param(9, marks=pytest.mark.thorough)])
def test_any_life(n_lives):
    """All snapshots are those of the model, whoever was quicker or died; and stay what they were."""
    TableLife.tally.clear()
    run_state_machine_as_test(TableLife, settings=settings(LIFE, max_examples=n_lives))
    tally = TableLife.tally
    assert min(tally["versions"], tally["raced"], tally["died"]) > 0, tally
    assert tally["versions"] > 2 * n_lives, tally
    assert n_lives < 9 or tally[ErrorKind.UNKNOWN_SAMPLE] > 0, tally


LAST = 3
"""The number of the write by which a deletion, or a change of a column, becomes visible."""


def racing(step: Step, at: int, *between: Step, after: bool = False) -> Step:
    """Return a step with others of another writer right before one of its writes, or after it."""
    return Step(step.operation, step.writer, Stop(at, after, between))


def dying(step: Step) -> Step:
    """Return a step whose writer dies right before it becomes visible."""
    return Step(step.operation, step.writer, Stop(LAST))


def live(world: World, steps: tuple[Step, ...]) -> None:
    """Perform steps on a table whose first version with samples has a tag, and look at all that there is."""
    world.tag("first", 1)
    for step in steps:
        world.perform(step)
    world.close()


FEW_GO = Step(Delete((1, 2)))
ONE_GOES = Step(Delete((3,)))
SCORED = Step(PutColumn("x", (0, 1, 2, 3), 1))
MORE = Step(Ingest(4, 4), 1)
BACK = Step(Restore(1))
COLLECTED = Step(Collect(), 1)
RENAMED = Step(Rename("v"))
BOTH = Step(Ingest(4, 2, 1, both=True))
HELD = (FEW_GO, Step(Hold("reader", 2)), Step(Compact()))
"""A version under a lease, with files that no other version has."""


def test_a_writer_that_loses_leaves_the_part_that_another_one_committed(tmp_path):
    """Two ingests of one archive write the same part: the second one must not take it away."""
    world = World(tmp_path)
    ingest = Step(Ingest(6, 4))
    live(world, (racing(ingest, -1, ingest, Step(Delete((7,)))),))
    assert [n for n in sorted(world.head.samples) if n >= 6] == [6, 7, 8, 9]
    assert world.words == ["create", "ingest", "ingest", "delete", "ingest"]


@dataclass(frozen=True)
class Mistake:
    """A piece of source, what replaces it, and the steps that show it."""

    module: ModuleType
    right: str
    wrong: str
    steps: tuple[Step, ...]


MISTAKES = {
    "files of the snapshot are not added again": Mistake(
        actions,
        "again = [i for i in kept if wanted.files[i].key not in there]",
        "again = []",
        (MORE, BACK, Step(Ingest(8, 1))),
    ),
    "a copy of files that are gone is read": Mistake(
        sorted_copy,
        "if not self.sources <= names.keys():",
        "if not names:",
        (MORE, Step(AddSortedCopy("sample_id")), Step(ReplaceModality("DEM", 3, 1, 2))),
    ),
    "deleted samples are members": Mistake(
        membership, "((1, self._held), (-1, self._deleted))", "((1, self._held),)", (FEW_GO,)
    ),
    "another version of a level is pinned": Mistake(
        publishing,
        "    said = {FORMAT",
        "    pins |= {n: levels.newest(head.table, n).files.version for n in pins}\n    said = {FORMAT",
        (ONE_GOES, racing(FEW_GO, LAST - 1, dying(Step(Delete((0,)))), after=True)),
    ),
    "the commit of samples replaces another": Mistake(
        log_writer,
        "if not store.claim(",
        "if store.put(",
        (racing(FEW_GO, LAST, MORE),),
    ),
    "a change that lost is not made anew": Mistake(
        publishing,
        "change = upgrade(head) if is_old else make(head)",
        "change = change if attempt else make(head)",
        (racing(SCORED, LAST, SCORED),),
    ),
    "the newest version of a level is read": Mistake(
        table_changes, "return self.pins[level]", "return None", (FEW_GO, dying(ONE_GOES))
    ),
    "deleted rows hide those that come again": Mistake(
        views,
        "ANTI JOIN {self._gone(table.deleted)} AS gone USING (key, part)",
        "ANTI JOIN {self._gone(table.deleted)} AS gone USING (key)",
        (FEW_GO, Step(Ingest(0, 4, 2))),
    ),
    "what was deleted since stays so": Mistake(
        restoration,
        "for level in (head.pins or {}) if not wanted.has(level)}",
        "for level in ()}",
        (FEW_GO, BACK),
    ),
    "keys of samples that compaction drops stay": Mistake(
        merge,
        "pairs = without(pairs, np.concatenate(deleted) if deleted else np.zeros((0, 2), np.int64))",
        "pass",
        (FEW_GO, Step(Compact())),
    ),
    "compaction takes away what is there no more": Mistake(
        compaction,
        "if not there.issuperset(f.key for f in removed):",
        "if False:",
        (ONE_GOES, racing(Step(Compact()), 1, FEW_GO)),
    ),
    "the collection overlooks tags": Mistake(
        kept_versions,
        "elif (why := protection.reason(version)) is not None:",
        "elif why := None:",
        (FEW_GO, COLLECTED),
    ),
    "what was said of a deleted sample is said of the next one": Mistake(
        commits,
        "for name in head.columns if len(returning)",
        "for name in ()",
        (SCORED, FEW_GO, Step(Ingest(0, 4, 2))),
    ),
    "leases do not count": Mistake(
        protection, "if not lease.is_expired(now) and", "if False and", (*HELD, COLLECTED)
    ),
    "leases do not count below the name that a table had": Mistake(
        protection, "for name in (table, *earlier)]", "for name in (table,)]", (*HELD, RENAMED, COLLECTED)
    ),
    "what others write is garbage": Mistake(
        garbage,
        "unnamed = self.unnamed([] if young and not needed else old)",
        "unnamed = self.unnamed([o.key for o in objects if o.key in shards])",
        (racing(MORE, -1, COLLECTED),),
    ),
    "versions that have expired come back": Mistake(
        expiry,
        "    if version.version in expired_versions(",
        "    if version.version < 0 and version.version in expired_versions(",
        # The writer knows the version already; else it would miss the logs that are gone.
        (Step(Restore(0)), Step(Restore(1)), COLLECTED, Step(Restore(0))),
    ),
    "a copy has what was deleted": Mistake(
        copies,
        "for level in source.pins}",
        'for level in source.pins if level != "deleted"}',
        (FEW_GO, Step(Copy(2, "copy"))),
    ),
    "the old log goes with the name": Mistake(
        renaming,
        "if name != RENAMED and (name == first or not commits_in([name])):",
        "if name != RENAMED:",
        (racing(FEW_GO, LAST, RENAMED),),
    ),
    "a refresh leaves what it replaces": Mistake(
        commits,
        "changes[DELETED] = LevelChange(added=(write(DELETED, gone),))",
        "changes[DELETED] = LevelChange()",
        (BOTH, Step(Refresh(4, 2, 2, both=True))),
    ),
    "roll-ups keep a modality that is replaced": Mistake(
        index_change,
        "of_level(head, level) for level in LEVELS}",
        'of_level(head, level) for level in LEVELS if level != "shards"}',
        (Step(ReplaceModality("DEM", 0, 4, 2)),),
    ),
    "a modality that is dropped keeps its tensors": Mistake(
        dropped_modality,
        "having = [f for f in files.files if name in pq.read_schema(catalog.path(f)).names]",
        "having = []",
        (BOTH, Step(DropModality("S1RTC")), Step(AddModality("S1RTC", 0, 2, 2))),
    ),
    "a modality is added to who has it": Mistake(
        job, "return having[~rows.has[having]]", "return having", (BOTH, Step(AddModality("S1RTC", 3, 3, 2)))
    ),
    "an update drops all other values": Mistake(
        column_changes,
        "pa.concat_tables([kept, mine])",
        "pa.concat_tables([mine])",
        (SCORED, Step(PutColumn("x", (3,), 2, "update"))),
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_noticed(name, tmp_path):
    mistake = MISTAKES[name]
    with (
        planted(mistake.module, mistake.right, mistake.wrong),
        pytest.raises((AssertionError, TensorBankError)),
    ):
        live(World(tmp_path), mistake.steps)


@pytest.mark.thorough
def test_the_steps_of_the_mistakes_are_sound(tmp_path):
    """The mistake is what they are caught by: without one, all of them pass, one after the other."""
    world = World(tmp_path)
    world.tag("first", 1)
    for mistake in MISTAKES.values():
        for step in mistake.steps:
            world.perform(step)
        world.perform(BACK)
    world.close(newest=3)
    assert len(world.versions) > len(MISTAKES)
