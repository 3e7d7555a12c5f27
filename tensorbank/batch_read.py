"""A batch that is being read, and what of it could not be."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tensorbank.errors import NotFoundError, StorageError
from tensorbank.ranges import ByteRange

__all__ = ["BatchRead", "Skipped"]


@dataclass(frozen=True, slots=True)
class Skipped:
    """A modality of a sample that was left out, since its bytes are damaged or gone.

    Parameters
    ----------
    sample
        What the plan calls it.
    position
        In the plan.
    handle
        Name of the modality in the batch.
    range
        Object and bytes.
    error
        What is wrong with them, a sentence.
    """

    sample: str
    position: int
    handle: str
    range: ByteRange
    error: str


class BatchRead:
    """A batch on its way into the caller's buffers.

    Parameters
    ----------
    futures
        Of its reads.
    masks
        Which samples have a handle, (n,) bool, by handle name. Those of skipped samples change until the batch has been
        waited for.
    n_bytes
        Memory that the batch takes until then, buffers and stored bytes.
    recover
        Called with the number of a read that failed, and its error: raises it, or makes the best of it.
    finish
        Called when every read is over.
    """

    def __init__(
        self,
        futures: Sequence[Future[None]],
        masks: dict[str, npt.NDArray[np.bool_]],
        n_bytes: int,
        *,
        recover: Callable[[int, Exception], None],
        finish: Callable[[], None],
    ) -> None:
        self._futures = futures
        self.masks = masks
        self.n_bytes = n_bytes
        self._recover = recover
        self._finish = finish

    @property
    def ready(self) -> bool:
        """Whether every buffer is filled: :meth:`wait` would return at once, and not raise."""
        return all(f.done() and not f.cancelled() and f.exception() is None for f in self._futures)

    def wait(self) -> None:
        """Return when every buffer is filled.

        Raises
        ------
        IntegrityError, StorageError, NotFoundError
            The first failed read's error. Reads that had not started are cancelled and the others over, so that nothing
            writes into the buffers any more.
        """
        try:
            for number, future in enumerate(self._futures):
                try:
                    future.result()
                except (NotFoundError, StorageError) as error:
                    self._recover(number, error)
        except Exception:
            self.cancel()
            concurrent.futures.wait([f for f in self._futures if not f.cancelled()])
            raise
        self._finish()

    def cancel(self) -> None:
        """Drop reads that have not started."""
        for future in self._futures:
            future.cancel()
