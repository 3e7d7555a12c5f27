"""The scripts of deploy/slurm that need no GPU, as they are: an ingest by an array job, and its commit."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

import tensorbank as tb
from support.slurm import Slurm
from tensorbank_demo.landscape.archive import write_archives

SUBMIT = Path(__file__).parents[2] / "deploy" / "slurm" / "submit_ingest.sh"


@pytest.mark.timeout(280)
def test_an_ingest_and_the_commit_behind_it(slurm: Slurm, tmp_path):
    truth = write_archives(tmp_path / "archives", n_samples=6, samples_per_tar=2, seed=3)
    path = f"{Path(sys.executable).parent}{os.pathsep}{slurm.environment['PATH']}"
    variables = {"SOURCE": str(truth.root), "BANK": str(tmp_path / "bank"), "TABLE": "t", "PATH": path}
    said = slurm.run(SUBMIT, "--array=0-2", "--cpus-per-task=1", folder=tmp_path, **variables)
    found = re.fullmatch(r"ingest (\d+), commit (\d+)\n", said)
    assert found is not None, said
    (record,) = slurm.wait(found[2], "COMPLETED", "FAILED", limit_s=200)
    logs = {path.name: path.read_text() for path in tmp_path.glob("*.log")}
    assert record["JobState"] == "COMPLETED", logs
    assert slurm.states(found[1]) == ["COMPLETED"] * 3, logs
    rows = tb.open(tmp_path / "bank").sql("SELECT sample_id FROM t").arrow()["sample_id"].to_pylist()
    assert Counter(rows) == Counter(truth.samples)
