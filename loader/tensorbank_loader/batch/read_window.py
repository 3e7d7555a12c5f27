"""The window of reads that runs ahead of the consumer."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from tensorbank.errors import ErrorKind, InvalidInputError
from tensorbank.reading import BatchRead
from tensorbank_loader.batch.form import Batch, BatchForm
from tensorbank_loader.batch.memory import BatchMemory
from tensorbank_loader.batch.reader import Reader
from tensorbank_loader.budgets import DrawnBudget
from tensorbank_loader.epochs import Share, Step

__all__ = ["MIN_BATCHES_AHEAD", "Window", "forked"]

MIN_BATCHES_AHEAD = 2
"""The number of batches that are under way whatever their size: the one that is waited for, and the next."""
RAMP = 4
"""The most batches that are asked for between two that are handed out: the first batch does not wait until reads for the whole
window are planned."""


@dataclass(frozen=True, slots=True)
class _Coming:
    """A batch on its way."""

    steps: tuple[Step, ...]
    positions: npt.NDArray[np.int64]
    dates: npt.NDArray[np.int64] | None
    budget: DrawnBudget | None
    tensors: dict[str, torch.Tensor]
    read: BatchRead


class Window:
    """An iterator of ``(steps, batch)`` in the given order, with as many batches on their way as the byte budget allows.

    Reads start only when a batch is asked for, so that a slow consumer holds back the network. Batches of the next epoch, which
    the consumer may never begin, are read when all batches of this epoch have come, and only the first ``MIN_BATCHES_AHEAD``.

    An error is raised at the batch that it belongs to, and ends the iteration. :meth:`close` cancels reads that have not
    started and waits for those that have. The end, an error and garbage collection do the same.

    Parameters
    ----------
    reader
        Reader of the samples, which this window has for itself.
    form
        Form of the batches.
    shares
        Steps and positions, (n,) int64, of each read. More of them are asked for when there is room.
    pinned
        True if buffers are page-locked, for copies to a GPU.
    """

    def __init__(
        self,
        reader: Reader,
        form: BatchForm,
        shares: Iterator[Share],
        *,
        pinned: bool = False,
    ) -> None:
        self._reader = reader
        self._form = form
        self._shares = shares
        self._memory = BatchMemory(pinned=pinned)
        self._coming: deque[_Coming] = deque()
        self._inflight_bytes = 0
        self._closed = False
        self._cancelled = threading.Event()
        self._pid = os.getpid()
        self._epoch: int | None = None
        self._held: Share | None = None

    def __iter__(self) -> Window:
        return self

    def __next__(self) -> tuple[tuple[Step, ...], Batch]:
        if self._pid != os.getpid():
            raise forked()
        if self._closed:
            raise StopIteration
        try:
            if self._coming:
                self._epoch = self._coming[0].steps[0].epoch
            self._ask_ahead()
            # Another thread may have cancelled before it knew of these reads.
            if self._cancelled.is_set() or not self._coming:
                raise StopIteration
            self._coming[0].read.wait()
            if self._held is not None:
                self._ask_ahead()
        except BaseException:
            self.close()
            raise
        first = self._coming.popleft()
        self._inflight_bytes -= first.read.n_bytes
        batch = self._form.batch(first.tensors, first.read.masks, first.positions, first.dates, first.budget)
        return first.steps, batch

    @property
    def ready(self) -> bool:
        """True if the next batch is there and sound."""
        return bool(self._coming) and self._coming[0].read.ready

    @property
    def n_ahead(self) -> int:
        """The number of batches under way, or there and not yet asked for."""
        return len(self._coming)

    @property
    def inflight_bytes(self) -> int:
        """The bytes of memory of those batches, tensors and stored bytes."""
        return self._inflight_bytes

    def cancel(self) -> None:
        """Make a thread that waits for the next batch end its wait, in an error or the end. For any other thread."""
        if self._pid == os.getpid():
            self._cancelled.set()
            self._reader.close()

    def close(self) -> None:
        """End the iteration. May be called twice."""
        self._closed = True
        if self._pid != os.getpid():
            return  # the threads are the parent's, and their locks may be held for ever here
        for coming in self._coming:
            coming.read.cancel()
        self._coming.clear()
        self._inflight_bytes = 0
        self._reader.close()
        self._memory.clear()

    def _ask_ahead(self) -> None:
        """Start reads while there is room.

        Invariant: ``_coming`` holds the reads that were started and not handed out, in the order of the shares, and
        ``_inflight_bytes`` is the sum of their bytes. ``_held`` is the next share if it was taken from the iterator and may not
        be read yet, since it is of the next epoch.
        """
        budget = self._reader.options.max_inflight_bytes
        most = len(self._coming) + RAMP
        while len(self._coming) < MIN_BATCHES_AHEAD or (
            len(self._coming) < most and self._inflight_bytes < budget
        ):
            share = self._held or next(self._shares, None)
            if share is None:
                return
            self._held = None
            if self._epoch is None:
                self._epoch = share[0][0].epoch
            if share[0][0].epoch > self._epoch and not self._may_go_beyond():
                self._held = share
                return
            steps, positions = share
            tensors: dict[str, torch.Tensor] = {}
            dates = self._form.dates(positions, epoch=steps[0].epoch)
            drawn = self._form.budget(positions, epoch=steps[0].epoch)
            allocate = partial(_allocate, self._form, positions, self._memory, tensors)
            wanted = None if drawn is None else drawn.wanted
            read = self._reader.submit(positions, allocate, dates, wanted)
            self._coming.append(_Coming(steps, positions, dates, drawn, tensors, read))
            self._inflight_bytes += read.n_bytes

    def _may_go_beyond(self) -> bool:
        """Return True if a batch of the next epoch may be read: all batches of this epoch are there, and few of the next."""
        beyond = sum(coming.steps[0].epoch != self._epoch for coming in self._coming)
        mine = (coming for coming in self._coming if coming.steps[0].epoch == self._epoch)
        return beyond < MIN_BATCHES_AHEAD and all(coming.read.ready for coming in mine)


def _allocate(
    form: BatchForm,
    positions: npt.NDArray[np.int64],
    memory: BatchMemory,
    tensors: dict[str, torch.Tensor],
) -> dict[str, npt.NDArray[np.generic]]:
    """Allocate the tensors of a batch into ``tensors``, and return them as buffers for the reader.

    The reader calls it when the first bytes have come, not when the batch is asked for. So a long window takes the memory of the
    few batches that are being filled, which is used again while the processor still has it in its caches.
    """
    tensors.update(form.allocate(positions, memory))
    return {name: t.numpy() for name, t in tensors.items()}


def forked() -> InvalidInputError:
    """Return the error for a process that was forked off one that reads."""
    return InvalidInputError(
        "this process was forked, and neither threads nor connections to an object store survive that; give torch's DataLoader "
        'multiprocessing_context="forkserver" or "spawn", or num_workers=0: threads read ahead without workers. '
        "A process of your own makes its loader after the fork",
        kind=ErrorKind.FORKED,
    )
