"""The scripts for SLURM do their work with the variables that SLURM sets, and hand on what their programs say.

Daemons of SLURM are not needed: `sbatch`, `srun` and `scontrol` are small programs that note how they were called.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tensorbank as tb
from support.deploy_files import BIN, DEPLOY

SLURM = DEPLOY / "slurm"
DIRECTIVE = re.compile(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", re.MULTILINE)


@pytest.fixture
def cluster(tmp_path) -> dict[str, str]:
    """Return an environment with programs in place of SLURM's; what they were called with is in the file `called`."""
    programs = tmp_path / "bin"
    programs.mkdir()
    called = tmp_path / "called"
    bodies = {
        "sbatch": f'echo "sbatch $*" >> {called}; wc -l < {called}',
        "scontrol": f'echo "scontrol $*" >> {called}; [ "$1" != show ] || printf "node7\\nnode8\\n"',
        "srun": f'echo "srun $MASTER_ADDR $MASTER_PORT" >> {called}; shift; exec "$@"',
    }
    for name, body in bodies.items():
        (programs / name).write_text(f"#!/bin/bash\n{body}\n")
        (programs / name).chmod(0o755)
    (programs / "python").symlink_to(sys.executable)
    path = f"{programs}:{BIN}:{os.environ['PATH']}"
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "TENSORBANK_", "AWS_"))}
    return {**kept, "PATH": path, "CALLED": str(called)}


def run(script: str, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SLURM / script, *arguments], env=environment, capture_output=True, text=True, timeout=240
    )


def test_an_array_of_tasks_fills_a_bank(cluster, archive, bank_folder, tmp_path):
    told = {"SOURCE": str(archive), "BANK": str(tmp_path / "bank"), "TABLE": "terramesh"}
    for task in ("0", "1"):
        array = {"SLURM_ARRAY_TASK_ID": task, "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_CPUS_PER_TASK": "1"}
        done = run("ingest.sbatch", cluster | told | array)
        assert done.returncode == 0, done.stderr
    done = run("commit.sbatch", cluster | told)
    assert done.returncode == 0, done.stderr
    names = "SELECT sample_id FROM terramesh ORDER BY sample_id"
    found = tb.open(told["BANK"]).sql(names).arrow()["sample_id"].to_pylist()
    assert len(found) == 20
    assert found == tb.open(bank_folder).sql(names).arrow()["sample_id"].to_pylist()


def test_the_commit_waits_for_the_ingest(cluster):
    told = {"SOURCE": "s3://a", "BANK": "s3://b", "TABLE": "t"}
    done = run("submit_ingest.sh", cluster | told, "--array=0-63")
    assert (done.returncode, done.stdout) == (0, "ingest 1, commit 2\n"), done.stderr
    first, second = Path(cluster["CALLED"]).read_text().splitlines()
    assert first == f"sbatch --parsable --array=0-63 {SLURM}/ingest.sbatch"
    assert second == f"sbatch --parsable --dependency=afterany:1 {SLURM}/commit.sbatch"


@pytest.mark.parametrize("script", sorted(p.name for p in SLURM.iterdir()))
def test_what_is_not_set_is_named_before_anything_is_done(cluster, script):
    done = run(script, cluster)
    assert done.returncode != 0
    assert re.search(r"(SOURCE|BANK): set \1 to", done.stderr), done.stderr
    assert not Path(cluster["CALLED"]).exists()


@pytest.mark.parametrize(("status", "requeues"), [(0, False), (1, False), (75, True)])
def test_a_run_that_was_stopped_is_queued_again(cluster, tmp_path, status, requeues):
    program = tmp_path / "train.py"
    program.write_text(f"import sys\nprint(sys.argv[1:])\nsys.exit({status})\n")
    told = {
        "BANK": "b",
        "TABLE": "t",
        "WHERE": "a < 1",
        "SELECT": "S2L2A",
        "CHECKPOINTS": "c",
        "TRAIN": str(program),
    }
    job = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "node[7-8]"}
    done = run("train.sbatch", cluster | told | job, "--epochs", "2")
    assert done.returncode == status, done.stderr
    assert "'--where', 'a < 1', '--select', 'S2L2A'" in done.stdout
    assert "'--epochs', '2'" in done.stdout
    calls = Path(cluster["CALLED"]).read_text().splitlines()
    assert calls[:2] == ["scontrol show hostnames node[7-8]", "srun node7 24711"]
    assert ("scontrol requeue 4711" in calls) == requeues


def test_jobs_survive_preemption():
    """Each job may be queued again, keeps the log of its earlier run, and training is told in time."""
    scripts = sorted(SLURM.glob("*.sbatch"))
    assert len(scripts) == 4
    for script in scripts:
        found = dict(DIRECTIVE.findall(script.read_text()))
        assert {"requeue", "time", "job-name", "output"} <= set(found), script
        assert found["open-mode"] == "append"
        if "train" in script.name:
            assert int(found["signal"].rpartition("@")[2]) >= 60
