"""A plan as a ``torch.utils.data.IterableDataset``, for people who bring their own loader."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch.utils.data

from tensorbank.fetch import FetchOptions
from tensorbank.plan import Plan
from tensorbank.reader import SampleReader
from tensorbank_loader.batch import Batch, check_dtypes
from tensorbank_loader.epoch import Epochs, State
from tensorbank_loader.window import read_ahead
from tensorbank_loader.world import World

__all__ = ["StreamingDataset"]

SAMPLES_PER_READ = 32
"""Samples that are read together where single samples are handed out."""

Transform = Callable[[Batch], Any]


class StreamingDataset(torch.utils.data.IterableDataset[Any]):
    """Streams the samples of a plan; each exactly once an epoch, in an order that hardware cannot change.

    With ``global_batch_size`` it yields this rank's share of each global batch, for ``DataLoader(dataset, batch_size=None)``;
    without, single samples, for a DataLoader that collates. Works in worker processes started by ``spawn`` or
    ``forkserver``; after a fork the object store refuses to work. Each ``iter()`` runs one epoch to its end; the next one
    is shuffled anew.

    Parameters
    ----------
    plan
        What to stream.
    global_batch_size
        Samples of all ranks together, or None for single samples.
    seed
        Of the order.
    shuffle
        A fresh permutation each epoch; otherwise the plan's order.
    drop_last
        Leave the last batch out if it is shorter. With several ranks and without it, the last batch's shares may be of
        unequal size, or empty for some ranks: train with ``drop_last=True``.
    world
        Rank and number of ranks; detected if None. Workers are found out in the worker.
    options
        How to read.
    transform
        Applied to each batch or sample.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        global_batch_size: int | None = None,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
        world: World | None = None,
        options: FetchOptions | None = None,
        transform: Transform | None = None,
    ) -> None:
        check_dtypes(plan)
        self.plan = plan
        self.world = world or World.detect()
        self.options = options or FetchOptions()
        self.transform = transform
        self.single = global_batch_size is None
        size = SAMPLES_PER_READ * self.world.n_ranks if global_batch_size is None else global_batch_size
        self.epochs = Epochs(plan.fingerprint, len(plan), size, seed, shuffle, drop_last and not self.single)
        self._state = State()

    def __len__(self) -> int:
        """Batches, or samples of this rank where single samples are handed out."""
        if not self.single:
            return self.epochs.n_batches
        return sum(len(share) for _, share in self.epochs.batches(0, 0, self.world))

    def __iter__(self) -> Iterator[Any]:
        """One epoch, from where the state stands."""
        world = self.world.in_worker()
        epoch = self._state.epoch
        numbers: list[int] = []

        def shares() -> Iterator[Any]:
            for number, share in self.epochs.batches(epoch, self._state.position, world):
                numbers.append(number)
                yield share

        ahead = read_ahead(SampleReader(self.plan, self.options), shares())
        for count, batch in enumerate(ahead):
            self._state = State(epoch, numbers[count] + 1)
            for item in _samples(batch) if self.single else (batch,):
                yield item if self.transform is None else self.transform(item)
        self._state = State(epoch + 1, 0)

    def set_epoch(self, epoch: int) -> None:
        """Make the next ``iter()`` run this epoch from its start."""
        self._state = State(epoch, 0)

    def state_dict(self) -> dict[str, Any]:
        """The batch to read next, as JSON-able numbers; for single samples, exact at every 32nd."""
        return self._state.to_dict(self.epochs)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where a state stands; InvalidInputError for one of another plan or order."""
        self._state = State.from_dict(state, self.epochs)


def _samples(batch: Batch) -> Iterator[Batch]:
    """Single samples of a batch."""
    first = next(iter(batch.values()))
    for i in range(len(first)):
        yield {
            name: {k: v[i] for k, v in value.items()} if isinstance(value, dict) else value[i]
            for name, value in batch.items()
        }
