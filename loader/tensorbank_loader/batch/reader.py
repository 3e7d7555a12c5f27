"""The contract of a reader of samples into buffers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tensorbank.fetch import FetchOptions, FetchStats
from tensorbank.reading import BatchRead, Buffers, Skipped

__all__ = ["Reader"]

Int64 = npt.NDArray[np.int64]


class Reader(Protocol):
    """A reader of the samples of one plan, or of a mix, into the caller's buffers.

    :class:`tensorbank.reading.SampleReader` keeps it for a plan. A reader is for one consumer at a time and has threads of its
    own. It can be pickled: threads and connections stay behind, and are made anew on use.
    """

    @property
    def options(self) -> FetchOptions:
        """The options of reading."""

    @property
    def stats(self) -> FetchStats:
        """The statistics of what has been read so far. May be asked for by any thread."""

    @property
    def decode_s(self) -> float:
        """The seconds spent in verifying and decoding, summed over threads."""

    @property
    def n_skipped(self) -> int:
        """The number of items left out so far, with ``on_error="skip"``."""

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """The newest of the items left out so far; of a mix, their positions are those of the source's plan."""

    def submit(
        self,
        positions: Int64,
        out: Buffers | Callable[[], Buffers],
        dates: Int64 | None = None,
        wanted: Mapping[str, npt.NDArray[np.bool_]] | None = None,
    ) -> BatchRead:
        """Start to read samples into buffers, and return at once.

        Batches are read in the order of their submission. The buffers belong to the reader until :meth:`BatchRead.wait` returns
        or raises, and it keeps none of them.

        Parameters
        ----------
        positions
            Positions of the samples, (n,) int64; of a homogeneous mix, all of one source.
        out
            Buffers (n, time, band, y, x) by handle name, or a function that makes them. It is called once, in a thread, when the
            first bytes have come.
        dates
            Dates that are read of each sample, (n, k) int64; None: all.
        wanted
            Samples of which a handle is read, (n,) bool by handle name. Handles that are not named are read of all.

        Raises
        ------
        InvalidInputError
            A position or a date does not exist, or a buffer has another shape or dtype.
        """

    def close(self) -> None:
        """Stop the threads; the reader can be used again."""
