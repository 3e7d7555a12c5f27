"""The rank of a process: what every launcher tells, and that nothing is guessed."""

from __future__ import annotations

import pytest

from tensorbank import InvalidInputError
from tensorbank_loader import World
from tensorbank_loader.epochs import is_one_node

STEP = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, World()),
        ({"RANK": "2", "WORLD_SIZE": "4"}, World(2, 4)),
        ({"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "0"}, World(2, 4)),
        ({"WORLD_SIZE": "1"}, World()),
        ({"RANK": "", "WORLD_SIZE": " "}, World()),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "3"}, World(1, 3)),
        ({"MV2_COMM_WORLD_RANK": "1", "MV2_COMM_WORLD_SIZE": "3"}, World(1, 3)),
        ({"PMI_RANK": "1", "PMI_SIZE": "3"}, World(1, 3)),
        ({"PMIX_RANK": "1", "PMIX_SIZE": "3"}, World(1, 3)),
        ({"FLUX_TASK_RANK": "1", "FLUX_JOB_SIZE": "3"}, World(1, 3)),
        ({"HOROVOD_RANK": "1", "HOROVOD_SIZE": "3"}, World(1, 3)),
        ({"PMIX_RANK": "1", "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "3"}, World(1, 3)),
        ({"JSM_NAMESPACE_RANK": "1", "JSM_NAMESPACE_SIZE": "3"}, World(1, 3)),
        # srun: in a step, with the step's number of tasks where it differs from the job's
        ({**STEP, "SLURM_PROCID": "1", "SLURM_NTASKS": "4"}, World(1, 4)),
        ({**STEP, "SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, World(0, 4)),
        ({**STEP, "SLURM_PROCID": "1", "SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "2"}, World(1, 2)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}, World(0, 2)),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, World(1, 2)),
        ({**STEP, "SLURM_PROCID": "1", "SLURM_NTASKS": "4", "PMI_RANK": "1", "PMI_SIZE": "4"}, World(1, 4)),
        ({**STEP, "SLURM_PROCID": "1", "SLURM_NTASKS": "4", "PMIX_RANK": "1"}, World(1, 4)),
        # the shells of a job: of sbatch, of salloc on the login node, of salloc in an interactive step
        ({"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, World()),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"}, World()),
        (
            {
                "SLURM_JOB_ID": "7",
                "SLURM_STEP_ID": "4294967290",
                "SLURM_PROCID": "0",
                "SLURM_NTASKS": "4",
            },
            World(),
        ),
        # srun starts one torchrun a node, whose ranks are the ones that count
        (
            {
                **STEP,
                "SLURM_PROCID": "1",
                "SLURM_NTASKS": "2",
                "RANK": "9",
                "WORLD_SIZE": "16",
                "TORCHELASTIC_RUN_ID": "x",
            },
            World(9, 16),
        ),
        # Lightning's own launcher, on the first node
        ({"WORLD_SIZE": "2", "LOCAL_RANK": "1", "NODE_RANK": "0"}, World(1, 2)),
    ],
    ids=str,
)
def test_the_world_is_what_a_launcher_tells(environ, expected):
    assert World.detect(environ) == expected


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"WORLD_SIZE": "2"}, r"RANK=\(not set\), WORLD_SIZE=2"),
        ({"RANK": "0"}, "RANK=0"),
        ({"WORLD_SIZE": "2", "LOCAL_RANK": "1"}, "WORLD_SIZE=2"),
        ({"WORLD_SIZE": "4", "LOCAL_RANK": "1", "NODE_RANK": "1"}, "WORLD_SIZE=4"),
        ({"PMIX_RANK": "1"}, "PMIX_RANK=1"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "OMPI_COMM_WORLD_SIZE=2"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "below the number of ranks"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "below the number of ranks"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, "RANK is 'one'"),
        ({"RANK": "0", "WORLD_SIZE": "2.0"}, "WORLD_SIZE is '2.0'"),
        ({"RANK": "0", "WORLD_SIZE": "2", **STEP, "SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, "disagree"),
        (
            {
                "OMPI_COMM_WORLD_RANK": "0",
                "OMPI_COMM_WORLD_SIZE": "2",
                "PMI_RANK": "1",
                "PMI_SIZE": "2",
            },
            "disagree",
        ),
        (
            {"PMIX_RANK": "0", "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "3"},
            "PMIX_RANK=0",
        ),
        ({"WORLD_SIZE": "1", **STEP, "SLURM_PROCID": "1", "SLURM_NTASKS": "4"}, "disagree"),
    ],
    ids=str,
)
def test_what_is_ambiguous_is_refused(environ, said):
    with pytest.raises(InvalidInputError, match=said) as caught:
        World.detect(environ)
    assert caught.value.kind == "world"
    assert "world=World(rank, n_ranks)" in str(caught.value)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, False),
        ({"WORLD_SIZE": "4"}, False),
        ({"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4"}, True),
        ({"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}, False),
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "8", "OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, False),
        ({"WORLD_SIZE": "", "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, True),
        ({**STEP, "SLURM_STEP_NUM_NODES": "1"}, True),
        ({**STEP, "SLURM_STEP_NUM_NODES": "2"}, False),
        # torchrun in a task of srun: each of two steps has one node, the job has two
        ({**STEP, "SLURM_STEP_NUM_NODES": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}, False),
    ],
    ids=str,
)
def test_ranks_are_on_one_node_where_a_launcher_says_so(environ, expected):
    assert is_one_node(environ) is expected


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((2, 2), "rank must be below n_ranks"),
        ((-1, 2), "rank"),
        ((0, 2.0), "n_ranks"),
        (("0", 2), "rank"),
        ((True, 2), "rank"),
    ],
    ids=str,
)
def test_a_world_is_of_whole_numbers(arguments, name):
    with pytest.raises(InvalidInputError, match=name):
        World(*arguments)
