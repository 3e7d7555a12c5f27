"""Operations on a table that are stopped at each of their requests: the old snapshot or the new one, sound, and complete when
they are run again. ``make test`` stops few operations, ``make test-thorough`` all of them; ``make crash-points`` does it at all
requests, and writes the table of them.
"""

from __future__ import annotations

import pytest

from support.crash_points import Bench
from support.object_server import ObjectServer
from support.stages import FolderStage, S3Stage
from support.table_life import MISTAKES, MODULES, OPERATIONS
from support.warm_process import WarmProcess

REPRESENTATIVE = "second ingest"
ALWAYS = (REPRESENTATIVE, "delete", "gc under a lease")
"""Operations that are stopped in every run of the tests: of those that add, that change, and that remove."""


@pytest.fixture(scope="module")
def warm():
    with WarmProcess(MODULES) as process:
        yield process


@pytest.fixture(scope="module")
def bench(warm, tmp_path_factory):
    with ObjectServer() as server:
        yield Bench(S3Stage(server, tmp_path_factory.mktemp("caches")), warm)


@pytest.fixture(scope="module")
def folder_bench(warm, tmp_path_factory):
    return Bench(FolderStage(tmp_path_factory.mktemp("banks")), warm)


def operation(name):
    return next(o for o in (*OPERATIONS, *MISTAKES) if o.name == name)


def problems(outcomes):
    return [f"{o.kind} at {o.point}: {text}" for o in outcomes for text in o.problems]


@pytest.mark.parametrize(
    "name",
    [pytest.param(o.name, marks=() if o.name in ALWAYS else pytest.mark.thorough) for o in OPERATIONS],
)
def test_an_operation_that_is_stopped_leaves_the_old_snapshot_or_the_new_one(bench, name):
    """Killed at requests that change something; in between, nothing is there that was not before. Answers are lost where it
    matters most, of the last commits. Long operations are stopped at four requests or so, and one at every second."""
    run = bench.undisturbed(operation(name))
    changing = [p for p in run.points if p.changes]
    indexed = [p for p in changing if "/index/" in p.key]
    changing = changing[:: 2 if name == REPRESENTATIVE else 1 + len(changing) // 4]
    outcomes = bench.outcomes(run, "kill", [*changing, run.points[-1]])
    assert {o.ended for o in outcomes} == {"died"}
    assert {o.found.snapshot for o in outcomes} <= {"old", "new"}
    lost = bench.outcomes(run, "lost", indexed[-3:])
    full = bench.outcomes(run, "full", [changing[0], *indexed[-1:]])
    assert problems([*outcomes, *lost, *full]) == []


@pytest.mark.thorough
def test_every_request_counts_not_only_those_that_write(bench):
    run = bench.undisturbed(operation(REPRESENTATIVE))
    reads = [p for p in run.points if not p.write]
    changing = [p for p in run.points if p.changes]
    outcomes = bench.outcomes(run, "kill", [*reads[::6], reads[-1], *changing[1::2]])
    assert {o.found.snapshot for o in outcomes} == {"old", "new"}
    assert problems(outcomes) == []


def test_a_store_that_may_only_be_read_is_told_of(bench):
    run = bench.undisturbed(operation(REPRESENTATIVE))
    before_commit = [p for p in run.points if p.changes and "/index/" in p.key]
    outcomes = bench.outcomes(run, "read-only", [run.points[-2], *before_commit[::3]])
    assert [o.ended for o in outcomes if o.found.snapshot == "old"] == ["StorageError"] * (len(outcomes) - 1)
    assert problems(outcomes) == []


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        ("kill", 3),
        pytest.param("kill", 1, marks=pytest.mark.thorough),
        *(pytest.param(k, 3, marks=pytest.mark.thorough) for k in FolderStage.kinds if k != "kill"),
    ],
)
def test_a_bank_in_a_folder_is_as_safe(folder_bench, kind, step):
    run = folder_bench.undisturbed(operation(REPRESENTATIVE))
    changing = [p for p in run.points if p.changes]
    outcomes = folder_bench.outcomes(run, kind, changing if step == 1 else changing[1::step])
    assert len(outcomes) > 2
    assert problems(outcomes) == []


@pytest.mark.parametrize(
    ("name", "kind", "at", "told"),
    [
        ("two commits", "kill", -8, "the snapshot is not the old one"),
        ("an error that is kept", "full", 4, "says that it has ended well"),
        ("twice is too much", "kill", -1, "after the second run, the bank has"),
        ("documents that are lost", "kill", 1, "the snapshot is not the old one: it cannot be read"),
    ],
)
def test_a_mistake_is_found(bench, name, kind, at, told):
    run = bench.undisturbed(operation(name))
    outcomes = bench.outcomes(run, kind, [[p for p in run.points if p.changes][at]])
    assert any(told in text for text in problems(outcomes)), problems(outcomes)
