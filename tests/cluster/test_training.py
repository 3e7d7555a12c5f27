"""Training by ranks of SLURM's steps and of torchrun: requeued, cancelled, lost with their node, resumed by others in number.

The truth is a run of one process that nobody stops: the same global batches in the same order, and the same weights.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import tensorbank as tb
from support import SUPPORT
from support.ports import free_port
from support.slurm import Slurm
from support.streamed_bank import make_bank
from support.waiting import wait_until

TRAIN = f"{sys.executable} {SUPPORT / 'train.py'}"
N = 96  # ten steps, the last of which is short
N_STEPS = 10
JOB = """#!/bin/bash
#SBATCH --requeue --open-mode=append
export OMP_NUM_THREADS=1 PYTHONPATH={tests} MASTER_PORT={port}
srun bash -c '
  export RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS MASTER_ADDR=$SLURM_LAUNCH_NODE_IPADDR
  export TMPDIR={folder}/tmp-$SLURMD_NODENAME  # nodes of this host share no folder of temporary files
  mkdir -p $TMPDIR
  exec {train} {bank} {folder} {options}'
"""
OWN_STORES = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
"""The setting of the scripts by which a group of ranks does not find the addresses of the one before."""
TORCHRUN = """#!/bin/bash
export OMP_NUM_THREADS=1 PYTHONPATH={tests} TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
srun bash -c '
  export TMPDIR={folder}/tmp-$SLURMD_NODENAME  # nodes of this host share no folder of temporary files
  mkdir -p $TMPDIR
  exec {python} -m torch.distributed.run --nnodes 2 --nproc-per-node 2 --max-restarts 3 --rdzv-backend c10d \\
    --rdzv-id $SLURM_JOB_ID --rdzv-endpoint 127.0.0.1:{port} --local-addr 127.0.0.1 \\
    {train} {bank} {folder} --hold 4 --late 3'
"""
pytestmark = pytest.mark.timeout(900)  # five ranks on the cores of one host, which others use as well


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "bank"
    make_bank(tb.create(folder), "t", N)
    return folder


@pytest.fixture(scope="module")
def alone(bank: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The checkpoint of one process that was not stopped."""
    folder = tmp_path_factory.mktemp("alone")
    variables = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    environment = {**os.environ, **variables, "PYTHONPATH": str(SUPPORT.parent), "OMP_NUM_THREADS": "1"}
    subprocess.run([*TRAIN.split(), bank, folder], check=True, timeout=120, env=environment)
    found = checkpoint(folder)
    assert len(found["had"]) == N_STEPS
    assert sorted(name for batch in found["had"] for name in batch) == sorted(
        tb.open(bank).sql("SELECT sample_id FROM t").arrow()["sample_id"].to_pylist()
    )
    return found


def checkpoint(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(folder / "checkpoint.pt", weights_only=True)
    return found


def n_steps(folder: Path) -> int:
    return len(checkpoint(folder)["had"]) if (folder / "checkpoint.pt").exists() else 0


def script(folder: Path, bank: Path, options: str = "") -> Path:
    path = folder / "train.sh"
    given = {"tests": SUPPORT.parent, "port": free_port(), "train": TRAIN, "bank": bank, "folder": folder}
    path.write_text(JOB.format(**given, options=options))
    return path


def assert_same(found: Mapping[str, Any], alone: Mapping[str, Any]) -> None:
    """Check that a run has had the global batches of the other one, and came to its weights."""
    assert found["had"] == alone["had"]
    assert found["model"].keys() == alone["model"].keys()
    for name, weights in alone["model"].items():
        torch.testing.assert_close(found["model"][name], weights, rtol=1e-4, atol=1e-5)


def test_a_requeued_job_goes_on_where_it_stopped(slurm: Slurm, bank, alone, tmp_path):
    job = slurm.submit("--nodes=2", "--ntasks=3", script=script(tmp_path, bank, "--hold 4"))
    wait_until(lambda: n_steps(tmp_path) == 4, slurm.output)
    slurm.run("scontrol", "requeue", job)
    (tmp_path / "go").touch()
    (record,) = slurm.wait(job, "COMPLETED", "FAILED")
    assert (record["JobState"], record["Restarts"]) == ("COMPLETED", "1"), slurm.output()
    assert_same(checkpoint(tmp_path), alone)


def test_cancelled_jobs_go_on_with_two_three_and_five_ranks_on_uneven_nodes(
    slurm: Slurm, bank, alone, tmp_path
):
    """Two of three ranks are on one node, three of five; FSDP shards the model over whatever ranks there are."""
    for steps, n_ranks in ((3, 2), (6, 3), (None, 5)):
        options = "--wrap fsdp" if steps is None else f"--wrap fsdp --hold {steps}"
        shape = (f"--nodes={min(2, n_ranks)}", f"--ntasks={n_ranks}")
        job = slurm.submit(*shape, script=script(tmp_path, bank, options))
        if steps is None:
            (record,) = slurm.wait(job, "COMPLETED", "FAILED")
            assert record["JobState"] == "COMPLETED", slurm.output()
        else:
            wait_until(lambda steps=steps: n_steps(tmp_path) == steps, slurm.output)
            slurm.run("scancel", job)
            slurm.wait(job, "CANCELLED")
    found = checkpoint(tmp_path)
    assert found["sizes"] == 3 * [2] + 3 * [3] + 4 * [5]
    assert_same(found, alone)


def test_a_job_whose_node_is_lost_goes_on_with_the_others(slurm: Slurm, bank, alone, tmp_path):
    job = slurm.submit("--nodes=2", "--ntasks=4", script=script(tmp_path, bank, "--hold 5"))
    wait_until(lambda: n_steps(tmp_path) == 5, slurm.output)
    lost = slurm.jobs(job)[0]["BatchHost"]
    slurm.lose_node(lost)
    (tmp_path / "go").touch()
    wait_until(lambda: slurm.jobs(job)[0]["Restarts"] == "1", slurm.output, limit_s=90)
    (record,) = slurm.wait(job, "COMPLETED", "FAILED")
    assert record["JobState"] == "COMPLETED", slurm.output()
    assert lost not in slurm.nodes_of(job)
    assert_same(checkpoint(tmp_path), alone)
    slurm.start_node(lost)
    wait_until(lambda: lost in slurm.idle_nodes(), lambda: slurm.told(lost))


def test_torchrun_starts_again_what_is_killed(bank, alone, tmp_path):
    """Elastic restarts: an agent starts all its ranks anew when one dies. Rank 0 is late, when the other one looks for it."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    agent = subprocess.Popen(
        [*command, "--max-restarts", "1", SUPPORT / "train.py", bank, tmp_path, "--hold", "4", "--late", "3"],
        env={**os.environ, **OWN_STORES, "PYTHONPATH": str(SUPPORT.parent), "OMP_NUM_THREADS": "1"},
    )
    try:
        wait_until(lambda: n_steps(tmp_path) == 4, "no four steps")
        assert len(ranks_of(tmp_path)) == 2
        os.kill(ranks_of(tmp_path)[1], signal.SIGKILL)
        (tmp_path / "go").touch()
        assert agent.wait(120) == 0
    finally:
        agent.terminate()
        agent.wait(30)
    assert_same(checkpoint(tmp_path), alone)


def test_torchrun_on_two_nodes_starts_again_when_rank_0_is_killed(slurm: Slurm, bank, alone, tmp_path):
    """The ranks of the other node fail as well, since they lose rank 0; their launcher meets the first one again."""
    path = tmp_path / "torchrun.sh"
    given = {"tests": SUPPORT.parent, "port": free_port(), "bank": bank, "folder": tmp_path}
    given |= {"python": sys.executable, "train": SUPPORT / "train.py"}
    path.write_text(TORCHRUN.format(**given))
    job = slurm.submit("--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=2", script=path)
    wait_until(lambda: n_steps(tmp_path) == 4, slurm.output, limit_s=90)
    before = ranks_of(tmp_path)
    assert sorted(before) == [0, 1, 2, 3]
    os.kill(before[0], signal.SIGKILL)
    (tmp_path / "go").touch()
    (record,) = slurm.wait(job, "COMPLETED", "FAILED")
    assert record["JobState"] == "COMPLETED", slurm.output()
    assert_same(checkpoint(tmp_path), alone)


def ranks_of(folder: Path) -> dict[int, int]:
    """Return the processes of the ranks that train in a folder, by rank."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                variables = dict(
                    v.partition(b"=")[::2] for v in (entry / "environ").read_bytes().split(b"\0")
                )
            except OSError:  # gone meanwhile
                continue
            if bytes(folder) in words and b"torch.distributed.run" not in words and b"RANK" in variables:
                found[int(variables[b"RANK"])] = int(entry.name)
    return found
