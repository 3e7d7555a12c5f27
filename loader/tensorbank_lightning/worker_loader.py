"""A loader whose batches are made by worker processes, and whose state is exact after each batch all the same.

Workers are asked for batches ahead of the consumer, and do not know what it has had. Batches come in one order whatever the
number of workers, so this loader counts those that it has handed out, and each of its epochs begins where that count says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch.utils.data

from tensorbank_loader import StreamingDataset
from tensorbank_loader.epochs import Cursor, OnIter

__all__ = ["WorkerLoader"]


class WorkerLoader:
    """A loader of the batches of a dataset, made by processes that are started with the first batch and kept.

    ``iter()`` has the rules of :class:`tensorbank_loader.DataLoader`. A state goes on with any number of workers and of ranks.

    Parameters
    ----------
    dataset
        Dataset that makes batches, with a ``global_batch_size``.
    n_workers
        Number of processes, at least 1.
    on_iter
        Treatment by ``iter()`` of an epoch that was left.
    """

    def __init__(self, dataset: StreamingDataset, n_workers: int, *, on_iter: OnIter = "restart") -> None:
        self.dataset = dataset
        self._workers = torch.utils.data.DataLoader(
            dataset,
            batch_size=None,
            num_workers=n_workers,
            multiprocessing_context="forkserver",
            persistent_workers=True,
        )
        self._cursor = Cursor(dataset.epochs, batch_size=None, world=None, on_iter=on_iter)

    def __len__(self) -> int:
        """Return the number of batches of this rank in an epoch."""
        return self._cursor.epochs.n_steps(self._cursor.world)

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches of an epoch, which begins when the first is asked for."""
        epochs, world = self._cursor.begin()
        begun = self._cursor.state
        self.dataset.load_state_dict(self._cursor.state_dict())
        for number, batch in enumerate(self._workers, start=begun.position):
            self._cursor.state = epochs.after(epochs.step(begun.epoch, number, world), world)
            yield batch
            del batch

    def state_dict(self) -> dict[str, Any]:
        """Return the position of the run, as JSON-able values."""
        return self._cursor.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a state stands, on any number of ranks and workers.

        Raises
        ------
        InvalidInputError
            The state is damaged, or of another plan, seed or order.
        """
        self._cursor.load_state_dict(state)

    def close(self) -> None:
        """End the processes."""
        self._workers._iterator = None
