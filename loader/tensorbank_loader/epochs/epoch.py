"""The epochs of a run: which samples each process reads of each global batch."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tensorbank.arguments import choice, whole_number
from tensorbank.errors import InvalidInputError
from tensorbank_loader.budgets import TokenBudget
from tensorbank_loader.epochs.world import World
from tensorbank_loader.order import Even, SampleOrder, batch_bounds, first_batch_of, n_batches, rank_bounds

__all__ = ["Epochs", "Share", "State", "Step"]

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class State:
    """The position of a run.

    Parameters
    ----------
    epoch, position
        The next global batch of an epoch; valid for any world.
    skip
        Samples of this rank's share of that batch which were handed out already, where samples are handed out one by one.
    origin
        Batch at which the workers of one loader began, which decides whose turn is next; valid in the same worker only.
    """

    epoch: int = 0
    position: int = 0
    skip: int = 0
    origin: int = 0

    @property
    def is_inside(self) -> bool:
        """True if the epoch has begun."""
        return bool(self.position or self.skip)


@dataclass(frozen=True, slots=True)
class Step:
    """A rank's share of one global batch: the last ``n_padding`` of ``n_samples`` repeat others of the batch."""

    epoch: int
    batch: int
    n_samples: int
    n_padding: int = 0


Share = tuple[tuple[Step, ...], Int64]
"""The steps that are read together, and the positions in the plan of all their samples, (n,) int64,
one step after the other."""


@dataclass(frozen=True, slots=True)
class Epochs:
    """The values that decide what every process of a run reads; the same in all of them.

    Parameters
    ----------
    fingerprint, n_samples
        Fingerprint and number of samples of the plan.
    global_batch_size
        Samples of all ranks together in a step.
    seed
        Seed of the order.
    order
        Order of the samples, with the places of an epoch.
    drop_last
        True to leave out the last global batch if it is shorter.
    even
        Treatment of a global batch that the ranks cannot share equally: ``"exact"`` gives the first ranks one
        sample more than the others, ``"pad"`` gives the others a repeated one, and ``"drop"`` leaves the
        remainder out. Ranks make equal numbers of steps with each.
    times
        Dates of samples that are read: so many, or these; None: all. Seed and epoch decide which, as they do for the
        order.
    budget
        Budget of tokens of each sample; None: there is none. Seed and epoch decide what is drawn from it.
    source
        Description of what is streamed, for states to tell, as JSON-able values. Nothing is decided by it.

    Raises
    ------
    InvalidInputError
        The batch size is not positive, the seed negative, or ``even`` none of the three.
    """

    fingerprint: str
    n_samples: int
    global_batch_size: int
    seed: int
    order: SampleOrder
    drop_last: bool
    even: Even = "exact"
    times: int | tuple[int, ...] | None = None
    budget: TokenBudget | None = None
    source: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        whole_number("the batch size", self.global_batch_size, at_least=1)
        whole_number("seed", self.seed, at_least=0)
        choice("even", self.even, ("exact", "pad", "drop"))

    @property
    def n_batches(self) -> int:
        """The number of global batches in an epoch."""
        return n_batches(self.order.n_places, self.global_batch_size, drop_last=self.drop_last)

    @property
    def has_each_once(self) -> bool:
        """True if every sample comes exactly once in an epoch, where ranks leave none out."""
        return self.order.has_each_once and (
            not self.drop_last or self.order.n_places % self.global_batch_size == 0
        )

    def n_steps(self, world: World) -> int:
        """Return the number of batches of a rank in an epoch, the same for every rank.

        Some may be empty, or of padding only.
        """
        n = self.n_batches
        if n and self.even == "drop":
            start, end = self._batch(n - 1)
            n -= end - start < world.n_ranks
        return n if self.even != "drop" or self.global_batch_size >= world.n_ranks else 0

    def n_samples_of(self, world: World) -> int:
        """Return the number of samples of a rank in an epoch, padding included."""
        n = self.n_steps(world)
        if not n:
            return 0
        return (n - 1) * self.step(0, 0, world).n_samples + self.step(0, n - 1, world).n_samples

    def n_sharing(self, world: World) -> int:
        """Return the number of ranks if it decides which samples of a batch are left out, else 0."""
        return world.n_ranks if self.even == "drop" else 0

    def leaves_ranks_empty(self, world: World) -> bool:
        """Return True if some rank's share of the last batch of an epoch is empty."""
        n = self.n_steps(world)
        if self.even != "exact" or not n:
            return False
        start, end = self._batch(n - 1)
        return end - start < world.n_ranks

    # ---- who reads what

    def bounds(self, batch: int, world: World) -> tuple[int, int]:
        """Return the places ``[start, end)`` that are a rank's of a global batch, without padding."""
        start, end = self._batch(batch)
        if self.even == "exact":
            return rank_bounds(start, end, world.rank, world.n_ranks)
        n = self._rank_size(end - start, world)
        return min(start + world.rank * n, end), min(start + (world.rank + 1) * n, end)

    def step(self, epoch: int, batch: int, world: World) -> Step:
        """Return a rank's share of a global batch, in numbers."""
        first, end = self.bounds(batch, world)
        if self.even != "pad":
            return Step(epoch, batch, end - first)
        start, stop = self._batch(batch)
        n = self._rank_size(stop - start, world)
        return Step(epoch, batch, n, n - (end - first))

    def share(self, epoch: int, batch: int, world: World) -> Int64:
        """Return the positions in the plan that a rank reads of a global batch, (n,) int64; padding, if any, comes last."""
        first, end = self.bounds(batch, world)
        places = np.arange(first, end, dtype=np.int64)
        n_padding = self.step(epoch, batch, world).n_padding
        if n_padding:
            # Padding repeats the batch from its first place on, over all ranks: each rank goes on where the rank before it
            # stopped. A batch of 10 places on 4 ranks, 3 each: 0 1 2 | 3 4 5 | 6 7 8 | 9 (0 1). On 7 ranks, 2 each, the
            # last two have padding only: ... | 8 9 | (0 1) | (2 3).
            start, stop = self._batch(batch)
            before = max(world.rank * self._rank_size(stop - start, world) - (stop - start), 0)
            padding = start + (before + np.arange(n_padding, dtype=np.int64)) % (stop - start)
            places = np.concatenate([places, padding])
        return self.order.positions(places, seed=self.seed, epoch=epoch)

    def shares(self, state: State, world: World, *, endless: bool = False) -> Iterator[Share]:
        """Yield what a process reads, from a state to the end of its epoch, or without end if ``endless``.

        Steps come in order and none is left out. Those that are best read together come together.
        """
        together = self.order.n_together
        for epoch in itertools.count(state.epoch):
            n_steps = self.n_steps(world)
            if epoch == state.epoch:
                first = first_batch_of(world.worker, world.n_workers, state.position, state.origin)
            else:
                first = world.worker
            mine = range(first, n_steps, world.n_workers)
            for _, group in itertools.groupby(mine, key=lambda batch: batch // together):
                batches = list(group)
                steps = tuple(self.step(epoch, batch, world) for batch in batches)
                yield steps, np.concatenate([self.share(epoch, batch, world) for batch in batches])
            if not endless or not n_steps:
                return

    def _batch(self, batch: int) -> tuple[int, int]:
        """Return the places ``[start, end)`` of a global batch."""
        return batch_bounds(batch, self.order.n_places, self.global_batch_size)

    def _rank_size(self, n: int, world: World) -> int:
        """Return the number of samples of each rank of a batch of ``n``, where all have equally many."""
        return n // world.n_ranks if self.even == "drop" else -(-n // world.n_ranks)

    # ---- where a run goes on

    def after(self, step: Step, world: World) -> State:
        """Return the state of a run after a step: before the next one, which may be the next epoch's first."""
        if step.batch + 1 < self.n_steps(world):
            return State(step.epoch, step.batch + 1, 0, step.batch + 1)
        return State(step.epoch + 1)

    def at_end(self, state: State, world: World) -> bool:
        """Return True if a worker has nothing more of the epoch that a state is in."""
        first = first_batch_of(world.worker, world.n_workers, state.position, state.origin)
        return first >= self.n_steps(world)

    def following(self, state: State, world: World) -> State:
        """Return the beginning of the next epoch, for workers that stand at the end of one.

        The loader goes on taking batches in turn, so that the worker whose turn it is has the first batch of the next epoch.
        """
        return State(state.epoch + 1, origin=(state.origin - self.n_steps(world)) % world.n_workers)

    def resized(self, global_batch_size: int) -> Epochs:
        """Return the same epochs with another global batch size."""
        if global_batch_size == self.global_batch_size:
            return self
        order = self.order.of_batches(global_batch_size)
        return replace(self, global_batch_size=global_batch_size, order=order)

    def reweighted(self, weights: Sequence[float], state: State) -> tuple[Epochs, State]:
        """Return the epochs with other weights of a mix's sources, from the epoch on that a state is about to begin.

        Raises
        ------
        InvalidInputError
            Nothing is mixed, the state is inside of an epoch, or the weights make no sense.
        """
        if state.position >= self.n_batches:
            state = State(state.epoch + 1)
        order = self.order.reweighted(weights, epoch=state.epoch)
        if state.is_inside:
            raise InvalidInputError(
                f"weights change between epochs, and epoch {state.epoch} is at batch {state.position} of {self.n_batches}; "
                "finish it, or call set_epoch() first"
            )
        return replace(self, order=order), state

    @property
    def identity(self) -> dict[str, Any]:
        """The fields of a saved state that must be equal for a run to go on, as JSON-able values."""
        return {
            "fingerprint": self.fingerprint,
            "n_samples": self.n_samples,
            "seed": self.seed,
            **self.order.identity,
            "drop_last": self.drop_last,
            "times": list(self.times) if isinstance(self.times, tuple) else self.times,
            "budget": None if self.budget is None else self.budget.digest,
        }
