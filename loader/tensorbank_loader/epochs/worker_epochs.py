"""The epochs that the worker processes of torch's DataLoader agree on, in memory that they share.

A worker has a copy of the dataset, and knows neither what the consumer has had nor what the other workers do. Fresh workers are
started for each ``iter()``, persistent ones are asked again. So the number of the next epoch lies in memory that all workers
share with the process that made the dataset. The first worker of an iteration takes it and counts it up, and the others of the
same iteration find what the first one took.

The shared memory is one array of int64, and all access to it holds the lock::

    header:  next epoch | next position | next skip | number of the newest row
    row 0:   seed | turn | workers begun | at end | ended | was consumed | epoch | position | skip
    ...
    row 7

Rows remember the last iterations, in turn. Seed and turn tell iterations apart, see :class:`Iteration`. The row of an iteration
is complete when as many workers have begun as the iteration has; no worker joins it from then on.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from dataclasses import dataclass

import torch

from tensorbank.errors import ErrorKind, TensorBankError
from tensorbank_loader.epochs.epoch import State

__all__ = ["Iteration", "WorkerEpochs"]

N_ITERATIONS = 8
"""The number of iterations that are remembered. Several may run at once, as in ``zip(loader, loader)``."""
SEED, TURN, N_BEGUN, N_AT_END, N_ENDED, CONSUMED, EPOCH, POSITION, SKIP = range(9)
N_FIELDS = 9
NEXT_EPOCH, NEXT_POSITION, NEXT_SKIP, NEWEST = range(4)
N_HEADER = 4
MAX_START_S = 300.0
"""The longest time in seconds that a worker waits for the others of its set to be started."""
PAUSE_S = 0.01
"""The pause in seconds between two looks at what the others have done."""


@dataclass(frozen=True, slots=True)
class Iteration:
    """An ``iter()`` of torch's DataLoader, by the numbers that a worker can know it by.

    Parameters
    ----------
    seed
        Seed that torch draws for each set of workers.
    turn
        Number of times that these workers have been asked to iterate, counted from 1.
    n_workers
        Number of workers of the set.
    """

    seed: int
    turn: int
    n_workers: int


class WorkerEpochs:
    """The next epoch, and what recent iterations took. It can be sent to processes that are being started, and to no others."""

    def __init__(self, first: State) -> None:
        self.pid = os.getpid()
        self._lock = multiprocessing.get_context("spawn").RLock()  # which suits forkserver, too
        self._numbers = torch.zeros(N_HEADER + N_ITERATIONS * N_FIELDS, dtype=torch.int64)
        self._numbers.share_memory_()  # type: ignore[no-untyped-call]  # torch annotates it in part
        self.coming = first

    @property
    def coming(self) -> State:
        """The state at which the next iteration begins."""
        with self._lock:
            epoch, position, skip = self._numbers[NEXT_EPOCH : NEXT_SKIP + 1].tolist()
        return State(epoch, position, skip, position)

    @coming.setter
    def coming(self, state: State) -> None:
        with self._lock:
            self._numbers[NEXT_EPOCH : NEXT_SKIP + 1] = torch.tensor(
                [state.epoch, state.position, state.skip]
            )

    def begin(self, iteration: Iteration) -> State:
        """Return the state at which an iteration begins, for one of its workers."""
        with self._lock:
            row = self._join(iteration, self.coming)
            epoch, position, skip = self._numbers[row + EPOCH : row + SKIP + 1].tolist()
        return State(epoch, position, skip, position)

    def go_on(self, iteration: Iteration, own: State, *, at_end: bool) -> bool:
        """Begin an iteration with a state of the worker's own, as torchdata's StatefulDataLoader gives it.

        Parameters
        ----------
        own
            The state, of one epoch for all workers of a set.
        at_end
            True if the worker has nothing more of that epoch.

        Returns
        -------
        True if all workers stand at the end of the epoch, so that the iteration gives the next one.

        Raises
        ------
        TensorBankError
            Another worker of the set was not started in time; the kind is ``workers-missing``.
        """
        n = iteration.n_workers
        with self._lock:
            row = self._join(iteration, own)
            self._numbers[row + N_AT_END] += at_end
            if self._numbers[row + N_AT_END] == n:
                self._numbers[row + EPOCH] = own.epoch + 1
        deadline = time.monotonic() + MAX_START_S
        while at_end:
            with self._lock:
                n_begun, n_at_end = self._numbers[row + N_BEGUN : row + N_AT_END + 1].tolist()
            if n_begun == n:
                return bool(n_at_end == n)
            if time.monotonic() > deadline:
                raise TensorBankError(
                    f"{n_begun} of {n} workers started within {MAX_START_S:.0f} s",
                    kind=ErrorKind.WORKERS_MISSING,
                )
            time.sleep(PAUSE_S)
        return False

    def end(self, iteration: Iteration, *, was_consumed: bool) -> None:
        """Note that a worker has handed out all of an iteration.

        If all its workers went on at the end of an epoch, the iteration gave the next epoch, and that epoch is counted here, when
        the last worker ends. It cannot be counted when they begin: torchdata restores workers at the end of an epoch also to drop
        them unused, and then starts a fresh iteration.

        Parameters
        ----------
        was_consumed
            True if the worker was asked for more than torch asks for ahead.
        """
        with self._lock:
            row = self._row(iteration, complete=True)
            if row is None:
                return
            self._numbers[row + N_ENDED] += 1
            self._numbers[row + CONSUMED] |= was_consumed
            n_at_end, n_ended, consumed, epoch = self._numbers[row + N_AT_END : row + EPOCH + 1].tolist()
            if n_at_end == n_ended == iteration.n_workers and consumed and self.coming == State(epoch):
                self.coming = State(epoch + 1)

    def _row(self, iteration: Iteration, *, complete: bool) -> int | None:
        """Return the row of an iteration that all its workers have begun, or only some; None if there is none.

        The lock is held.
        """
        newest = int(self._numbers[NEWEST])
        for age in range(N_ITERATIONS):
            row = N_HEADER + (newest - age) % N_ITERATIONS * N_FIELDS
            seed, turn, n_begun = self._numbers[row : row + N_BEGUN + 1].tolist()
            known = n_begun > 0 and (seed, turn) == (iteration.seed, iteration.turn)
            if known and (n_begun == iteration.n_workers) == complete:
                return row
        return None

    def _join(self, iteration: Iteration, first: State) -> int:
        """Join the workers of an iteration, and return the row that remembers it. The lock is held."""
        # A program that seeds torch anew has the same seed twice. Then the row of the earlier set is complete, and not found.
        row = self._row(iteration, complete=False)
        if row is not None:
            self._numbers[row + N_BEGUN] += 1
            return row
        newest = (int(self._numbers[NEWEST]) + 1) % N_ITERATIONS
        row = N_HEADER + newest * N_FIELDS
        place = (first.epoch, first.position, first.skip)
        told = torch.tensor([iteration.seed, iteration.turn, 1, 0, 0, 0, *place])
        self._numbers[row : row + N_FIELDS] = told
        self._numbers[NEWEST] = newest
        self.coming = State(first.epoch + 1)
        return row
