"""A batch on its way into buffers, as its consumer holds it: is it there, wait for it, drop it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tensorbank.errors import ErrorKind, StorageError
from tensorbank.fetch import ReadGroup
from tensorbank.reading.batch_in_progress import BatchInProgress

__all__ = ["BatchRead"]


class BatchRead:
    """A batch on its way into the caller's buffers.

    Parameters
    ----------
    batch
        The batch that is being read.
    pending
        Reads of the batch.
    n_bytes
        Memory that the batch takes until it is over, buffers and stored bytes.
    """

    def __init__(self, batch: BatchInProgress, pending: ReadGroup, n_bytes: int) -> None:
        self.n_bytes = n_bytes
        self.masks: dict[str, npt.NDArray[np.bool_]] = batch.masks
        """The flags of the samples that have a handle, (n,) bool, by handle name; where some sample has fewer dates than others,
        of the dates that are read, (n, time). Those of skipped samples change until the batch has been waited for."""
        self._pending = pending
        self._batch: BatchInProgress | None = batch

    @property
    def ready(self) -> bool:
        """True if every buffer is filled: :meth:`wait` would return at once, and not raise."""
        return self._pending.succeeded

    def wait(self) -> None:
        """Return when every buffer is filled.

        Raises
        ------
        IntegrityError, StorageError, NotFoundError
            The first failed read's error. Reads that had not started are cancelled and the others over, so that nothing
            writes into the buffers any more.
        """
        batch = self._batch
        if batch is None:
            return  # it is over
        errors = self._pending.wait(for_all=batch.skips)
        if batch.skips:
            for number, error in errors.items():
                batch.recover(number, error)
        elif errors:
            self._pending.cancel()
            self._pending.wait(for_all=True)
            raise next(iter(errors.values()))
        elif not self._pending.succeeded:
            raise StorageError("the reader was closed", kind=ErrorKind.CLOSED)
        batch.finish()
        self._batch = None

    def cancel(self) -> None:
        """Drop reads that have not started."""
        self._pending.cancel()
