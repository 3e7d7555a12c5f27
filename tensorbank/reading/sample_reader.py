"""Read positions of a plan into the caller's buffers of pixels, without torch.

:mod:`tensorbank.reading.read_plan` plans which reads a batch takes. Executing them is one job a read, in a thread: get the bytes,
verify every block, decode it straight into its place.
"""

from __future__ import annotations

import itertools
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from tensorbank.client import open_store
from tensorbank.errors import ErrorKind, IntegrityError, InvalidInputError, TensorBankError
from tensorbank.fetch import Fetcher, FetchOptions, FetchStats, Wanted
from tensorbank.plans import Handle, Plan
from tensorbank.ranges import ByteRange
from tensorbank.reading.batch_read import BatchRead, Buffers, LateBuffers, Skipped
from tensorbank.reading.codec import decode_run
from tensorbank.reading.read_plan import Piece, Read, Reads, plan_reads

__all__ = ["BatchRead", "SampleReader"]

_log = logging.getLogger(__name__)

Places = tuple[tuple[int, int], ...]
Window = tuple[slice, slice]
Target = tuple[npt.NDArray[np.generic], Window | None]
Lost = list[tuple[int, Skipped]]


SKIPPED = frozenset({ErrorKind.SHORT_READ, ErrorKind.NO_OBJECT})
"""The kinds of errors that are an object's own.
A store that is out of reach or refuses is not skipped object by object."""
N_BAD_TRIES = 10
"""The most reads of blocks whose checksum is wrong, the first included: a network that flips bits is as
passing a fault as one that loses connections, and 1 read in 100 that is bad must not end an epoch."""
MAX_SKIPPED = 10_000
"""The most skipped samples that are remembered one by one."""


class SampleReader:
    """A reader of samples of one plan. Picklable:
    threads and connections stay behind and are made anew on use.

    For one consumer at a time; the threads are its own. Buffers are the caller's.

    Parameters
    ----------
    plan
        Plan to read.
    options
        Options of reading.

    Raises
    ------
    InvalidInputError
        A handle has one band twice.
    """

    def __init__(self, plan: Plan, options: FetchOptions | None = None) -> None:
        self.plan = plan
        self.options = options or FetchOptions()
        self._places = [_places(handle) for handle in plan.handles]
        self._runs = [handle.runs for handle in plan.handles]
        store = open_store(plan.source.bank, plan.storage, self.options.patience_s)
        self._fetcher = Fetcher(store, self.options)
        self._decode_s = 0.0
        self._skipped: deque[Skipped] = deque(maxlen=MAX_SKIPPED)
        self._n_skipped = 0
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.plan, self.options))

    @property
    def stats(self) -> FetchStats:
        """The statistics of what has been read so far."""
        return self._fetcher.stats

    @property
    def decode_s(self) -> float:
        """Time spent in verifying and decoding, summed over threads."""
        return self._decode_s

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """The newest of the items left out so far, with ``on_error="skip"``."""
        return tuple(self._skipped)

    @property
    def n_skipped(self) -> int:
        """The number of items left out so far."""
        return self._n_skipped

    def read(self, positions: npt.ArrayLike) -> dict[str, npt.NDArray[np.generic]]:
        """Read tensors ``(n, time, band, y, x)`` by handle name, in the stored dtype;
        fill values where one is missing."""
        at = np.asarray(positions, np.int64)
        out: dict[str, npt.NDArray[np.generic]] = {
            h.name: np.empty((len(at), *h.shape), h.modality.dtype) for h in self.plan.handles
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
    ) -> BatchRead:
        """Start reading into buffers.

        The buffers belong to the reader until :meth:`BatchRead.wait` returns or raises. Batches are read in the order of
        their submission.

        Parameters
        ----------
        positions
            (n,) int64 in ``[0, len(plan))``.
        out
            By handle name, C-contiguous ``(n, time, band, y, x)`` in the stored dtype. Samples that lack a modality get
            its fill value, and so do dates that a sample lacks. Or what makes such buffers, called once in a thread when the
            first bytes have come.
        dates
            (n, k) int64: which dates of each sample are read, in which order, of the handles that are planned by date.
            None: all.

        Raises
        ------
        InvalidInputError
            A position is outside of the plan, a date is none of a sample's, or a buffer has another shape or dtype.
        """
        if len(positions) and not (positions.min() >= 0 and positions.max() < len(self.plan)):
            raise InvalidInputError(f"positions must be in [0, {len(self.plan)}), got {positions}")
        masks = {h.name: self._mask(h, positions, dates) for h in self.plan.handles}
        late = out if callable(out) else lambda: out
        shapes = {h.name: _shape(h, len(positions), dates) for h in self.plan.handles}
        buffers = LateBuffers(lambda: self._prepared(late(), masks, shapes))
        if not callable(out):
            buffers()  # what is wrong with them is told at once
        reads = plan_reads(self.plan, positions, self.options, dates)
        sizes = {h.name: np.dtype(h.modality.dtype).itemsize for h in self.plan.handles}
        n_bytes = sum(math.prod(shape) * sizes[name] for name, shape in shapes.items())
        lost: Lost = []

        def wanted(number: int) -> Wanted:
            read = reads[number]
            return Wanted(
                read.range,
                partial(self._decode, read, positions, buffers, lost),
                read.n_asked_bytes,
                [(p.start, p.end) for p in read.pieces],
            )

        skipping = self.options.on_error == "skip"
        return BatchRead(
            self._fetcher.submit(len(reads), wanted),
            masks,
            n_bytes + reads.n_bytes,
            recover=partial(self._recover, reads, positions, buffers, lost) if skipping else None,
            finish=partial(self._leave_out, lost, masks, buffers),
        )

    def _mask(
        self, handle: Handle, positions: npt.NDArray[np.int64], dates: npt.NDArray[np.int64] | None
    ) -> npt.NDArray[np.bool_]:
        """Return the samples that have a modality, (n,) bool, or the dates they have, (n, time),
        if some sample lacks some."""
        a = self.plan.addresses[handle.name]
        if a.n_times is None:
            return a.key[positions] >= 0
        asked = dates if dates is not None and handle.by_date else np.arange(handle.n_times)[None]
        return asked < a.n_times[positions][:, None]

    def close(self) -> None:
        """Stop the threads; the reader can be used again."""
        self._fetcher.close()

    def _decode(
        self, read: Read, positions: npt.NDArray[np.int64], buffers: LateBuffers, lost: Lost, data: memoryview
    ) -> None:
        started = time.perf_counter()
        out = buffers()
        for pieces in _shared(read.pieces):
            start, end = (n - read.range.start for n in (pieces[0].start, pieces[0].end))
            try:
                self._place(data[start:end], pieces, positions, out)
            except IntegrityError:
                self._again(read.range.key, pieces, positions, out, lost)
        with self._lock:
            self._decode_s += time.perf_counter() - started

    def _place(
        self, data: memoryview, pieces: Sequence[Piece], positions: npt.NDArray[np.int64], out: Buffers
    ) -> None:
        """Decode a run of blocks into all that want it."""
        handle = self.plan.handles[pieces[0].handle]
        addresses = self.plan.addresses[handle.name]
        corners, places = addresses.corners, self._places[pieces[0].handle][pieces[0].run]
        if addresses.n_times is not None:
            n_times = int(addresses.n_times[positions[pieces[0].slot]])
            places = places[: handle.n_present(self._runs[pieces[0].handle][pieces[0].run], n_times)]
        targets: list[Target] = []
        for piece in pieces:
            window = None
            if corners is not None and handle.window is not None:
                at = zip(corners[positions[piece.slot]].tolist(), handle.window, strict=True)
                y, x = (slice(start, start + size) for start, size in at)
                window = y, x
            targets.append((out[handle.name][piece.slot, piece.time :], window))
        block = handle.modality.height, handle.modality.width
        _decode(data, places, targets, block)

    def _again(
        self, key: str, pieces: Sequence[Piece], positions: npt.NDArray[np.int64], out: Buffers, lost: Lost
    ) -> None:
        """Read a bad run again; what stays bad is the object's fault, not the network's."""
        r = ByteRange(key, pieces[0].start, pieces[0].end)
        try:
            for is_last in [False] * (N_BAD_TRIES - 2) + [True]:
                try:
                    self._place(self._fetcher.fetch(r, again=True), pieces, positions, out)
                except IntegrityError:
                    if is_last:
                        raise
                else:
                    return
        except TensorBankError as error:
            damaged = isinstance(error, IntegrityError)
            handle, position = self.plan.handles[pieces[0].handle].name, int(positions[pieces[0].slot])
            if self.options.on_error == "skip" and (damaged or error.kind in SKIPPED):
                for piece in pieces:
                    at = int(positions[piece.slot])
                    lost.append((piece.slot, Skipped(self._sample(at), at, handle, r, str(error))))
                return
            if not damaged:
                raise
            raise IntegrityError(
                f"{self.plan.source.bank}/{r.key} is damaged in bytes [{r.start}, {r.end}), which hold "
                f"{handle} of {self._sample(position)}: {error}; `tensorbank verify` lists all damage"
            ) from error

    def _recover(
        self,
        reads: Reads,
        positions: npt.NDArray[np.int64],
        buffers: LateBuffers,
        lost: Lost,
        number: int,
        error: Exception,
    ) -> None:
        """Recover every sound piece of a read that failed."""
        if getattr(error, "kind", None) not in SKIPPED:
            raise error
        for pieces in _shared(reads[number].pieces):
            self._again(reads[number].range.key, pieces, positions, buffers(), lost)

    def _prepared(
        self, out: Buffers, masks: Mapping[str, npt.NDArray[np.bool_]], shapes: Mapping[str, tuple[int, ...]]
    ) -> Buffers:
        """Return buffers that fit, with the fill value where there is nothing to read."""
        for handle in self.plan.handles:
            buffer, present = out[handle.name], masks[handle.name]
            _check_buffer(buffer, handle, shapes[handle.name])
            if not present.all():
                buffer[~present] = handle.modality.fill_value
        return out

    def _leave_out(self, lost: Lost, masks: dict[str, npt.NDArray[np.bool_]], buffers: LateBuffers) -> None:
        """Make what is lost look like what is missing, and say so."""
        out = buffers()
        fills = {h.name: h.modality.fill_value for h in self.plan.handles}
        for slot, skipped in {(slot, s.handle): (slot, s) for slot, s in lost}.values():
            out[skipped.handle][slot] = fills[skipped.handle]
            masks[skipped.handle][slot] = False
            self._n_skipped += 1
            self._skipped.append(skipped)
            _log.warning("skipped %s of %s: %s", skipped.handle, skipped.sample, skipped.error)
        buffers.release()

    def _sample(self, position: int) -> str:
        if "sample_id" in self.plan.table.column_names:
            return f"sample {self.plan.table['sample_id'][position].as_py()!r}, number {position} of the plan"
        return f"sample number {position} of the plan"


def _shared(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Yield the pieces of the same bytes together:
    windows of one sample, or a sample that comes several times."""
    for _, alike in itertools.groupby(pieces, key=lambda p: (p.handle, p.run, p.start)):
        yield list(alike)


def _places(handle: Handle) -> tuple[Places, ...]:
    """Return the (time, band) places of every block, run by run; times count from the run's first date."""
    if len(set(handle.bands)) != len(handle.bands):
        raise InvalidInputError(f"{handle.name} has a band twice: {list(handle.bands)}")
    runs = [[handle.slot(block) for block in range(*run)] for run in handle.runs]
    return tuple(tuple((time - run[0][0], band) for time, band in run) for run in runs)


def _shape(handle: Handle, n: int, dates: npt.NDArray[np.int64] | None) -> tuple[int, ...]:
    """Return the shape of the tensors of ``n`` samples."""
    if dates is None or not handle.by_date:
        return (n, *handle.shape)
    if dates.ndim != 2 or len(dates) != n or ((dates < 0) | (dates >= handle.n_times)).any():
        raise InvalidInputError(
            f"dates of {n} samples of {handle.name} must be ({n}, k) numbers in [0, {handle.n_times}), got {dates}"
        )
    return (n, dates.shape[1], *handle.shape[1:])


def _check_buffer(buffer: npt.NDArray[np.generic], handle: Handle, shape: tuple[int, ...]) -> None:
    if buffer.shape != shape or buffer.dtype != handle.modality.dtype or not buffer.flags.c_contiguous:
        raise InvalidInputError(
            f"{handle.name} needs a C-contiguous buffer {shape} of {handle.modality.dtype}, "
            f"got {buffer.shape} of {buffer.dtype}"
        )


def _decode(data: memoryview, places: Places, targets: Sequence[Target], block: tuple[int, int]) -> None:
    """Verify and decode one run of blocks, once, into some samples' tensors (time, band, y, x) or windows of them.

    Targets are all whole or all windows.
    """
    (first, window), *others = targets
    if window is None and not others:
        decode_run(data, [first[place] for place in places])
    else:
        decode_run(data, _shared_out(places, targets, block))


def _shared_out(
    places: Places, targets: Sequence[Target], block: tuple[int, int]
) -> Iterator[npt.NDArray[np.generic]]:
    """Yield the array to decode each block into;
    on the next step, copy the last block to all tensors that want it."""
    first, window = targets[0]
    scratch = None if window is None else np.empty(block, first.dtype)
    copies = targets[1:] if scratch is None else targets
    for place in places:
        decoded = first[place] if scratch is None else scratch
        yield decoded
        for tensor, cut in copies:
            tensor[place] = decoded if cut is None else decoded[cut]
