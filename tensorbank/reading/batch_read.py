"""A batch that is being read, and what of it could not be."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tensorbank.errors import ErrorKind, StorageError
from tensorbank.fetch import Pending
from tensorbank.ranges import ByteRange

__all__ = ["BatchRead", "Buffers", "LateBuffers", "Skipped"]

Buffers = Mapping[str, npt.NDArray[np.generic]]
"""A mapping of handle names to the arrays that their pixels are written to."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A modality of a sample that was left out, since its bytes are damaged or gone.

    Parameters
    ----------
    sample
        Name of the sample in the plan.
    position
        Position in the plan.
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


class LateBuffers:
    """A set of buffers that are made when the first bytes for them have come,
    and not for all of a long queue ahead."""

    def __init__(self, make: Callable[[], Buffers]) -> None:
        self._make: Callable[[], Buffers] | None = make
        self._lock = threading.Lock()
        self._made: Buffers | None = None

    def __call__(self) -> Buffers:
        with self._lock:
            if self._made is None:
                if self._make is None:
                    raise StorageError("the batch is over", kind=ErrorKind.CLOSED)
                self._made = self._make()
            return self._made

    def release(self) -> None:
        """Drop the buffers: a request that hangs, whose answer nobody waits for, must not keep a batch's memory."""
        with self._lock:
            self._made = self._make = None


class BatchRead:
    """A batch on its way into the caller's buffers.

    Parameters
    ----------
    pending
        Reads of the batch.
    masks
        Flags of the samples that have a handle, (n,) bool, by handle name; where some sample of the plan has
        fewer dates than others, which of the dates that are read, (n, time). Those of skipped samples change
        until the batch has been waited for.
    n_bytes
        Memory that the batch takes until then, buffers and stored bytes.
    recover
        Called with the number of each read that failed, and its error, to make the best of it; None: an error is raised.
    finish
        Called when every read is over.
    """

    def __init__(
        self,
        pending: Pending,
        masks: dict[str, npt.NDArray[np.bool_]],
        n_bytes: int,
        *,
        recover: Callable[[int, Exception], None] | None,
        finish: Callable[[], None],
    ) -> None:
        self._pending = pending
        self.masks = masks
        self.n_bytes = n_bytes
        self._recover = recover
        self._finish: Callable[[], None] | None = finish

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
        errors = self._pending.wait(for_all=self._recover is not None)
        if self._recover is None and errors:
            self._pending.cancel()
            self._pending.wait(for_all=True)
            raise next(iter(errors.values()))
        if self._recover is not None:
            for number, error in errors.items():
                self._recover(number, error)
        elif not self._pending.succeeded:
            raise StorageError("the reader was closed", kind=ErrorKind.CLOSED)
        finish, self._finish = self._finish, None
        if finish is not None:  # the first to wait
            finish()

    def cancel(self) -> None:
        """Drop reads that have not started."""
        self._pending.cancel()
