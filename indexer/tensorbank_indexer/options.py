"""The options of an ingest."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from tensorbank.engines import PROCESSES, Workers
from tensorbank.errors import InvalidInputError, nearest
from tensorbank.reading import DEFAULT_PROFILE, PROFILES

__all__ = ["AUTO", "ArrayTask", "IngestOptions"]

T = TypeVar("T")

AUTO = "auto"
"""The word for the profile that suits the samples and the machines that will read them."""


@dataclass(frozen=True, slots=True)
class ArrayTask:
    """One task of an array job, which takes its share of the archives.

    Parameters
    ----------
    number
        Number of the task, counted from 0 or from 1: all tasks of a job count alike.
    n_tasks
        Tasks of the job.

    Raises
    ------
    InvalidInputError
        The number is not one of so many tasks.
    """

    number: int
    n_tasks: int

    def __post_init__(self) -> None:
        if not (self.n_tasks >= 1 and 0 <= self.number <= self.n_tasks):
            last = self.n_tasks
            raise InvalidInputError(
                f"there is no task {self.number}/{last}: the numbers of {last} tasks are 0 to {last - 1}, or 1 to {last}, as "
                f"--array=0-{last - 1} gives them"
            )

    @classmethod
    def parse(cls, text: str) -> ArrayTask:
        """Return the task of a text such as ``3/16``."""
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
        if found is None:
            raise InvalidInputError(
                f"a task is given by its number and the number of tasks, as in 3/16, got {text!r}; an array job of SLURM has "
                "them in $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
            )
        return cls(int(found[1]), int(found[2]))

    def share(self, archives: Sequence[T]) -> list[T]:
        """Return every ``n_tasks``-th archive, from this task's first one on. Pure."""
        return list(archives[self.number % self.n_tasks :: self.n_tasks])


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """The options of an ingest.

    Parameters
    ----------
    profile
        Codec profile, one of :data:`tensorbank.reading.codec.PROFILES`, or ``auto``: chosen for each part by what its first
        samples take, for machines of ``reader_cores`` and ``reader_network_gbps``.
    n_workers
        Processes that read, measure and encode; the machine's processors if None. 1 works in this process. Of a cluster that is
        there, the most shards at a time; None leaves that to its size.
    samples_per_shard
        Samples in one shard; None chooses by the size of a sample.
    samples_per_part
        Samples after which a commit is made.
    global_order
        List all archives before any sample is read, and write samples by season and place over all of them; else archives are
        scanned and written in batches, and samples are ordered within each. The source must be one of which single samples can
        be read.
    n_tiles
        Cells of the finest index level along each axis of a sample. 4 keeps the index below 0.5 % of TerraMesh.
    revision
        Revision of the source, such as the commit of a dataset on a hub; a hash of its files' ETags if None.
    strict
        Commit nothing of a part if anything was damaged, missing or doubtful, and leave nothing of it in the bank.
    reader_cores, reader_network_gbps
        Cores of a reading machine that are free to decode, and its network in gigabits a second; only ``auto`` asks.
    licence
        Licence of the copy, kept with the part; None: what the source says of itself.
    refresh
        Replace the modalities of samples whose files are other ones now, and add those of files that came later.
    dry_run
        Write nothing: scan, and report what is new and what has changed.
    single_writer
        Go on although the store does not honour conditional writes.
    task
        The task of an array job that this is: it writes the parts of its share of the archives, and leaves their commit to
        :func:`tensorbank_indexer.array_jobs.commit_parts`.
    engine
        What executes the tasks: ``processes`` of this machine; ``dask``, a cluster of this machine; or the address of a Dask
        scheduler, such as ``tcp://scheduler:8786``.
    engine_wait_s
        Seconds to wait for a scheduler, and for workers while there are none.

    Raises
    ------
    InvalidInputError
        An option is out of its range, or two do not go together.
    """

    profile: str = DEFAULT_PROFILE
    n_workers: int | None = None
    samples_per_shard: int | None = None
    samples_per_part: int = 16_384
    n_tiles: int = 4
    revision: str | None = None
    strict: bool = False
    single_writer: bool = False
    licence: str | None = None
    refresh: bool = False
    dry_run: bool = False
    task: ArrayTask | None = None
    reader_cores: int = 8
    reader_network_gbps: float = 25.0
    engine: str = PROCESSES
    engine_wait_s: float = 120.0
    global_order: bool = False

    def __post_init__(self) -> None:
        if self.task is not None and self.refresh:
            raise InvalidInputError(
                "refresh replaces samples by its own commits, so that it cannot be a task of an array job; run it as one ingest"
            )
        if self.task is not None and self.global_order:
            raise InvalidInputError(
                "global_order is over all archives, of which a task of an array job lists its share only; run it as one ingest, "
                "with an engine on several machines"
            )
        names = (*PROFILES, AUTO)
        if self.profile not in names:
            raise InvalidInputError(f"no codec profile {self.profile!r}.{nearest(self.profile, names)}")
        if not self.reader_network_gbps > 0:
            raise InvalidInputError(
                f"reader_network_gbps is {self.reader_network_gbps}; more than 0 is needed"
            )
        _ = self.workers  # is refused if it cannot be
        for name in ("samples_per_shard", "samples_per_part", "n_tiles", "reader_cores"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InvalidInputError(f"{name} is {value}; at least 1 is needed")

    @property
    def workers(self) -> Workers:
        """The workers that execute the tasks."""
        return Workers(self.engine, self.n_workers, self.engine_wait_s)
