"""Ingest by an array job of SLURM whose tasks are requeued, cancelled, lost with their node, and run twice: each sample once."""

from __future__ import annotations

import os
import signal
import sys
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import tensorbank as tb
from support.slurm import Slurm
from support.waiting import wait_until
from tensorbank.verification import verify
from tensorbank_demo.landscape.archive import DemoTruth, write_archives

N_TASKS = 4
N_SAMPLES, N_OF_EACH = 16, 2
TENSORBANK = f"{sys.executable} -m tensorbank"
INGEST = f"""#!/bin/bash
#SBATCH --requeue --cpus-per-task=2
exec {TENSORBANK} ingest {{source}} {{bank}} --table t --task $SLURM_ARRAY_TASK_ID/{N_TASKS} --workers 1 --samples-per-shard 1
"""
COMMIT = f"""#!/bin/bash
exec {TENSORBANK} commit {{bank}} --table t
"""
pytestmark = pytest.mark.timeout(280)


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> DemoTruth:
    """Archives, two for each task."""
    root = tmp_path_factory.mktemp("archives")
    return write_archives(root, n_samples=N_SAMPLES, samples_per_tar=N_OF_EACH, seed=11)


@pytest.fixture
def scripts(truth: DemoTruth, tmp_path: Path) -> tuple[Path, Path, Path]:
    """The bank, and the scripts of a task and of the commit."""
    bank = tmp_path / "bank"
    tb.create(bank)
    paths = (tmp_path / "ingest.sh", tmp_path / "commit.sh")
    for path, text in zip(paths, (INGEST, COMMIT), strict=True):
        path.write_text(text.format(source=truth.root, bank=bank))
    return bank, *paths


def n_shards(bank: Path) -> int:
    """Return how many shards have been written and are not committed."""
    return len(list(bank.glob("t/tensors/*.progress/[0-9]*")))


def finished(bank: Path) -> set[int]:
    """Return the tasks that have ended."""
    return {int(word.stem) for word in bank.glob("t/tensors/tasks-*.progress/*.json")}


def assert_whole(bank: Path, truth: DemoTruth) -> None:
    """Check that each sample is there once, with the pixels of its archive, and that nothing is damaged."""
    opened = tb.open(bank)
    rows = opened.sql("SELECT sample_id FROM t").arrow()["sample_id"].to_pylist()
    assert Counter(rows) == Counter(truth.samples)
    found = {}
    for batch in opened.sql("SELECT sample_id, DEM FROM t").dataloader(batch_size=8, shuffle=False):
        for name, tensor in zip(batch["sample_id"], batch["DEM"], strict=True):
            found[name] = zlib.crc32(np.ascontiguousarray(tensor.numpy()).tobytes())
    assert found == {name: crc for (name, modality), crc in truth.crc32.items() if modality == "DEM"}
    assert verify(opened, "t", deep=True).findings == []


def test_tasks_that_are_requeued_cancelled_and_run_twice(slurm: Slurm, truth, scripts):
    bank, ingest, commit = scripts
    job = slurm.submit(f"--array=0-{N_TASKS - 1}", script=ingest)
    wait_until(lambda: n_shards(bank) > 2, slurm.output)
    tasks = slurm.processes(SLURM_ARRAY_JOB_ID=job)
    for pid in tasks:
        os.kill(pid, signal.SIGSTOP)
    assert not finished(bank)
    twice = slurm.submit("--array=3", script=ingest)
    slurm.run("scontrol", "requeue", f"{job}_1")
    slurm.run("scancel", f"{job}_2")
    for pid in slurm.processes(SLURM_ARRAY_JOB_ID=job):
        os.kill(pid, signal.SIGCONT)
    slurm.wait(job, "COMPLETED", "CANCELLED")
    assert [(r["JobState"], r["Restarts"]) for r in slurm.jobs(job)] == [
        ("COMPLETED", "0"),
        ("COMPLETED", "1"),
        ("CANCELLED", "0"),
        ("COMPLETED", "0"),
    ]
    slurm.wait(twice, "COMPLETED")
    early = slurm.submit(script=commit)
    (record,) = slurm.wait(early, "COMPLETED", "FAILED")
    assert record["ExitCode"] == "1:0"
    assert f"1 of {N_TASKS} tasks on {truth.root} have not finished: 2" in slurm.output_of(early)
    again = slurm.submit("--array=2", script=ingest)
    last = slurm.submit(f"--dependency=afterok:{again}", script=commit)
    (record,) = slurm.wait(last, "COMPLETED", "FAILED")
    assert record["ExitCode"] == "0:0", slurm.output()
    assert_whole(bank, truth)


def test_a_node_that_is_lost_in_the_middle(slurm: Slurm, truth, scripts):
    bank, ingest, commit = scripts
    job = slurm.submit(f"--array=0-{N_TASKS - 1}", script=ingest)
    last = slurm.submit(f"--dependency=afterok:{job}", script=commit)
    wait_until(lambda: n_shards(bank) > 2, slurm.output)
    lost = next(record["NodeList"] for record in slurm.jobs(job) if record["JobState"] == "RUNNING")
    slurm.lose_node(lost)
    (record,) = slurm.wait(last, "COMPLETED", "FAILED", limit_s=200)
    assert record["ExitCode"] == "0:0", slurm.output()
    restarts = [int(record["Restarts"]) for record in slurm.jobs(job)]
    assert sum(restarts) >= 1
    assert {record["NodeList"] for record in slurm.jobs(job)} <= {*slurm.nodes} - {lost}
    assert_whole(bank, truth)
    slurm.start_node(lost)
    wait_until(lambda: lost in slurm.idle_nodes(), lambda: slurm.told(lost))
