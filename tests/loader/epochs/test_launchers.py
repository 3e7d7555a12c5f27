"""Every launcher of the loader's guide: two real processes share an epoch, each sample comes once, and none is left out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest

from support import SUPPORT
from support.handmade import HANDLES, make
from tensorbank import Plan
from tensorbank_loader import DataLoader, World

PROGRAM = SUPPORT / "launched.py"
N = 64
pytestmark = [pytest.mark.timeout(280), pytest.mark.slow]
TORCHRUN = (*("-m", "torch.distributed.run"), *("--standalone", "--nproc-per-node", "2"))
QUIET = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("part")
    return make(folder / "bank", N, handles=HANDLES[:1]).plan.save(folder / "plan.arrow")


@pytest.fixture(scope="module")
def alone(plan: Path) -> list[list[str]]:
    """The global batches of an epoch, by one process."""
    with DataLoader(Plan.load(plan), batch_size=8, seed=1, world=World()) as loader:
        return [list(b["sample_id"]) for b in loader]


def clean() -> dict[str, str]:
    """Return this process's variables, without those of a launcher that has started it."""
    prefixes = ("SLURM_", "OMPI_", "PMI_", "PMIX_", "MV2_", "TORCHELASTIC_")
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
    return {k: v for k, v in os.environ.items() if not k.startswith(prefixes) and k not in names} | QUIET


def run(*commands: tuple[list[object], dict[str, str]]) -> None:
    """Run processes side by side; what one says is shown where it fails."""
    started = [
        subprocess.Popen(
            [sys.executable, *map(str, command)],
            env=clean() | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for command, more in commands
    ]
    try:
        said = [process.communicate(timeout=200)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    for process, text in zip(started, said, strict=True):
        assert process.returncode == 0, text[-3000:]


def found_in(out: Path) -> list[dict]:
    assert sorted(p.name for p in out.glob("*.json")) == ["0.json", "1.json"]
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(2)]


def together(ranks: list[list[list[str]]]) -> list[list[str]]:
    """Return the batches of ranks as global batches."""
    return [list(chain(*shares)) for shares in zip(*ranks, strict=True)]


LAUNCHERS = {
    "srun": [
        {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_PROCID": str(r), "SLURM_NTASKS": "2"}
        for r in range(2)
    ],
    "mpirun": [{"OMPI_COMM_WORLD_RANK": str(r), "OMPI_COMM_WORLD_SIZE": "2"} for r in range(2)],
}


def test_launchers_that_tell_by_variables(plan, alone, tmp_path):
    commands = []
    for name, ranks in LAUNCHERS.items():
        (tmp_path / name).mkdir()
        commands += [(["-W", "ignore", PROGRAM, "environment", plan, tmp_path / name], r) for r in ranks]
    run(*commands)
    assert len(LAUNCHERS) > 1
    for name in LAUNCHERS:
        ranks = found_in(tmp_path / name)
        assert together([r["had"] for r in ranks]) == alone, name


@pytest.mark.thorough
def test_a_process_group_that_no_variable_tells_of_and_its_workers(plan, alone, tmp_path):
    place = {"MEETING_PLACE": str(tmp_path / "meeting")}
    run(*((["-W", "ignore", PROGRAM, "group", plan, tmp_path, rank], place) for rank in range(2)))
    ranks = found_in(tmp_path)
    assert together([r["had"] for r in ranks]) == alone
    assert together([r["share"] for r in ranks]) == alone
    assert [r["refused"] for r in ranks] == ["world", "world"]
    assert [r["everything"] for r in ranks] == [N // 4, N // 4]


def test_torchrun(plan, alone, tmp_path):
    run(([*TORCHRUN, PROGRAM, "environment", plan, tmp_path], {}))
    assert together([r["had"] for r in found_in(tmp_path)]) == alone


@pytest.mark.thorough
def test_lightning_starts_the_ranks_itself(plan, alone, tmp_path):
    run((["-W", "ignore", PROGRAM, "lightning", plan, tmp_path], {}))
    ranks = found_in(tmp_path)
    assert together([r["had"] for r in ranks]) == alone
    in_order = Plan.load(plan).table["sample_id"].to_pylist()
    whole = [in_order[i : i + 8] for i in range(0, N, 8)]
    assert together([r["sanity"] for r in ranks]) == whole[:2]
    assert together([r["validated"] for r in ranks]) == whole, "the sanity check eats nothing"


@pytest.mark.thorough
def test_accelerate(plan, alone, tmp_path):
    run(([*TORCHRUN, PROGRAM, "accelerate", plan, tmp_path], {}))
    ranks = found_in(tmp_path)
    assert together([r["had"] for r in ranks]) == alone
    for way in ("prepared", "meant", "dispatched"):
        seen = [list(chain(*r[way])) for r in ranks]
        assert sorted(chain(*seen)) == list(range(N)), way
        assert len(seen[0]) == len(seen[1]) == N // 2
    assert [r["warned"] for r in ranks] == [[1, 0], [1, 0]]
