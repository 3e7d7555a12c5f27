"""The agreement of a dataset with the worker processes that torch's DataLoader starts of it: which epoch is next, and where."""

from __future__ import annotations

import os
from dataclasses import dataclass
from multiprocessing.context import get_spawning_popen

import torch.utils.data

from tensorbank.errors import InvalidInputError
from tensorbank_loader.callers import calling_loader, calling_sharder
from tensorbank_loader.epochs import Cursor, Epochs, Iteration, State, WorkerEpochs, World

__all__ = ["DatasetWorkers"]

N_AHEAD = 2
"""The number of batches that torch's DataLoader asks each worker for ahead of the consumer, if not told otherwise."""


@dataclass(frozen=True, slots=True)
class Sent:
    """The facts that a process sends to the workers it starts.

    Parameters
    ----------
    world
        World of the process; None if it cannot be told, which the worker finds out, too.
    sharder
        Class of accelerate that shares out what the workers yield, if any.
    n_ahead
        Batches that each worker is asked for before any is consumed.
    """

    world: World | None = None
    sharder: str | None = None
    n_ahead: int = N_AHEAD


class DatasetWorkers:
    """The side of a dataset that agrees with its workers, or in a worker with the process that started it.

    In the process that made the dataset the next epoch stands in two places: in its cursor, which its own iterations move, and
    in memory that it shares with its workers, which theirs move. The one that was moved last is right: ``_is_ahead`` is True if
    that is the cursor.

    Parameters
    ----------
    cursor
        Cursor of the dataset.
    """

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self._shared: WorkerEpochs | None = None
        self._is_ahead = False
        self._own: State | None = None
        self.sent = Sent()

    def for_copy(self) -> DatasetWorkers:
        """Return what a copy of the dataset has of its workers.

        If the copy is for a worker that is being started, it is sent the world of this process and shares the epochs. Any other
        copy is on its own.
        """
        shared = self.synchronized()
        copy = DatasetWorkers(self._cursor)
        copy._own = self._own
        if get_spawning_popen() is not None:
            if shared is None:
                self._shared = shared = WorkerEpochs(self._cursor.first)
            elif self._is_ahead:
                shared.coming = self._cursor.first
            self._is_ahead = False
            loader = calling_loader(torch.utils.data.DataLoader)
            n_ahead = N_AHEAD if loader is None else loader.prefetch_factor or N_AHEAD
            copy._shared, copy.sent = shared, Sent(self._world_to_send(), calling_sharder(), n_ahead)
        return copy

    def _world_to_send(self) -> World | None:
        try:
            self._cursor.world.check_group()
        except InvalidInputError:  # the worker finds it again, and says so when it is asked for samples
            return None
        self._cursor.require_agreement(self._cursor.first)
        return self._cursor.world

    def synchronized(self) -> WorkerEpochs | None:
        """Move the cursor to where the workers of this process begin next, and return what they share; None without workers."""
        shared = self._shared
        if shared is None or shared.pid != os.getpid():
            return None
        if not self._is_ahead:
            self._cursor.go_to(shared.coming)
        return shared

    def moved_here(self) -> None:
        """Note that an iteration of this process moves the cursor."""
        self._is_ahead = True

    def tell(self, shared: WorkerEpochs | None) -> None:
        """Let workers begin where the cursor stands."""
        if shared is not None:
            shared.coming = self._cursor.first
            self._is_ahead = False

    # ---- in a worker

    def go_on_with(self, own: State) -> None:
        """Let the next iteration of this worker begin with a state of its own, as torchdata's StatefulDataLoader gives it."""
        self._own = own

    def begin(self, iteration: Iteration, epochs: Epochs, world: World) -> State:
        """Return the state at which this worker begins an iteration, in agreement with the others."""
        own, self._own = self._own, None
        if self._shared is None:  # something else than multiprocessing has brought the dataset here
            return own or State(self._cursor.state.epoch + (iteration.turn > 1))
        if own is None:
            return self._shared.begin(iteration)
        at_end = epochs.at_end(own, world)
        return epochs.following(own, world) if self._shared.go_on(iteration, own, at_end=at_end) else own

    def end(self, iteration: Iteration, n_asked: int) -> None:
        """Note that this worker has handed out all of an iteration, and how many times it was asked for more."""
        if self._shared is not None:
            self._shared.end(iteration, was_consumed=n_asked > self.sent.n_ahead)
