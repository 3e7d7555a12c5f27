"""Compute which batches a process reads of an epoch, and the state that resumes it."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tensorbank.arguments import choice, whole_number
from tensorbank.errors import ErrorKind, InvalidInputError
from tensorbank_loader.epochs.world import World
from tensorbank_loader.order import Mixed, Order, batch_bounds, first_batch_of, n_batches, rank_bounds

__all__ = ["Epochs", "Even", "Share", "State", "Step"]

STATE_VERSION = 3
DIGEST = "digest"
"""The field of a saved state that holds a hash of everything else in it,
so that damage is told from a state of something else."""
Int64 = npt.NDArray[np.int64]
Even = Literal["exact", "pad", "drop"]
"""The treatment by ranks of a global batch that they cannot share equally."""


@dataclass(frozen=True, slots=True)
class State:
    """The position of a run.

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
    """The values that decide the order. The same for every process of a run.

    Parameters
    ----------
    fingerprint, n_samples
        Fingerprint and number of samples of the plan.
    global_batch_size
        Samples of all ranks together.
    seed
        Seed of the order.
    order
        Order: what stands at each place of an epoch.
    drop_last
        Leave a shorter last batch out.
    even
        Treatment of a global batch that the ranks cannot share equally: ``"exact"`` gives the first ranks one
        sample more than the others, ``"pad"`` gives the others a repeated one, and ``"drop"`` leaves the
        remainder out. Ranks make equal numbers of steps with each.
    times
        Dates of samples that are read: so many, or these, or all. Seed and epoch decide which, as they do the
        order.

    Raises
    ------
    InvalidInputError
        The batch size is not positive, the seed negative, or ``even`` none of the three.
    """

    fingerprint: str
    n_samples: int
    global_batch_size: int
    seed: int
    order: Order
    drop_last: bool
    even: Even = "exact"
    times: int | tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        whole_number("the batch size", self.global_batch_size, at_least=1)
        whole_number("seed", self.seed, at_least=0)
        choice("even", self.even, ("exact", "pad", "drop"))

    @property
    def n_batches(self) -> int:
        """The number of global batches in an epoch."""
        return n_batches(self.order.n_places, self.global_batch_size, drop_last=self.drop_last)

    def n_steps(self, world: World) -> int:
        """Return the number of batches of a rank in an epoch, the same for every rank.
        Some may be empty, or padding only."""
        n = self.n_batches
        if n and self.even == "drop":
            start, end = batch_bounds(n - 1, self.order.n_places, self.global_batch_size)
            n -= end - start < world.n_ranks
        return n if self.even != "drop" or self.global_batch_size >= world.n_ranks else 0

    def after(self, step: Step, world: World) -> State:
        """Return the state of a run after a step:
        before the next, which may be the following epoch's first."""
        if step.batch + 1 < self.n_steps(world):
            return State(step.epoch, step.batch + 1, 0, step.batch + 1)
        return State(step.epoch + 1)

    def n_samples_of(self, world: World) -> int:
        """Return the number of samples of a rank in an epoch, padding included."""
        n = self.n_steps(world)
        if not n:
            return 0
        return (n - 1) * self.step(0, 0, world).n_samples + self.step(0, n - 1, world).n_samples

    def bounds(self, batch: int, world: World) -> tuple[int, int]:
        """Return the places ``[start, end)`` of the epoch's order that are a rank's of a global batch,
        without padding."""
        start, end = batch_bounds(batch, self.order.n_places, self.global_batch_size)
        if self.even == "exact":
            return rank_bounds(start, end, world.rank, world.n_ranks)
        n = self._rank_size(end - start, world)
        return min(start + world.rank * n, end), min(start + (world.rank + 1) * n, end)

    def step(self, epoch: int, batch: int, world: World) -> Step:
        """A rank's share of a global batch, in numbers."""
        first, end = self.bounds(batch, world)
        if self.even != "pad":
            return Step(epoch, batch, end - first)
        start, stop = batch_bounds(batch, self.order.n_places, self.global_batch_size)
        n = self._rank_size(stop - start, world)
        return Step(epoch, batch, n, n - (end - first))

    def _rank_size(self, n: int, world: World) -> int:
        """Return the number of samples of each rank where all have equally many."""
        return n // world.n_ranks if self.even == "drop" else -(-n // world.n_ranks)

    def share(self, epoch: int, batch: int, world: World) -> Int64:
        """Return the positions in the plan that a rank reads of a global batch; padding, if any, last."""
        first, end = self.bounds(batch, world)
        places = np.arange(first, end, dtype=np.int64)
        n_padding = self.step(epoch, batch, world).n_padding
        if n_padding:  # the batch once more, from where the ranks before have left off
            start, stop = batch_bounds(batch, self.order.n_places, self.global_batch_size)
            before = max(world.rank * self._rank_size(stop - start, world) - (stop - start), 0)
            padding = start + (before + np.arange(n_padding, dtype=np.int64)) % (stop - start)
            places = np.concatenate([places, padding])
        return self.order.positions(places, seed=self.seed, epoch=epoch)

    def shares(self, state: State, world: World, *, endless: bool = False) -> Iterator[Share]:
        """Yield what a process reads, from a state to the end of its epoch or on into the following ones.

        Steps come in order and none is left out; those that are best read together come together.
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

    def resized(self, global_batch_size: int) -> Epochs:
        """Return the same epochs with another global batch size."""
        if global_batch_size == self.global_batch_size:
            return self
        order = self.order.of_batches(global_batch_size)
        return replace(self, global_batch_size=global_batch_size, order=order)

    def reweighted(self, weights: Sequence[float], state: State) -> tuple[Epochs, State]:
        """Return the same with other weights of a mix's sources,
        from the epoch on that a state is about to begin.

        Raises
        ------
        InvalidInputError
            There is nothing mixed, the state is inside of an epoch, or the weights make no sense.
        """
        if not isinstance(self.order, Mixed):
            raise InvalidInputError("weights are of the sources of a mix, and this loader streams one plan")
        if state.position >= self.n_batches:
            state = State(state.epoch + 1)
        if state.position or state.skip:
            raise InvalidInputError(
                f"weights change between epochs, and epoch {state.epoch} is at batch {state.position} of {self.n_batches}; "
                "finish it, or call set_epoch() first"
            )
        order = self.order.reweighted(weights, epoch=state.epoch)
        return replace(self, order=order), state

    def leaves_ranks_empty(self, world: World) -> bool:
        """Tell whether some rank's share of the last batch of an epoch is empty."""
        n = self.n_steps(world)
        if self.even != "exact" or not n:
            return False
        start, end = batch_bounds(n - 1, self.order.n_places, self.global_batch_size)
        return end - start < world.n_ranks

    def at_end(self, state: State, world: World) -> bool:
        """Tell whether a worker has nothing more of the epoch that a state is in."""
        first = first_batch_of(world.worker, world.n_workers, state.position, state.origin)
        return first >= self.n_steps(world)

    def following(self, state: State, world: World) -> State:
        """The beginning of the next epoch, for workers that stand at the end of one: whose turn it is has its first batch."""
        return State(state.epoch + 1, origin=(state.origin - self.n_steps(world)) % world.n_workers)

    def to_dict(self, state: State, world: World) -> dict[str, Any]:
        """A state as JSON-able numbers, below 1 KiB."""
        told = {
            **self._identity(),
            "global_batch_size": self.global_batch_size,
            **({"mix": self.order.to_dict()} if isinstance(self.order, Mixed) else {}),
            "epoch": state.epoch,
            "position": state.position,
            "skip": state.skip,
            "origin": state.origin,
            "n_ranks": int(world.n_ranks),
            "n_workers": int(world.n_workers),
        }
        return {**told, DIGEST: _digest(told)}

    def from_dict(
        self, given: Mapping[str, Any], world: World | None, *, single: bool = False
    ) -> tuple[Epochs, State]:
        """Return the epochs and the state that :meth:`to_dict` wrote.

        The state's global batch size is taken over, and a mix's weights: a run keeps its batches on whatever ranks it goes on.

        Parameters
        ----------
        world
            World that goes on; None where that is not known yet, and :meth:`check_world` is called when it
            is.
        single
            True if the state may stand inside of a batch.

        Raises
        ------
        InvalidInputError
            The state is damaged (kind ``damaged-state``), or of another plan, seed, order or version (kind ``other-state``):
            resuming would skip or repeat samples.
        """
        _check_digest(given)
        for name, mine in self._identity().items():
            if given.get(name) != mine:
                raise InvalidInputError(
                    f"this state has {name} {given.get(name)!r}, the loader has {mine!r}; "
                    "make the loader with the same plan and options",
                    kind=ErrorKind.OTHER_STATE,
                )
        numbers: list[Any] = [given.get(name) for name in ("epoch", "position", "skip", "origin")]
        size = given.get("global_batch_size")
        unsound = InvalidInputError(
            f"this state points at no batch of the loader: {dict(given)}", kind=ErrorKind.OTHER_STATE
        )
        counts = [*numbers, size, given.get("n_ranks"), given.get("n_workers")]
        if not all(type(n) is int and n >= 0 for n in counts) or size == 0:
            raise unsound
        assert isinstance(size, int)
        epochs = self.resized(size)
        if isinstance(epochs.order, Mixed):
            epochs = replace(epochs, order=epochs.order.from_dict(given.get("mix")))
        if numbers[1] > epochs.n_batches or (numbers[2] and not single):
            raise unsound
        if world is not None:
            epochs.check_world(given, world)
        return epochs, State(*numbers)

    def check_world(self, given: Mapping[str, Any], world: World) -> None:
        """Refuse a state that these ranks or workers cannot go on with.

        Raises
        ------
        InvalidInputError
            They would leave all samples out, or the state is of another number of them where that matters.
        """
        if self.even == "drop" and self.global_batch_size < world.n_ranks:
            raise InvalidInputError(
                f"this run has {self.global_batch_size} samples a global batch, of which {world.n_ranks} ranks cannot have "
                "equally many without leaving all out; go on with even='exact' or 'pad', or with fewer ranks"
            )
        if given["skip"] and given["n_ranks"] != world.n_ranks:
            raise InvalidInputError(
                f"this state stands inside of a batch as {given['n_ranks']} ranks share it, and here are {world.n_ranks}; "
                "save it after a batch, or hand out batches with global_batch_size",
                kind=ErrorKind.OTHER_STATE,
            )
        if given["n_workers"] > 1 and given["n_workers"] != world.n_workers:
            raise InvalidInputError(
                f"this state is of one of {given['n_workers']} workers, and here are {world.n_workers}; "
                "keep num_workers, or save the state of a loader without workers",
                kind=ErrorKind.OTHER_STATE,
            )

    def _identity(self) -> dict[str, Any]:
        return {
            "version": STATE_VERSION,
            "fingerprint": self.fingerprint,
            "n_samples": self.n_samples,
            "seed": self.seed,
            **self.order.identity,
            "drop_last": self.drop_last,
            "times": list(self.times) if isinstance(self.times, tuple) else self.times,
        }


def _digest(told: Mapping[str, Any]) -> str:
    """The first 16 hexadecimal digits of a hash over a state's content."""
    text = json.dumps({k: v for k, v in told.items() if k != DIGEST}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _check_digest(given: Any) -> None:
    if not isinstance(given, Mapping):
        raise InvalidInputError(
            f"a state is what state_dict() gave, a mapping, got {type(given).__name__}",
            kind=ErrorKind.DAMAGED_STATE,
        )
    if DIGEST not in given:
        raise InvalidInputError(
            f"this state has version {given.get('version')!r} and no digest, the loader writes version {STATE_VERSION}: "
            "it is of an older TensorBank, or of something else",
            kind=ErrorKind.OTHER_STATE,
        )
    try:
        sound = given[DIGEST] == _digest(given)
    except (TypeError, ValueError):  # keys or values that no state has
        sound = False
    if not sound:
        raise InvalidInputError(
            "this state was changed after state_dict() made it: its content is not that of its digest; "
            "go on from another checkpoint",
            kind=ErrorKind.DAMAGED_STATE,
        )
