"""Batches of stored blocks: read into one buffer and verified, but not decoded."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from tensorbank.arguments import whole_number
from tensorbank.errors import ErrorKind, IntegrityError, InvalidInputError, StorageError
from tensorbank.fetch import Fetcher, FetchOptions, ReadGroup, Wanted
from tensorbank.plans import Addresses, Handle, Plan
from tensorbank.ranges import ByteRange
from tensorbank.reading import Reads, plan_reads
from tensorbank_gpu.frames import Bytes, Int64, Spans, check_sums, read_frames, walk_runs
from tensorbank_gpu.stored_layout import StoredLayout, lay_out
from tensorbank_gpu.stream_batch import StreamBatch, plan_streams

__all__ = ["StoredBatch", "StoredReader"]

N_TRIES = 10
"""The most reads of blocks whose checksum is wrong, as :mod:`tensorbank.reading` has it:
a network that flips bits is a passing fault."""


@dataclass(frozen=True, slots=True, eq=False)
class StoredBatch:
    """The stored blocks of some samples, verified.

    Parameters
    ----------
    data
        (m,) uint8 on the CPU: the runs of blocks, one behind the other.
    layout
        What lies where in it, and where the pixels belong.
    handles
        Handles of the plan, in its order.
    masks
        The samples that have a handle, (n,) bool by its name; (n, time) where some sample of the plan has fewer dates.
    """

    data: torch.Tensor
    layout: StoredLayout
    handles: tuple[Handle, ...]
    masks: dict[str, npt.NDArray[np.bool_]]

    @property
    def regions(self) -> list[tuple[int, int]]:
        """The (blocks, bytes of a decoded block) of each handle's region."""
        return [
            (placement.n_blocks, handle.modality.block_bytes)
            for handle, placement in zip(self.handles, self.layout.placements, strict=True)
        ]

    @property
    def n_bytes(self) -> int:
        """The decoded size of all blocks."""
        return sum(n * size for n, size in self.regions)

    def streams(self) -> StreamBatch:
        """Return what decodes the blocks. Numpy's work alone: some milliseconds for a batch.

        Raises
        ------
        IntegrityError
            A block is not what a writer makes.
        FormatError
            A block is of a kind that is decoded on the CPU only; the kind is ``codec``.
        """
        stored, layout = self.data.numpy(), self.layout
        spans = walk_runs(stored, layout.runs.spans, layout.runs.n_blocks)
        sizes = np.array([handle.modality.block_bytes for handle in self.handles], np.int64)
        frames = read_frames(stored, spans, sizes[layout.regions])
        return plan_streams(stored, frames, layout.regions, layout.rows)


class StoredReader:
    """A reader of samples' stored blocks, in threads of the fetcher. May be called from many threads at once.

    Parameters
    ----------
    addresses
        Addresses of the samples.
    fetcher
        Fetcher of their bytes.
    pinned
        True if buffers are page-locked, so that a copy to a GPU is one transfer that runs by itself.

    Raises
    ------
    InvalidInputError
        The fetcher's options ask for damaged samples to be skipped, which this does not do.
    """

    def __init__(self, addresses: Addresses, fetcher: Fetcher, *, pinned: bool = False) -> None:
        if fetcher.options.on_error == "skip":
            raise InvalidInputError(
                'blocks that are not decoded cannot be skipped; leave out on_error="skip"'
            )
        self.addresses = addresses
        self.fetcher = fetcher
        self.pinned = pinned

    @classmethod
    def of(cls, plan: Plan, options: FetchOptions | None = None, *, pinned: bool = False) -> StoredReader:
        """Return a reader of the samples of a plan, with a fetcher of its own."""
        options = options or FetchOptions()
        return cls(plan.addresses, Fetcher(plan.origin.open(options.patience_s), options), pinned=pinned)

    def read(self, positions: npt.ArrayLike) -> StoredBatch:
        """Read the blocks of some samples, and return when all are there and sound.

        Parameters
        ----------
        positions
            (n,) whole numbers in ``[0, addresses.n_samples)``.

        Raises
        ------
        InvalidInputError
            A position is outside of the plan.
        IntegrityError
            A block is damaged, in the store and not on the way.
        NotFoundError, StorageError
            An object is gone, or the store failed.
        """
        a, at = self.addresses, np.asarray(positions, np.int64)
        if len(at) and not (at.min() >= 0 and at.max() < a.n_samples):
            raise InvalidInputError(f"positions must be in [0, {a.n_samples}), got {at}")
        reads = plan_reads(a, at, self.fetcher.options)
        layout = lay_out(a, at, reads, tuple((len(at), *handle.shape) for handle in a.handles))
        data = torch.empty(layout.runs.n_bytes, dtype=torch.uint8, pin_memory=self.pinned)
        _fill(self.fetcher, reads, layout, data.numpy())
        return StoredBatch(
            data, layout, a.handles, {handle.name: _mask(a, handle, at) for handle in a.handles}
        )

    def stream(
        self, batches: Iterable[npt.ArrayLike], *, n_ahead: int = 2
    ) -> Generator[StoredBatch, None, None]:
        """Yield batches in the given order, some of which are read ahead.

        Reading begins with the first batch that is asked for. Closing the generator drops what is under way.

        Parameters
        ----------
        batches
            Positions of each batch, as :meth:`read` takes them; it is asked for more when there is room.
        n_ahead
            Batches that are read while the consumer works on the one before them; at least 1.

        Raises
        ------
        InvalidInputError, IntegrityError, NotFoundError, StorageError
            What :meth:`read` raises, at the batch that it belongs to.
        """
        whole_number("n_ahead", n_ahead, at_least=1)
        wanted, coming = iter(batches), deque[Future[StoredBatch]]()
        threads = ThreadPoolExecutor(n_ahead + 1, thread_name_prefix="tensorbank-stored")
        try:
            while True:
                more = itertools.islice(wanted, n_ahead + 1 - len(coming))
                coming.extend(threads.submit(self.read, positions) for positions in more)
                if not coming:
                    return
                yield coming.popleft().result()
        finally:
            for future in coming:
                future.cancel()
            if any(not future.done() for future in coming):
                self.close()
            threads.shutdown()

    def close(self) -> None:
        """Stop the threads of the fetcher; it can be used again."""
        self.fetcher.close()


def _mask(addresses: Addresses, handle: Handle, positions: Int64) -> npt.NDArray[np.bool_]:
    a = addresses[handle.name]
    if a.n_times is None:
        return a.shard_of[positions] >= 0
    return np.arange(handle.n_times) < a.n_times[positions][:, None]


def _fill(fetcher: Fetcher, reads: Reads, layout: StoredLayout, data: Bytes) -> None:
    """Bring the runs of a batch into its buffer."""
    runs = layout.runs
    edges = np.searchsorted(runs.reads, np.arange(len(reads) + 1))

    def deliver(number: int, got: memoryview) -> None:
        for run in range(edges[number], edges[number + 1]):
            offset, start, end = (
                int(runs.offsets[run]),
                int(runs.spans.starts[run]),
                int(runs.spans.ends[run]),
            )
            place, key = data[start:end], reads[number].range.key
            begin = reads[number].range.start + offset
            again = ByteRange(key, begin, begin + end - start)
            place[:] = np.frombuffer(got[offset : offset + end - start], np.uint8)
            _verify(
                place,
                int(runs.n_blocks[run]),
                partial(fetcher.fetch, again, again=True),
                again,
                fetcher.ranges.url,
            )

    def wanted(number: int) -> Wanted:
        read = reads[number]
        spans = [(piece.start, piece.end) for piece in read.pieces]
        return Wanted(read.range, partial(deliver, number), read.n_asked_bytes, spans)

    _wait(fetcher.submit(len(reads), wanted))


def _wait(group: ReadGroup) -> None:
    """Return when all reads are over, or raise the first error when none writes any more."""
    errors = group.wait(for_all=False)
    if errors:
        group.cancel()
        group.wait(for_all=True)
        raise next(iter(errors.values()))
    if not group.succeeded:
        raise StorageError("the reader was closed", kind=ErrorKind.CLOSED)


def _verify(
    run: Bytes, n_blocks: int, read_again: Callable[[], memoryview], where: ByteRange, url: str
) -> None:
    """Verify the blocks of a run, and read it again where they are bad; what stays bad is the object's fault."""
    for tries_left in reversed(range(N_TRIES)):
        try:
            check_sums(run, walk_runs(run, _one(len(run)), np.array([n_blocks])))
        except IntegrityError as error:
            if not tries_left:
                raise IntegrityError(
                    f"{url}/{where.key} is damaged in bytes [{where.start}, {where.end}): {error}; "
                    "`tensorbank verify` lists all damage"
                ) from error
            run[:] = np.frombuffer(read_again(), np.uint8)
        else:
            return


def _one(n_bytes: int) -> Spans:
    zero: Int64 = np.zeros(1, np.int64)
    return Spans(zero, zero + n_bytes)
