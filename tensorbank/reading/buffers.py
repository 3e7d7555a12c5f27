"""Buffers of a batch: the caller's arrays that pixels are written to, checked, and made no sooner than they are needed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from tensorbank.errors import ErrorKind, InvalidInputError, StorageError
from tensorbank.plans import Handle

__all__ = ["Buffers", "LateBuffers", "check_buffer", "shape_of"]

Buffers = Mapping[str, npt.NDArray[np.generic]]
"""A mapping of handle names to the arrays that their pixels are written to."""


class LateBuffers:
    """Buffers that are made when the first bytes for them have come, and not for all of a long queue ahead.

    May be called from many threads at once; ``make`` is called in one of them.
    """

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


def shape_of(handle: Handle, n: int, dates: npt.NDArray[np.int64] | None) -> tuple[int, ...]:
    """Return the shape (n, time, band, y, x) of the tensors of ``n`` samples, of which some dates are read; all if None.

    Raises
    ------
    InvalidInputError
        The dates are not (n, k) numbers of dates that the handle has.
    """
    if dates is None or not handle.by_date:
        return (n, *handle.shape)
    if dates.ndim != 2 or len(dates) != n or ((dates < 0) | (dates >= handle.n_times)).any():
        raise InvalidInputError(
            f"dates of {n} samples of {handle.name} must be ({n}, k) numbers in [0, {handle.n_times}), got {dates}"
        )
    return (n, dates.shape[1], *handle.shape[1:])


def check_buffer(buffer: npt.NDArray[np.generic], handle: Handle, shape: tuple[int, ...]) -> None:
    """Raise InvalidInputError if pixels of a handle cannot be written to a buffer as it is."""
    if buffer.shape != shape or buffer.dtype != handle.modality.dtype or not buffer.flags.c_contiguous:
        raise InvalidInputError(
            f"{handle.name} needs a C-contiguous buffer {shape} of {handle.modality.dtype}, "
            f"got {buffer.shape} of {buffer.dtype}"
        )
