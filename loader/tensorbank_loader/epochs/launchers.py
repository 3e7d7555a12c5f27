"""The rank that a launcher gave this process, read from environment variables. Pure: the variables come as a mapping.

One process may have variables of several launchers, as under an ``srun`` that starts ``torchrun``. They must agree. Only
torchrun's are taken whatever the others say: it starts several ranks in one task of the launcher that started it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tensorbank.errors import ErrorKind, InvalidInputError

__all__ = ["LAUNCHERS", "Launcher", "is_one_node", "rank_among"]


@dataclass(frozen=True, slots=True)
class Launcher:
    """The variables in which a launcher tells a process its rank and the number of ranks."""

    name: str
    rank: str
    n_ranks: str


LAUNCHERS = (
    Launcher("torchrun or a launcher like it", "RANK", "WORLD_SIZE"),
    Launcher("Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    Launcher("MVAPICH", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
    Launcher("PMI", "PMI_RANK", "PMI_SIZE"),
    Launcher("PMIx", "PMIX_RANK", "PMIX_SIZE"),
    Launcher("jsrun", "JSM_NAMESPACE_RANK", "JSM_NAMESPACE_SIZE"),
    Launcher("flux run", "FLUX_TASK_RANK", "FLUX_JOB_SIZE"),
    Launcher("horovodrun", "HOROVOD_RANK", "HOROVOD_SIZE"),
)
SLURM = Launcher("srun", "SLURM_PROCID", "SLURM_NTASKS")
STEP_SIZE = "SLURM_STEP_NUM_TASKS"
"""The variable that holds the tasks of the step, where ``SLURM_NTASKS`` may be of the job."""
SIZES = (("WORLD_SIZE", "LOCAL_WORLD_SIZE"), ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"))
"""The variables that hold the number of all ranks, and of those on this node."""
FIRST_SPECIAL_STEP = 0xFFFFFFF0
"""The first step number that belongs to a shell: of a batch script, of an interactive job."""
HINT = "give the loader world=World(rank, n_ranks), or initialise torch.distributed before its first epoch"


def rank_among(environ: Mapping[str, str]) -> tuple[int, int] | None:
    """Return the rank of this process and the number of ranks; None if no launcher gives any.

    Raises
    ------
    InvalidInputError
        Launchers disagree, or give a rank without a number of ranks or the other way round.
    """
    told: dict[str, tuple[int, int]] = {}
    halves: dict[str, tuple[int | None, int | None]] = {}
    for launcher in (*LAUNCHERS, *_srun(environ)):
        rank, n_ranks = _number(environ, launcher.rank), _number(environ, launcher.n_ranks)
        if launcher.rank == "RANK" and rank is None and n_ranks is not None:
            rank = 0 if n_ranks == 1 else _rank_of_first_node(environ)
        said = f"{launcher.rank}={rank}, {launcher.n_ranks}={n_ranks}"
        if rank is not None and n_ranks is not None:
            if not 0 <= rank < n_ranks:
                raise InvalidInputError(
                    f"{said}: a rank must be at least 0 and below the number of ranks; {HINT}",
                    kind=ErrorKind.WORLD,
                )
            if launcher.rank == "RANK" and environ.get("TORCHELASTIC_RUN_ID"):
                return rank, n_ranks
            told[said] = (rank, n_ranks)
        elif rank is not None or n_ranks is not None:
            halves[said.replace("None", "(not set)")] = (rank, n_ranks)
    if len(set(told.values())) > 1:
        raise InvalidInputError(
            f"launchers disagree about the rank of this process: {'; '.join(told)}; {HINT}",
            kind=ErrorKind.WORLD,
        )
    found = next(iter(told.values()), None)
    for said, (rank, n_ranks) in halves.items():
        if found is None or rank not in (None, found[0]) or n_ranks not in (None, found[1]):
            raise InvalidInputError(
                f"{said}: which rank this process is cannot be told; {HINT}", kind=ErrorKind.WORLD
            )
    return found


def is_one_node(environ: Mapping[str, str]) -> bool:
    """Tell whether all ranks are on this node; False if no launcher says so. Pure."""
    for all_ranks, local_ranks in SIZES:
        n_ranks, n_local = _number(environ, all_ranks), _number(environ, local_ranks)
        if n_ranks is not None and n_local is not None:
            return n_ranks == n_local
    return _number(environ, "SLURM_STEP_NUM_NODES") == 1


def _srun(environ: Mapping[str, str]) -> tuple[Launcher, ...]:
    """Return the variables of SLURM if this process is a task of a step.

    The shell of a job has some of them, too, and is no rank.
    """
    step, rank = _number(environ, "SLURM_STEP_ID"), _number(environ, SLURM.rank)
    if rank is None or (step is not None and step >= FIRST_SPECIAL_STEP):
        return ()
    if step is None and rank == 0 and environ.get("SLURM_JOB_ID"):
        return ()
    if step is not None and environ.get(STEP_SIZE):
        return (Launcher(SLURM.name, SLURM.rank, STEP_SIZE),)
    return (SLURM,)


def _rank_of_first_node(environ: Mapping[str, str]) -> int | None:
    """Return the rank of a process on the first node; None elsewhere.

    Lightning's own launcher gives its processes only the local rank and the node.
    """
    if _number(environ, "NODE_RANK") == 0:
        return _number(environ, "LOCAL_RANK")
    return None


def _number(environ: Mapping[str, str], name: str) -> int | None:
    """Return the number in a variable; None if it is not set or empty."""
    text = environ.get(name, "").strip()
    if not text:
        return None
    try:
        return int(text)
    except ValueError as error:
        raise InvalidInputError(
            f"{name} is {text!r}, which is no number; {HINT}", kind=ErrorKind.WORLD
        ) from error
