"""Reading of samples into the caller's buffers of pixels, without torch.

:mod:`tensorbank.reading.read_plan` finds the reads that a batch takes. Executing them is one job a read, in a thread: get the
bytes, verify every block, decode it straight into its place (:mod:`tensorbank.reading.batch_in_progress`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from tensorbank.errors import InvalidInputError
from tensorbank.fetch import Fetcher, FetchOptions, FetchStats
from tensorbank.plans import Addresses, Handle, HandleAddresses, Plan
from tensorbank.reading.batch_in_progress import BatchInProgress
from tensorbank.reading.batch_read import BatchRead
from tensorbank.reading.block_places import BlockPlaces
from tensorbank.reading.buffers import Buffers, LateBuffers, check_buffer, shape_of
from tensorbank.reading.read_plan import plan_reads
from tensorbank.reading.skipped import Skipped, Tally

__all__ = ["SampleReader"]


class SampleReader:
    """A reader of samples by their addresses. For one consumer at a time; buffers are the caller's.

    It pickles: threads, connections and counts stay behind, and threads are made anew on use.

    Parameters
    ----------
    addresses
        Addresses of the samples.
    fetcher
        Fetcher of their bytes. Several readers may share one, one after the other or at once.
    """

    def __init__(self, addresses: Addresses, fetcher: Fetcher) -> None:
        self.addresses = addresses
        self.fetcher = fetcher
        self._places = BlockPlaces(addresses)
        self._tally = Tally()

    @classmethod
    def of(cls, plan: Plan, options: FetchOptions | None = None) -> SampleReader:
        """Return a reader of the samples of a plan, with a fetcher of its own."""
        options = options or FetchOptions()
        return cls(plan.addresses, Fetcher(plan.origin.open(options.patience_s), options))

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.addresses, self.fetcher))

    @property
    def options(self) -> FetchOptions:
        """The options of the fetcher."""
        return self.fetcher.options

    @property
    def stats(self) -> FetchStats:
        """The statistics of what the fetcher has read so far."""
        return self.fetcher.stats

    @property
    def decode_s(self) -> float:
        """Time spent in verifying and decoding, summed over threads."""
        return self._tally.decode_s

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """The newest of the items left out so far, with ``on_error="skip"``."""
        return tuple(self._tally.skipped)

    @property
    def n_skipped(self) -> int:
        """The number of items left out so far."""
        return self._tally.n_skipped

    def read(self, positions: npt.ArrayLike) -> dict[str, npt.NDArray[np.generic]]:
        """Read tensors ``(n, time, band, y, x)`` by handle name, in the stored dtype;
        fill values where one is missing.
        """
        at = np.asarray(positions, np.int64)
        out: dict[str, npt.NDArray[np.generic]] = {
            h.name: np.empty((len(at), *h.shape), h.modality.dtype) for h in self.addresses.handles
        }
        self.read_into(at, out)
        return out

    def read_into(self, positions: npt.NDArray[np.int64], out: Buffers) -> dict[str, npt.NDArray[np.bool_]]:
        """Fill buffers as :meth:`submit` does, and return :attr:`BatchRead.masks`."""
        coming = self.submit(positions, out)
        coming.wait()
        return coming.masks

    def submit(
        self,
        positions: npt.NDArray[np.int64],
        out: Buffers | Callable[[], Buffers],
        dates: npt.NDArray[np.int64] | None = None,
        wanted: Mapping[str, npt.NDArray[np.bool_]] | None = None,
    ) -> BatchRead:
        """Start reading into buffers.

        The buffers belong to the reader until :meth:`BatchRead.wait` returns or raises. Batches are read in the order of
        their submission.

        Parameters
        ----------
        positions
            (n,) int64 in ``[0, addresses.n_samples)``.
        out
            By handle name, C-contiguous ``(n, time, band, y, x)`` in the stored dtype. Samples that lack a modality get
            its fill value, and so do dates that a sample lacks. Or what makes such buffers, called once in a thread when the
            first bytes have come.
        dates
            (n, k) int64: which dates of each sample are read, in which order, of the handles that are planned by date.
            None: all.
        wanted
            (n,) bool by handle name: the samples of which a handle is read; the others are treated as if they lacked it. Handles
            that are not named are read of all samples.

        Raises
        ------
        InvalidInputError
            A position is outside of the plan, a date is none of a sample's, or a buffer has another shape or dtype.
        """
        a = self.addresses
        if len(positions) and not (positions.min() >= 0 and positions.max() < a.n_samples):
            raise InvalidInputError(f"positions must be in [0, {a.n_samples}), got {positions}")
        masks = {h.name: _mask(h, a[h.name], positions, dates) for h in a.handles}
        for name, mine in (wanted or {}).items():
            masks[name] = masks[name] & (mine if masks[name].ndim == 1 else mine[:, None])
        shapes = {h.name: shape_of(h, len(positions), dates) for h in a.handles}
        given = out if callable(out) else lambda: out
        buffers = LateBuffers(lambda: self._prepared(given(), masks, shapes))
        if not callable(out):
            buffers()  # what is wrong with them is told at once
        reads = plan_reads(a, positions, self.fetcher.options, dates, wanted)
        batch = BatchInProgress(self._places, self.fetcher, self._tally, positions, reads, buffers, masks)
        tensor_bytes = sum(math.prod(shapes[h.name]) * np.dtype(h.modality.dtype).itemsize for h in a.handles)
        return BatchRead(batch, self.fetcher.submit(len(reads), batch.wanted), tensor_bytes + reads.n_bytes)

    def close(self) -> None:
        """Stop the threads of the fetcher; both can be used again."""
        self.fetcher.close()

    def _prepared(
        self, out: Buffers, masks: Mapping[str, npt.NDArray[np.bool_]], shapes: Mapping[str, tuple[int, ...]]
    ) -> Buffers:
        """Return buffers that fit, with the fill value where there is nothing to read."""
        for handle in self.addresses.handles:
            buffer, present = out[handle.name], masks[handle.name]
            check_buffer(buffer, handle, shapes[handle.name])
            if not present.all():
                buffer[~present] = handle.modality.fill_value
        return out


def _mask(
    handle: Handle,
    addresses: HandleAddresses,
    positions: npt.NDArray[np.int64],
    dates: npt.NDArray[np.int64] | None,
) -> npt.NDArray[np.bool_]:
    """Return the samples that have a modality, (n,) bool, or the dates they have, (n, time),
    if some sample lacks some.
    """
    if addresses.n_times is None:
        return addresses.shard_of[positions] >= 0
    asked = dates if dates is not None and handle.by_date else np.arange(handle.n_times)[None]
    return asked < addresses.n_times[positions][:, None]
