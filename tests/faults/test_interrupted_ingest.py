"""Ingests that are interrupted or killed, as processes of their own: one sentence, the right status, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import tensorbank as tb
from support.waiting import wait_until
from tensorbank_indexer import IngestOptions, ingest, open_source

TERRAMESH = ("terramesh", "--samples", "20", "--per-tar", "10", "--subset", "both", "--checksums")
LIMIT_S = 60.0


def marked(mark: str) -> list[int]:
    """Return the processes that have a mark in their environment, whoever is their parent now."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if mark.encode() in (entry / "environ").read_bytes() and state != "Z":
                    found.append(int(entry.name))
            except OSError:  # gone meanwhile
                continue
    return found


@contextmanager
def ingesting(source: Path, bank: Path, n_workers: int) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run ``tensorbank ingest`` in a session of its own, past its first shard."""
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "tensorbank", "ingest", str(source), str(bank), "--table", "t"),
            *("--workers", str(n_workers), "--samples-per-shard", "1"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "TENSORBANK_TEST_MARK": mark},
    )
    try:
        wait_until(
            lambda: list(bank.glob("t/tensors/*.progress/*")) or process.poll() is not None,
            "no shard was written",
        )
        assert process.poll() is None, process.communicate()
        yield process, mark
    finally:
        for pid in marked(mark):
            os.kill(pid, signal.SIGKILL)
        process.wait(timeout=LIMIT_S)
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()


@pytest.mark.parametrize(
    ("number", "whole_group", "n_workers"),
    [(signal.SIGINT, True, 2), (signal.SIGTERM, False, 2), (signal.SIGTERM, True, 1)],
)
def test_an_interrupted_ingest_says_so_and_leaves_nothing(
    make_archives, tmp_path, number, whole_group, n_workers
):
    """Ctrl-C reaches the whole group, ``kill`` and Kubernetes one process, ``timeout`` and systemd all."""
    source, _ = make_archives(*TERRAMESH)
    with ingesting(source, tmp_path / "bank", n_workers) as (process, mark):
        if whole_group:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        out, err = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 128 + number, err
        lines = [line for line in err.splitlines() if not line.startswith(("scan ", "write "))]
        assert len(lines) == 1, err
        assert lines[0].startswith("interrupted; ")
        assert out == ""
        wait_until(lambda: not marked(mark), f"processes are left: {marked(mark)}")
    bank = tb.open(tmp_path / "bank")
    report = ingest(open_source(str(source)), bank, "t", IngestOptions(n_workers=1, samples_per_shard=1))
    assert report.n_added == 20
    assert report.n_resumed > 0
    assert not list((tmp_path / "bank").glob("t/tensors/*.progress/*"))


def test_an_ingest_by_workers_ends_without_a_word_of_theirs(make_archives, tmp_path):
    """Right at its end, where workers that end by themselves and those that are ended meet."""
    source, _ = make_archives(*TERRAMESH)
    command = [
        sys.executable,
        "-m",
        "tensorbank",
        "ingest",
        str(source),
        str(tmp_path / "bank"),
        "--table",
        "t",
    ]
    done = subprocess.run(
        [*command, "--workers", "2", "--samples-per-shard", "1"],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if not line.startswith(("scan ", "write "))] == []
    assert "20 samples added" in done.stdout


def test_workers_end_with_a_parent_that_is_killed(make_archives, tmp_path):
    source, _ = make_archives(*TERRAMESH)
    with ingesting(source, tmp_path / "bank", 2) as (process, mark):
        assert len(marked(mark)) >= 3
        os.kill(process.pid, signal.SIGKILL)
        process.wait(timeout=LIMIT_S)
        wait_until(lambda: not marked(mark), f"workers are left: {marked(mark)}")


def test_a_worker_that_is_killed_costs_its_task(make_archives, tmp_path):
    source, _ = make_archives(*TERRAMESH)
    with ingesting(source, tmp_path / "bank", 2) as (process, mark):
        workers = [pid for pid in marked(mark) if pid != process.pid and _parent(pid) != process.pid]
        os.kill(workers[-1], signal.SIGKILL)
        out, err = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0, err
        assert "20 samples added" in out
        assert "Traceback" not in err
        wait_until(lambda: not marked(mark), f"processes are left: {marked(mark)}")


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
