"""A plan as a ``torch.utils.data.IterableDataset``, for people who bring their own loader."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import torch.utils.data

from tensorbank.errors import InvalidInputError
from tensorbank.fetch import FetchOptions
from tensorbank_loader.batch import Batch, BatchForm, samples_of
from tensorbank_loader.batches import Batches
from tensorbank_loader.dates import Times
from tensorbank_loader.epoch import Even, State, Step
from tensorbank_loader.homogeneous import MixForm
from tensorbank_loader.orders import Shuffle
from tensorbank_loader.streamed import Streamed, epochs_of, form_of, global_size, reader_of
from tensorbank_loader.transform import Transform
from tensorbank_loader.window import Window
from tensorbank_loader.world import World

__all__ = ["StreamingDataset"]

SAMPLES_PER_READ = 32
"""Samples of a rank that are read together where single samples are handed out."""


class StreamingDataset(torch.utils.data.IterableDataset[Any]):
    """Streams the samples of a plan or a mix; of a plan, each exactly once an epoch, in an order that hardware cannot change.

    With ``global_batch_size`` it yields this rank's share of each global batch, for ``DataLoader(dataset, batch_size=None)``;
    without, single samples, for a DataLoader that collates.

    Works in worker processes started by ``spawn`` or ``forkserver``; after a fork, which is torch's default on Linux before
    Python 3.14, it refuses to. With ``global_batch_size`` torch's DataLoader hands batches out in one order, whatever the
    number of workers.

    Each ``iter()`` runs an epoch to its end, and continues one that was left; the next is shuffled anew. Workers do that in
    copies of the dataset, so with workers call :meth:`set_epoch` before each epoch, unless they are persistent.

    Parameters
    ----------
    plan
        What to stream: a plan, or a mix of several.
    global_batch_size
        Samples of all ranks together, or None for single samples.
    seed
        Of the order. None: a mix's own, else 0.
    shuffle
        As in :class:`tensorbank_loader.DataLoader`. Workers have every k-th batch each, so that ``"window"``
        reads smaller pieces with them, and tiles' blocks several times.
    replacement, n_draws
        Of a plan with a column ``weight``, its sampling weights: whether an epoch may hold a sample several times (yes if None),
        and how many samples it holds (the plan's number if None).
    drop_last
        Leave the last batch out if it is shorter.
    even
        What becomes of a global batch that ranks cannot share equally, as in :class:`tensorbank_loader.DataLoader`.
    times
        Of samples with several dates, how many to read, drawn anew each epoch, or a list of which, counted from 0; None: all. The
        dates are the same for all modalities of a sample, and ``batch["time_index"]`` tells them. Needs a plan that addresses
        each date alone, as ``query.plan(by_date=True)`` makes it.
    world
        Rank and number of ranks; detected if None. Workers are found out in the worker.
    options
        How to read.
    transform
        Applied to each batch or sample, on the CPU and without gradients.

    Raises
    ------
    InvalidInputError
        The plan selects no modality, a size is not positive, or torch lacks a dtype.
    """

    def __init__(
        self,
        plan: Streamed,
        *,
        global_batch_size: int | None = None,
        seed: int | None = None,
        shuffle: Shuffle = True,
        replacement: bool | None = None,
        n_draws: int | None = None,
        drop_last: bool = False,
        even: Even = "exact",
        times: Times | None = None,
        world: World | None = None,
        options: FetchOptions | None = None,
        transform: Transform | None = None,
    ) -> None:
        if global_batch_size is None and (drop_last or even != "exact"):
            raise InvalidInputError("drop_last and even are of batches and need global_batch_size")
        self.plan = plan
        self.world = world or World.detect()
        self.options = options or FetchOptions()
        self.transform = transform
        self.single = global_batch_size is None
        per_rank = SAMPLES_PER_READ if self.single else None
        size = global_size(per_rank, global_batch_size, self.world)
        self.epochs = epochs_of(
            plan,
            global_batch_size=size,
            seed=seed,
            shuffle=shuffle,
            replacement=replacement,
            n_draws=n_draws,
            drop_last=drop_last,
            even=even,
            times=times,
        )
        self._form = self._form_of()
        self._state = State()
        self._pid = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        """For a worker: what follows from the plan is made there again."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_form", "_pid")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._form = self._form_of()
        self._pid = os.getpid()

    def __len__(self) -> int:
        """Batches of this rank, or its samples where single samples are handed out."""
        return self.epochs.n_samples_of(self.world) if self.single else self.epochs.n_steps(self.world)

    def __iter__(self) -> Iterator[Any]:
        """One epoch, from where the state stands.

        Raises
        ------
        InvalidInputError
            This process was forked off the one that made the dataset.
        """
        if self._pid != os.getpid():
            raise InvalidInputError(
                "this process was forked, and connections to an object store do not survive that; give torch's DataLoader "
                'multiprocessing_context="forkserver" or "spawn", or num_workers=0: threads read ahead without workers',
                kind="forked",
            )
        world, state = self.world.in_worker(), self._state
        shares = self.epochs.shares(state, world)
        window = Window(reader_of(self.plan, self.options), self._form, shares)
        with closing(Batches(window, padded=self.epochs.even == "pad")) as batches:
            for step, batch in batches:
                following = self._following(step, state, world)
                if self.single:
                    yield from self._one_by_one(batch, state, step, following)
                else:
                    item = self._transformed(batch)
                    self._state = following
                    yield item
        self._state = State(state.epoch + 1)

    def _following(self, step: Step, state: State, world: World) -> State:
        """Where this process stands after a step. A worker stays in its epoch until it is asked for more."""
        if world.n_workers > 1:
            return State(step.epoch, step.batch + 1, 0, state.origin)
        return self.epochs.after(step, world)

    def _one_by_one(self, batch: Batch, state: State, step: Step, following: State) -> Iterator[Any]:
        skip = state.skip if step.batch == state.position else 0
        samples = samples_of(batch, skip)
        for had, sample in enumerate(samples, start=skip + 1):
            item = self._transformed(sample)
            inside = State(step.epoch, step.batch, had, min(following.origin, step.batch))
            self._state = following if had == skip + len(samples) else inside
            yield item

    def _form_of(self) -> BatchForm | MixForm:
        skipping = self.options.on_error == "skip"
        return form_of(self.plan, self.epochs, skipping=skipping)

    def _transformed(self, batch: Batch) -> Any:
        if self.transform is None:
            return batch
        with torch.no_grad():
            return self.transform(batch)

    def set_epoch(self, epoch: int) -> None:
        """Make the next ``iter()`` run this epoch from its start."""
        self._state = State(epoch)

    def state_dict(self) -> dict[str, Any]:
        """What comes next, as JSON-able numbers: exact after each batch or sample.

        In a worker process it is that worker's, as torchdata's StatefulDataLoader wants it.
        """
        return self.epochs.to_dict(self._state, self.world)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where a state stands, on any number of ranks and, outside of workers, any number of workers.

        Its global batches are kept, and a mix's weights.

        Raises
        ------
        InvalidInputError
            The state is of another plan, seed or order.
        """
        self.epochs, given = self.epochs.from_dict(state, self.world, single=self.single)
        is_a_workers = self.world.in_worker().n_workers > 1
        self._state = given if is_a_workers else replace(given, origin=given.position)

    def set_weights(self, weights: Sequence[float]) -> None:
        """Change the weights of a mix's sources, between two epochs; workers learn of it when they are started.

        The state keeps them.

        Raises
        ------
        InvalidInputError
            An epoch has begun, the weights make no sense, or nothing is mixed.
        """
        self.epochs, self._state = self.epochs.reweighted(weights, self._state)
