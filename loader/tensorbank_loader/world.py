"""Who reads: this process among all that share an epoch."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import torch.distributed
import torch.utils.data

from tensorbank.errors import InvalidInputError

__all__ = ["World"]


@dataclass(frozen=True, slots=True)
class World:
    """Rank and worker, and how many there are of each. It decides shares, never the order."""

    rank: int = 0
    n_ranks: int = 1
    worker: int = 0
    n_workers: int = 1

    def __post_init__(self) -> None:
        if not (0 <= self.rank < self.n_ranks and 0 <= self.worker < self.n_workers):
            raise InvalidInputError(f"ranks and workers count from 0 to their number, got {self}")

    @classmethod
    def detect(cls) -> World:
        """The rank of ``torch.distributed`` where it runs, else of ``RANK`` and ``WORLD_SIZE``, else the only one."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return cls(torch.distributed.get_rank(), torch.distributed.get_world_size())
        try:
            return cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))
        except ValueError as error:
            raise InvalidInputError(f"RANK and WORLD_SIZE must be numbers: {error}") from error

    def in_worker(self) -> World:
        """The same rank, as the worker process of torch's DataLoader that this is, if it is one."""
        info = torch.utils.data.get_worker_info()
        return self if info is None else replace(self, worker=info.id, n_workers=info.num_workers)
