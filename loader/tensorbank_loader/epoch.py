"""Which batches a process reads of an epoch, and the state that resumes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tensorbank.errors import InvalidInputError
from tensorbank_loader.order import batch_bounds, first_batch_of, n_batches, permute, rank_bounds
from tensorbank_loader.world import World

__all__ = ["Epochs", "State"]

STATE_VERSION = 1


@dataclass(frozen=True, slots=True)
class Epochs:
    """Everything that decides the order. The same for every process of a run.

    Parameters
    ----------
    fingerprint, n_samples
        Of the plan.
    global_batch_size
        Samples of all ranks together.
    shuffle
        A fresh permutation each epoch; otherwise the plan's order.
    drop_last
        Leave a shorter last batch out.
    """

    fingerprint: str
    n_samples: int
    global_batch_size: int
    seed: int
    shuffle: bool
    drop_last: bool

    def __post_init__(self) -> None:
        if self.global_batch_size < 1:
            raise InvalidInputError(f"the batch size is {self.global_batch_size}; at least 1 is needed")
        if self.seed < 0:
            raise InvalidInputError(f"the seed is {self.seed}; it must not be negative")

    @property
    def n_batches(self) -> int:
        """Global batches an epoch."""
        return n_batches(self.n_samples, self.global_batch_size, drop_last=self.drop_last)

    def share(self, epoch: int, batch: int, world: World) -> npt.NDArray[np.int64]:
        """Positions in the plan that a rank reads of a global batch."""
        start, end = batch_bounds(batch, self.n_samples, self.global_batch_size)
        places = np.arange(*rank_bounds(start, end, world.rank, world.n_ranks), dtype=np.int64)
        return permute(places, self.n_samples, seed=self.seed, epoch=epoch) if self.shuffle else places

    def batches(self, epoch: int, position: int, world: World) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
        """Number and positions of each non-empty batch share of a process, from a global batch on."""
        first = first_batch_of(world.worker, world.n_workers, position)
        for batch in range(first, self.n_batches, world.n_workers):
            share = self.share(epoch, batch, world)
            if len(share):
                yield batch, share


@dataclass(frozen=True, slots=True)
class State:
    """Where a run stands: the next global batch of an epoch. Valid for any world."""

    epoch: int = 0
    position: int = 0

    def to_dict(self, epochs: Epochs) -> dict[str, Any]:
        """JSON-able, below 1 KiB."""
        return {
            "version": STATE_VERSION,
            "fingerprint": epochs.fingerprint,
            "seed": epochs.seed,
            "shuffle": epochs.shuffle,
            "drop_last": epochs.drop_last,
            "global_batch_size": epochs.global_batch_size,
            "epoch": self.epoch,
            "position": self.position,
        }

    @classmethod
    def from_dict(cls, given: Mapping[str, Any], epochs: Epochs) -> State:
        """Inverse of :meth:`to_dict`.

        Raises
        ------
        InvalidInputError
            The state is of another plan, seed, order or global batch size: resuming would skip or repeat samples.
        """
        expected = cls().to_dict(epochs)
        for name in ("version", "fingerprint", "seed", "shuffle", "drop_last", "global_batch_size"):
            if given.get(name) != expected[name]:
                raise InvalidInputError(
                    f"this state has {name} {given.get(name)!r}, the loader has {expected[name]!r}; "
                    "make the loader with the same plan and options",
                    kind="other-state",
                )
        epoch, position = int(given["epoch"]), int(given["position"])
        if epoch < 0 or not 0 <= position <= epochs.n_batches:
            raise InvalidInputError(
                f"this state points at batch {position} of epoch {epoch}", kind="other-state"
            )
        return cls(epoch, position)
