"""The training of ``deploy/training/train.py``: stopped and started again, on other ranks, it does what one run does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from support.deploy_files import DEPLOY
from support.ports import free_port

PROGRAM = DEPLOY / "training" / "train.py"
QUERY = ("--table", "terramesh", "--where", "S2L2A IS NOT NULL", "--select", "S2L2A[B04,B08]")
AGAIN = 75
pytestmark = pytest.mark.timeout(280)


def clean() -> dict[str, str]:
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    kept = {k: v for k, v in os.environ.items() if k not in names and not k.startswith(("SLURM_", "TORCH"))}
    return kept | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def command(bank: Path, checkpoints: Path, *launcher: object, epochs: int = 2) -> list[str]:
    words = [*launcher, PROGRAM, "--bank", bank, *QUERY, "--checkpoints", checkpoints]
    return [
        sys.executable,
        *map(str, words),
        "--batch-size",
        "4",
        "--save-every",
        "1",
        "--epochs",
        str(epochs),
    ]


def train(bank: Path, checkpoints: Path, *launcher: object, epochs: int = 2) -> str:
    done = subprocess.run(
        command(bank, checkpoints, *launcher, epochs=epochs),
        env=clean(),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def last(checkpoints: Path) -> dict:
    return torch.load(checkpoints / "last.pt")


@pytest.fixture(scope="module")
def whole(bank_folder, tmp_path_factory) -> dict:
    """The last checkpoint of a run that nobody stopped."""
    checkpoints = tmp_path_factory.mktemp("whole")
    train(bank_folder, checkpoints)
    return last(checkpoints)


def check_same(found: dict, expected: dict) -> None:
    assert found["step"] == expected["step"] > 2
    assert json.loads(found["loader"])["epoch"] == json.loads(expected["loader"])["epoch"]
    assert found["model"].keys() == expected["model"].keys()
    for name, weights in expected["model"].items():
        torch.testing.assert_close(found["model"][name], weights, rtol=1e-3, atol=1e-5)


def test_a_run_that_is_stopped_goes_on_under_torchrun_with_two_ranks(bank_folder, whole, tmp_path):
    with subprocess.Popen(
        command(bank_folder, tmp_path, epochs=1_000), env=clean(), stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if " loss " in line)
        process.send_signal(signal.SIGTERM)
        told = process.stderr.read()
        assert process.wait(timeout=120) == AGAIN, told
    assert "stops after step" in told
    stopped = last(tmp_path)
    if stopped["step"] >= whole["step"]:
        pytest.fail("the run came further than the whole one before it was stopped; give it more epochs")
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    log = train(bank_folder, tmp_path, *launcher)
    assert f"rank 1 of 2 goes on at step {stopped['step']}" in log
    check_same(last(tmp_path), whole)


def test_ranks_of_srun_find_each_other(bank_folder, whole, tmp_path):
    port = str(free_port())
    ranks = [
        subprocess.Popen(
            command(bank_folder, tmp_path),
            env=clean()
            | {"SLURM_PROCID": str(rank), "SLURM_NTASKS": "2", "SLURM_LOCALID": str(rank)}
            | {"SLURM_STEP_NUM_TASKS": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    told = [process.communicate(timeout=240)[1] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], told
    check_same(last(tmp_path), whole)
