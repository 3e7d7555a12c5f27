"""Array jobs: whichever tasks run, die, run twice or late, a commit shows each sample once, and tells what is missing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import tensorbank as tb
from support.tiny_source import TinySource, pixels
from tensorbank.cli.app import main
from tensorbank.errors import InvalidInputError, NotFoundError
from tensorbank.storage import Store
from tensorbank.verification import verify
from tensorbank_indexer import Archive, Finding, IngestOptions, Scan, ingest
from tensorbank_indexer.array_jobs import FinishedPart, commit_parts
from tensorbank_indexer.options import ArrayTask
from tensorbank_indexer.parts import checkpoint

N_ARCHIVES, N_OF_EACH = 5, 3


class Archives(TinySource):
    """A source of several archives, each of which is one of a :class:`TinySource`."""

    def __init__(self, n_archives: int = N_ARCHIVES) -> None:
        super().__init__(N_OF_EACH)
        self.each = [TinySource(N_OF_EACH, N_OF_EACH * i) for i in range(n_archives)]

    def archives(self) -> tuple[list[Archive], list[Finding]]:
        return [archive for one in self.each for archive in one.archives()[0]], []

    def scan(self, archive: Archive) -> Scan:
        (scan,) = [one.scan(archive) for one in self.each if one.archives()[0] == [archive]]
        return scan


def run(bank: tb.Bank, task: str | None, source: TinySource | None = None):
    options = IngestOptions(
        n_workers=1, samples_per_shard=2, n_tiles=2, task=None if task is None else ArrayTask.parse(task)
    )
    return ingest(source or Archives(), bank, "t", options)


@pytest.fixture
def bank(tmp_path: Path) -> tb.Bank:
    return tb.create(tmp_path / "bank")


def numbers_of(bank: tb.Bank) -> dict[str, int]:
    """Return how often each sample is in the table, by the number that its pixels follow from."""
    found: dict[str, int] = {}
    for row in bank.sql("SELECT sample_id FROM t").arrow().to_pylist():
        found[row["sample_id"]] = found.get(row["sample_id"], 0) + 1
    return found


def is_whole(bank: tb.Bank, n_archives: int = N_ARCHIVES) -> bool:
    """Tell whether each sample is there once, with the pixels of its archive."""
    found = numbers_of(bank)
    assert set(found.values()) <= {1}, found
    ids = {ref.sample_id: n for one in Archives(n_archives).each for n, ref in _numbered(one)}
    if found.keys() != ids.keys():
        return False
    for sample_id, number in ids.items():
        read = np.asarray(bank.read(sample_id, table="t")["DEM"])
        np.testing.assert_array_equal(read.reshape(-1), pixels(number, "DEM").reshape(-1))
    return True


def _numbered(one: TinySource) -> Iterator[tuple[int, object]]:
    (archive,) = one.archives()[0]
    yield from enumerate(one.scan(archive).samples, start=one.first)


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize(("n_archives", "n_tasks"), [(0, 3), (2, 5), (7, 3), (6, 1)])
def test_each_archive_is_of_one_task_whether_they_count_from_0_or_from_1(first, n_archives, n_tasks):
    archives = list(range(n_archives))
    shares = [ArrayTask(n, n_tasks).share(archives) for n in range(first, first + n_tasks)]
    assert sorted(archive for share in shares for archive in share) == archives
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("text", ["3", "4/3", "-1/3", "0/0", "a/b", "1/2/3", ""])
def test_what_is_no_task_is_refused(text):
    with pytest.raises(InvalidInputError, match=r"SLURM|--array"):
        ArrayTask.parse(text)


def test_tasks_write_and_one_commit_shows_all_of_it(bank):
    for task in ("2/3", "0/3"):
        report = run(bank, task)
        assert report.n_waiting == report.n_found > 0
        assert not report.n_added + report.n_skipped
        assert not numbers_of(bank)
    early = commit_parts(bank, "t")
    assert [(job.n_tasks, job.numbers) for job in early.unfinished] == [(3, (1,))]
    assert early.n_added == len(numbers_of(bank)) > 0
    assert not early.is_whole
    again = run(bank, "2/3")  # requeued, after all
    assert again.n_present == again.n_found
    assert not again.parts
    run(bank, "1/3")
    done = commit_parts(bank, "t")
    assert done.is_whole
    assert is_whole(bank)
    assert early.n_added + done.n_added == N_ARCHIVES * N_OF_EACH
    nothing = commit_parts(bank, "t")
    assert nothing.is_whole
    assert not nothing.parts
    assert nothing.version == done.version
    operations = [one.operation for one in bank.table("t").history()]
    assert operations.count("ingest") == len(early.parts) + len(done.parts)
    left = {name.partition("-")[0] for name in checkpoint.parts_with(bank.catalog.store, "t")}
    assert left == {"tasks"}, "what the tasks said stays, and nothing of a part"


def test_tasks_that_run_twice_at_once_or_beside_an_ingest_add_nothing_twice(bank):
    for task in ("0/2", "0/2", "1/2", "1/3"):  # of 1/3 some samples are in parts of another shape
        run(bank, task)
    run(bank, None, Archives(2))
    done = commit_parts(bank, "t")
    assert done.left or done.n_present
    while not is_whole(bank):
        assert done.left
        before = len(numbers_of(bank))
        for task in ("0/2", "1/2"):
            run(bank, task)
        done = commit_parts(bank, "t")
        assert len(numbers_of(bank)) > before
    assert not verify(bank, "t", deep=True).findings


class MoreInTheFirst(Archives):
    """A source whose first archive alone has radar, as one part of TerraMesh has other radar than the other."""

    def __init__(self) -> None:
        super().__init__(2)
        self.each[0] = TinySource(N_OF_EACH, 0, modalities=("DEM", "S1RTC"))

    def read(self, refs):
        return (
            raw
            for ref in refs
            for one in self.each
            for raw in one.read([ref] if self._is_of(one, ref) else [])
        )

    @staticmethod
    def _is_of(one: TinySource, ref) -> bool:
        return one.archives()[0][0].name == ref.archive


class Killed(BaseException):
    """The process is gone: nothing catches this."""


def dying_at(monkeypatch: pytest.MonkeyPatch, n: int) -> Callable[[], int]:
    """Let the n-th write of the store not happen, and none after it; return a callable that counts the writes."""
    count = [0]
    for name in ("put", "claim", "delete"):
        real = getattr(Store, name)

        def write(*given: object, _real=real, **named: object):
            count[0] += 1
            if count[0] >= n:
                raise Killed
            return _real(*given, **named)

        monkeypatch.setattr(Store, name, write)
    return lambda: count[0]


def test_a_task_that_finds_other_modalities_when_it_runs_again_leaves_nothing_to_do(bank, monkeypatch):
    source = MoreInTheFirst()
    with monkeypatch.context() as patched:
        patched.setattr(FinishedPart, "save", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            run(bank, "1/2", source)
    (begun,) = [n for n in checkpoint.parts_with(bank.catalog.store, "t") if n.startswith("part-")]
    run(bank, "0/2", source)
    assert [one.part for one in commit_parts(bank, "t").left] == [begun]
    assert run(bank, "1/2", source).n_waiting == N_OF_EACH
    done = commit_parts(bank, "t")
    assert done.n_added == N_OF_EACH
    assert done.superseded == [begun]
    assert "1 parts were begun" in "\n".join(done.lines())
    assert done.is_whole
    assert set(numbers_of(bank).values()) == {1}
    assert not verify(bank, "t", deep=True).findings


@pytest.mark.parametrize("what", [pytest.param("task", marks=pytest.mark.thorough), "commit"])
def test_a_kill_at_any_write_costs_nothing(what, tmp_path, monkeypatch):
    n, survived, source = 0, False, Archives(2)
    while not survived:
        n += 1
        bank = tb.create(tmp_path / f"{n}")
        run(bank, "0/2", source)
        if what == "commit":
            run(bank, "1/2", source)
        with monkeypatch.context() as patched:
            dying_at(patched, n)
            try:
                if what == "task":
                    run(bank, "1/2", source)
                else:
                    commit_parts(bank, "t")
                survived = True
            except Killed:
                pass
        bank = tb.open(tmp_path / f"{n}")
        if what == "task":
            if not survived:
                assert commit_parts(bank, "t").unfinished
            run(bank, "1/2", source)
        done = commit_parts(bank, "t")
        assert done.is_whole, (n, done)
        assert is_whole(bank, 2)
    assert n > 8


def test_parts_of_another_writer_and_damaged_ones_are_left_by_name(bank):
    first, second, third = (run(bank, f"{n}/3").parts[0] for n in range(3))
    store = bank.catalog.store
    found = FinishedPart.load(store, "t", first)
    FinishedPart(first, found.n_shards, found.details, writer=99, written_by="7.0").save(store, "t")
    store.put(f"t/tensors/{second}.progress/0.arrow", b"rubbish")
    done = commit_parts(bank, "t")
    assert done.parts == [third]
    reasons = {one.part: one.reason for one in done.left}
    assert "tensorbank 7.0" in reasons[first]
    assert "lost or damaged" in reasons[second]
    for n in (0, 1):
        run(bank, f"{n}/3")
    assert commit_parts(bank, "t").is_whole
    assert is_whole(bank)


def test_the_command_says_what_is_missing_and_ends_with_1(bank, tmp_path, capsys):
    with pytest.raises(NotFoundError, match="no table"):
        commit_parts(bank, "t")
    run(bank, "0/2")
    command = ["commit", str(tmp_path / "bank"), "--table", "t"]
    assert main(command) == 1
    assert "1 of 2 tasks on tiny://archive have not finished: 1" in capsys.readouterr().out
    n_early = len(numbers_of(bank))
    run(bank, "1/2")
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_added"] + n_early == N_ARCHIVES * N_OF_EACH
    assert is_whole(bank)


def test_a_refresh_is_no_task():
    with pytest.raises(InvalidInputError, match="one ingest"):
        IngestOptions(refresh=True, task=ArrayTask(0, 2))
