"""Which batches a process reads of an epoch, and the state that resumes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tensorbank.errors import InvalidInputError
from tensorbank_loader.order import batch_bounds, first_batch_of, n_batches, rank_bounds
from tensorbank_loader.orders import Order
from tensorbank_loader.world import World

__all__ = ["Epochs", "State"]

STATE_VERSION = 1


@dataclass(frozen=True, slots=True)
class State:
    """Where a run stands.

    Parameters
    ----------
    epoch, position
        The next global batch of an epoch; valid for any world.
    skip
        Samples of this rank's share of that batch which were handed out already, where single samples are.
    origin
        The batch that the workers of one loader began at, which tells whose turn is next; valid in the same worker only.
    """

    epoch: int = 0
    position: int = 0
    skip: int = 0
    origin: int = 0


@dataclass(frozen=True, slots=True)
class Epochs:
    """Everything that decides the order. The same for every process of a run.

    Parameters
    ----------
    fingerprint, n_samples
        Of the plan.
    global_batch_size
        Samples of all ranks together.
    seed
        Of the order.
    order
        What stands at each place of an epoch.
    drop_last
        Leave a shorter last batch out.

    Raises
    ------
    InvalidInputError
        The batch size is not positive, or the seed negative.
    """

    fingerprint: str
    n_samples: int
    global_batch_size: int
    seed: int
    order: Order
    drop_last: bool

    def __post_init__(self) -> None:
        if self.global_batch_size < 1:
            raise InvalidInputError(f"the batch size is {self.global_batch_size}; at least 1 is needed")
        if self.seed < 0:
            raise InvalidInputError(f"the seed is {self.seed}; it must not be negative")

    @property
    def n_batches(self) -> int:
        """Global batches an epoch."""
        return n_batches(self.order.n_places, self.global_batch_size, drop_last=self.drop_last)

    def bounds(self, batch: int, world: World) -> tuple[int, int]:
        """Places ``[start, end)`` of the epoch's order that are a rank's of a global batch."""
        start, end = batch_bounds(batch, self.order.n_places, self.global_batch_size)
        return rank_bounds(start, end, world.rank, world.n_ranks)

    def n_batches_of(self, world: World) -> int:
        """Batches of a rank an epoch: its share of the last global batch, or of each, may be empty."""
        if not self.n_batches:
            return 0
        (first, end), (last, last_end) = self.bounds(0, world), self.bounds(self.n_batches - 1, world)
        return (self.n_batches - 1) * (end > first) + (last_end > last)

    def n_samples_of(self, world: World) -> int:
        """Samples of a rank an epoch."""
        if not self.n_batches:
            return 0
        (first, end), (last, last_end) = self.bounds(0, world), self.bounds(self.n_batches - 1, world)
        return (self.n_batches - 1) * (end - first) + last_end - last

    def share(self, epoch: int, batch: int, world: World) -> npt.NDArray[np.int64]:
        """Positions in the plan that a rank reads of a global batch."""
        places = np.arange(*self.bounds(batch, world), dtype=np.int64)
        return self.order.positions(places, seed=self.seed, epoch=epoch)

    def shares(self, state: State, world: World) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
        """Number and positions of each non-empty batch share of a process, from a state to the end of its epoch."""
        first = first_batch_of(world.worker, world.n_workers, state.position, state.origin)
        for batch in range(first, self.n_batches, world.n_workers):
            share = self.share(state.epoch, batch, world)
            if len(share):
                yield batch, share

    def to_dict(self, state: State) -> dict[str, Any]:
        """A state as JSON-able numbers, below 1 KiB."""
        return {
            **self._identity(),
            "epoch": state.epoch,
            "position": state.position,
            "skip": state.skip,
            "origin": state.origin,
        }

    def from_dict(self, given: Mapping[str, Any], *, single: bool = False) -> State:
        """Inverse of :meth:`to_dict`.

        Parameters
        ----------
        single
            Whether the state may stand inside of a batch.

        Raises
        ------
        InvalidInputError
            The state is of another plan, seed, order or global batch size: resuming would skip or repeat samples.
        """
        for name, mine in self._identity().items():
            if given.get(name) != mine:
                raise InvalidInputError(
                    f"this state has {name} {given.get(name)!r}, the loader has {mine!r}; "
                    "make the loader with the same plan and options",
                    kind="other-state",
                )
        numbers: list[Any] = [given.get(name) for name in ("epoch", "position", "skip", "origin")]
        sound = all(isinstance(n, int) and n >= 0 for n in numbers) and numbers[1] <= self.n_batches
        if not sound or (numbers[2] and not single):
            raise InvalidInputError(
                f"this state points at no batch of the loader: {dict(given)}", kind="other-state"
            )
        return State(*numbers)

    def _identity(self) -> dict[str, Any]:
        return {
            "version": STATE_VERSION,
            "fingerprint": self.fingerprint,
            "n_samples": self.n_samples,
            "seed": self.seed,
            **self.order.identity,
            "drop_last": self.drop_last,
            "global_batch_size": self.global_batch_size,
        }
