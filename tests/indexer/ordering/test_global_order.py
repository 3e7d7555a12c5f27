"""Ingest in the order of season and place over all archives, by processes and on Dask, stopped and gone on with."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import tensorbank as tb
from support import SUPPORT
from support.dask_processes import DaskProcesses
from support.scattered_source import DAY_NS, ScatteredSource
from tensorbank.errors import InvalidInputError
from tensorbank_indexer import ArrayTask, IngestOptions, SampleRef, ingest

# Connections whose other end was killed are left to the collector by Dask, and it is no verdict on a test when that runs.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

SOURCE = ScatteredSource(6, 40)
N = 240
BY_BATCH = IngestOptions(n_workers=1, n_tiles=2, samples_per_shard=8, samples_per_part=64)
GLOBAL = replace(BY_BATCH, global_order=True)
"""Parts of 64, 64, 64 and 48 samples."""


def refs_of(source: ScatteredSource) -> list[SampleRef]:
    return [ref for archive in source.archives()[0] for ref in source.scan(archive).samples]


def along_the_curve(x: int, y: int, side: int) -> int:
    """Return the position of a cell on the Hilbert curve of a square, by its definition: four curves of half the size.

    The first of them is mirrored at the rising diagonal, the last one at the falling one.
    """
    if side == 1:
        return 0
    half = side // 2
    if x < half and y < half:
        return along_the_curve(y, x, half)
    if x < half:
        return half * half + along_the_curve(x, y - half, half)
    if y >= half:
        return 2 * half * half + along_the_curve(x - half, y - half, half)
    return 3 * half * half + along_the_curve(half - 1 - y, side - 1 - x, half)


def season(ref: SampleRef) -> str:
    """Return the season of a sample by the months of the north; in the south it is that of half a year later."""
    day = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=ref.time_ns // DAY_NS)
    month = day.month if ref.lat >= 0 else (day.month + 5) % 12 + 1
    return ("winter", "spring", "summer", "autumn")[month % 12 // 3]


def truth(source: ScatteredSource) -> list[str]:
    """Return the ids of all samples in the order of season and place."""
    cells = 2**16

    def place(ref: SampleRef) -> tuple[str, int]:
        x, y = int((ref.lon + 180) / 360 * cells), int((ref.lat + 90) / 180 * cells)
        return season(ref), along_the_curve(x, y, cells)

    return [ref.sample_id for ref in sorted(refs_of(source), key=place)]


def parts_of(bank: tb.Bank) -> list[list[str]]:
    """Return the ids of each part in the order of its rows, parts in the order of their commits."""
    rows = bank.sql("SELECT sample_id, part, S2L2A.ref.row AS row FROM t").arrow().to_pylist()
    parts = [entry.part for entry in bank.table("t").history() if entry.part]
    return [
        [row["sample_id"] for row in sorted(rows, key=lambda row: row["row"]) if row["part"] == part]
        for part in reversed(parts)
    ]


def folder_of(bank: tb.Bank) -> Path:
    assert bank.catalog.store.local_path is not None
    return bank.catalog.store.local_path


def objects(folder: Path) -> dict[str, bytes]:
    """Return what an ingest wrote of tensors, by key; a report has seconds in it, and a killed write leaves a file with ``#``."""
    files = (f for f in (folder / "t/tensors").rglob("*") if f.is_file() and "#" not in f.name)
    return {
        f.relative_to(folder).as_posix(): f.read_bytes() for f in files if not f.name.endswith(".ingest.json")
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tb.Bank:
    """A bank in global order that this process made alone."""
    bank = tb.create(tmp_path_factory.mktemp("made"))
    assert ingest(SOURCE, bank, "t", GLOBAL).n_added == N
    return bank


def test_samples_lie_as_a_sort_by_season_and_place_has_them(made):
    parts = parts_of(made)
    assert [len(part) for part in parts] == [64, 64, 64, 48]
    assert [name for part in parts for name in part] == truth(SOURCE)


def test_processes_and_a_cluster_write_the_same_bytes(made, tmp_path):
    expected = objects(folder_of(made))
    assert len(expected) > N // 8
    ingest(SOURCE, tb.create(tmp_path / "processes"), "t", replace(GLOBAL, n_workers=2))
    assert objects(tmp_path / "processes") == expected
    with DaskProcesses(tmp_path / "dask") as cluster:
        cluster.workers(2)
        options = replace(GLOBAL, n_workers=None, engine=cluster.scheduler)
        ingest(SOURCE, tb.create(tmp_path / "bank"), "t", options)
    assert objects(tmp_path / "bank") == expected


def test_fewer_shards_and_files_may_hold_an_answer(made, tmp_path):
    """The shards and files that the index leaves, of 30 in 4 by the global order, and in 3 by batches of 64 samples and more."""
    scattered = tb.create(tmp_path)
    ingest(SOURCE, scattered, "t", BY_BATCH)
    box = "within_bbox(lon, lat, 0, 0, 90, 60)"
    cases = {
        "season = 'summer'": lambda ref: season(ref) == "summer",
        f"season = 'winter' AND {box}": lambda ref: season(ref) == "winter" and is_in_box(ref),
        box: is_in_box,
    }
    for condition, matches in cases.items():
        wanted = {ref.sample_id for ref in refs_of(SOURCE) if matches(ref)}
        assert len(wanted) > 8
        files, shards = {}, {}
        for name, bank in (("global", made), ("by batch", scattered)):
            plan = bank.sql(f"SELECT sample_id, S2L2A FROM t WHERE {condition}").plan()
            assert set(plan.table["sample_id"].to_pylist()) == wanted
            kept = {level.level: level.kept for level in plan.source.levels}
            files[name], shards[name] = kept["files"], kept["shards"]
        assert shards["global"] < shards["by batch"]
        if "season" in condition:
            assert files["global"] < files["by batch"] == 3


def is_in_box(ref: SampleRef) -> bool:
    return 0 <= ref.lon <= 90 and 0 <= ref.lat <= 60


def test_a_second_run_adds_nothing_and_new_archives_become_one_part(made, tmp_path):
    bank = tb.create(tmp_path)
    ingest(SOURCE, bank, "t", GLOBAL)
    again = ingest(SOURCE, bank, "t", GLOBAL)
    assert (again.n_added, again.n_present, again.parts) == (0, N, [])
    more = ScatteredSource(7, 40)
    report = ingest(more, bank, "t", GLOBAL)
    assert (report.n_added, report.n_present, len(report.parts)) == (40, N, 1)
    new = {ref.sample_id for ref in refs_of(ScatteredSource(1, 40, first=6))}
    assert parts_of(bank)[-1] == [name for name in truth(more) if name in new]


# ------------------------------------------------------------ what is killed

UNREADABLE = 5
STOPPED = """
import os, signal, sys
import tensorbank as tb
from support.scattered_source import ScatteredSource
from tensorbank_indexer import IngestOptions, ingest
n_left = 12  # in the second part, of which some shards are finished and others are not
def die(what, done, total):
    global n_left
    n_left -= what == "write"
    if not n_left: os.kill(os.getpid(), signal.SIGKILL)
if __name__ == "__main__":
    source, bank = ScatteredSource(6, 40, unreadable=[5]), tb.create(sys.argv[1])
    cut = dict(n_tiles=2, samples_per_shard=8, samples_per_part=64)
    options = IngestOptions(n_workers=2, global_order=True, engine=sys.argv[2], **cut)
    ingest(source, bank, "t", options, progress=die)
"""


@pytest.mark.parametrize("engine", ["processes", "dask"])
def test_a_run_that_is_killed_goes_on_in_the_middle_of_a_part(engine, tmp_path):
    """A sample that nobody can read is new to each run, and must not move the others."""
    source = ScatteredSource(6, 40, unreadable=[UNREADABLE])
    folder, whole = tmp_path / "bank", tmp_path / "whole"
    script = tmp_path / "stopped.py"
    script.write_text(STOPPED)
    environment = {**os.environ, "PYTHONPATH": str(SUPPORT.parent)}
    killed = subprocess.run([sys.executable, script, folder, engine], env=environment, timeout=200)
    assert killed.returncode < 0
    n_before = tb.open(folder).table("t").snapshot().n_samples
    assert n_before in (63, 64), "one part is committed"
    expected = ingest(source, tb.create(whole), "t", GLOBAL)
    assert truth(source).index(f"sample-{UNREADABLE:04d}") < 64, "in the part that is committed"
    report = ingest(source, tb.open(folder), "t", GLOBAL)
    assert (report.n_added, report.n_present, report.n_resumed) == (N - 1 - 63, 63, 32)
    assert [finding.member for finding in report.findings] == [f.member for f in expected.findings]
    assert parts_of(tb.open(folder)) == parts_of(tb.open(whole))
    assert objects(folder) == objects(whole)


@pytest.mark.parametrize("options", [BY_BATCH, GLOBAL], ids=["by batch", "global"])
def test_samples_that_nobody_can_read_do_not_end_a_second_run(options, tmp_path):
    source = ScatteredSource(2, 8, unreadable=[3, 11])
    bank = tb.create(tmp_path)
    assert ingest(source, bank, "t", options).n_added == 14
    again = ingest(source, bank, "t", options)
    assert (again.n_added, again.n_present, again.n_skipped) == (0, 14, 2)
    assert {finding.member for finding in again.findings} == {"sample-0003", "sample-0011"}


# ------------------------------------------------------------ what is refused


def test_archives_that_are_read_as_a_whole_are_refused(tmp_path):
    source = ScatteredSource(2, 4)
    source.placement = "archive"
    bank = tb.create(tmp_path)
    with pytest.raises(InvalidInputError, match=r"format tiny.* ingest without --global-order"):
        ingest(source, bank, "t", GLOBAL)
    assert bank.tables() == []


def test_a_task_of_an_array_job_has_no_global_order():
    with pytest.raises(InvalidInputError, match="a task of an array job lists its share only"):
        replace(GLOBAL, task=ArrayTask(0, 2))


def test_a_dry_run_counts_and_writes_nothing(tmp_path):
    bank = tb.create(tmp_path)
    report = ingest(SOURCE, bank, "t", replace(GLOBAL, dry_run=True))
    assert (report.n_found, report.n_archives, report.n_added) == (N, 6, 0)
    assert bank.tables() == []
