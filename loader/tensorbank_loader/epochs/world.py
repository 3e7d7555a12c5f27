"""The rank and worker of this process, among all processes that share an epoch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch.distributed
import torch.utils.data

from tensorbank.arguments import whole_number
from tensorbank.errors import ErrorKind, InvalidInputError
from tensorbank_loader.epochs.launchers import rank_among

__all__ = ["World"]


@dataclass(frozen=True, slots=True)
class World:
    """A rank and a worker, and the numbers of both. They decide who reads what, never the order.

    Parameters
    ----------
    rank, n_ranks
        Rank of this process, and number of ranks, among those that share the samples.
    worker, n_workers
        Number of this process, and number of processes, among the workers of its rank.
    subgroup
        True if this is meant to differ from the world of ``torch.distributed``: it is the data-parallel part of a mesh of
        devices, or ``World(subgroup=True)``, with which every process reads everything.

    Raises
    ------
    InvalidInputError
        They are no whole numbers, or do not count from 0 to their number.
    """

    rank: int = 0
    n_ranks: int = 1
    worker: int = 0
    n_workers: int = 1
    subgroup: bool = False

    def __post_init__(self) -> None:
        for name in ("rank", "n_ranks", "worker", "n_workers"):
            whole_number(name, getattr(self, name), at_least=0)
        if not (self.rank < self.n_ranks and self.worker < self.n_workers):
            raise InvalidInputError(f"rank must be below n_ranks, and worker below n_workers, got {self}")

    @classmethod
    def detect(cls, environ: Mapping[str, str] | None = None) -> World:
        """Return the world of ``torch.distributed`` if it runs, else that of the launcher, else of this process alone.

        Parameters
        ----------
        environ
            Variables to read in place of ``torch.distributed`` and of the variables of this process.

        Raises
        ------
        InvalidInputError
            Launchers disagree, or give only half of it; the kind is ``world``.
        """
        if environ is None:
            group = _group()
            if group is not None:
                return cls(*group)
            environ = os.environ
        return cls(*(rank_among(environ) or (0, 1)))

    @classmethod
    def of_group(cls, group: Any) -> World:
        """Return the world of a process group of ``torch.distributed``, such as the data-parallel one of a device mesh."""
        return cls(torch.distributed.get_rank(group), torch.distributed.get_world_size(group), subgroup=True)

    def check_group(self) -> None:
        """Refuse a rank that is not this process's in ``torch.distributed``.

        Raises
        ------
        InvalidInputError
            ``torch.distributed`` runs and has another rank or number of ranks; the kind is ``world``.
        """
        group = _group()
        if group is not None and not self.subgroup and group != (self.rank, self.n_ranks):
            raise InvalidInputError(
                f"the loader was given rank {self.rank} of {self.n_ranks}, and torch.distributed says that this is rank "
                f"{group[0]} of {group[1]}; leave world out, or give subgroup=True where that is meant",
                kind=ErrorKind.WORLD,
            )

    def in_worker(self) -> World:
        """Return the same rank with the worker that this process is, if torch's DataLoader started it."""
        info = torch.utils.data.get_worker_info()
        return self if info is None else replace(self, worker=info.id, n_workers=info.num_workers)


def _group() -> tuple[int, int] | None:
    """Return the rank and number of ranks of the process group; None if there is none."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return None
