"""The window of reads that runs ahead of the consumer."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from tensorbank.reader import BatchRead, SampleReader
from tensorbank_loader.batch import Batch, allocate, as_batch

__all__ = ["MIN_BATCHES_AHEAD", "read_ahead"]

MIN_BATCHES_AHEAD = 2


@dataclass(slots=True)
class _Coming:
    positions: npt.NDArray[np.int64]
    tensors: dict[str, torch.Tensor]
    read: BatchRead


def read_ahead(
    reader: SampleReader, batches: Iterator[npt.NDArray[np.int64]], *, pinned: bool = False
) -> Iterator[Batch]:
    """Batches in the given order, with as many on their way as the reader's byte budget allows.

    New reads start only when a batch is asked for: a slow consumer holds back the network. An error appears at the batch it
    belongs to. Closing the iterator cancels what has not started and waits for what has.

    Parameters
    ----------
    batches
        Positions of each batch, (n,) int64.
    pinned
        Whether buffers are page-locked, for copies to a GPU.
    """
    window: deque[_Coming] = deque()
    inflight_bytes = 0
    try:
        while True:
            while len(window) < MIN_BATCHES_AHEAD or inflight_bytes < reader.options.max_inflight_bytes:
                positions = next(batches, None)
                if positions is None:
                    break
                tensors = allocate(reader.plan, len(positions), pinned=pinned)
                read = reader.submit(positions, {name: t.numpy() for name, t in tensors.items()})
                window.append(_Coming(positions, tensors, read))
                inflight_bytes += read.n_bytes
            if not window:
                return
            first = window.popleft()
            first.read.wait()
            inflight_bytes -= first.read.n_bytes
            yield as_batch(reader.plan, first.tensors, first.read.masks, first.positions)
    finally:
        for coming in window:
            coming.read.cancel()
        reader.close()
