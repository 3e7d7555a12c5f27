"""From positions of a plan to pixels in the caller's buffers, without torch.

Planning is pure: which reads a batch takes, and where in them each sample's blocks lie. Executing is one job a read in a
thread pool: get the bytes, verify every block, decode it straight into its place.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tensorbank.codec import decode_block, split_blocks
from tensorbank.errors import IntegrityError
from tensorbank.fetch import Fetcher, FetchOptions, FetchStats
from tensorbank.plan import Handle, Plan
from tensorbank.ranges import ByteRange, coalesce
from tensorbank.store import Store

__all__ = ["BatchRead", "Piece", "Read", "SampleReader", "plan_reads"]

Buffers = Mapping[str, npt.NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Piece:
    """One run of blocks of one sample inside a read.

    ``handle`` and ``run`` are numbers in the plan, ``slot`` is the sample's place in the batch, ``range`` its bytes.
    """

    handle: int
    run: int
    slot: int
    range: ByteRange


@dataclass(frozen=True, slots=True)
class Read:
    """One request, and the pieces that it brings."""

    range: ByteRange
    pieces: tuple[Piece, ...]


def plan_reads(plan: Plan, positions: npt.NDArray[np.int64], options: FetchOptions) -> list[Read]:
    """Reads that bring the samples at some positions of a plan. Pure.

    Samples that lie side by side share reads, within the limits of ``options``; a position may occur twice.

    Parameters
    ----------
    positions
        (n,) int64 in ``[0, len(plan))``; place ``i`` of the batch is sample ``positions[i]``.
    """
    by_key: dict[str, list[Piece]] = defaultdict(list)
    for number, handle in enumerate(plan.handles):
        a = plan.addresses[handle.name]
        starts, lengths, keys = a.starts[positions], a.lengths[positions], a.key[positions]
        for slot, key in enumerate(keys.tolist()):
            if key >= 0:
                name = a.keys[key]
                for run, (start, length) in enumerate(
                    zip(starts[slot].tolist(), lengths[slot].tolist(), strict=True)
                ):
                    by_key[name].append(Piece(number, run, slot, ByteRange(name, start, start + length)))
    reads: list[Read] = []
    for key, pieces in by_key.items():
        reads += _joined(key, pieces, options)
    return reads


def _joined(key: str, pieces: list[Piece], options: FetchOptions) -> list[Read]:
    """Coalesce the pieces of one object; equal ranges are read once."""
    sharing: dict[tuple[int, int], list[Piece]] = defaultdict(list)
    for piece in pieces:
        sharing[piece.range.start, piece.range.end].append(piece)
    bounds = np.array(sorted(sharing), np.int64)
    first, last, owner = coalesce(
        bounds[:, 0],
        bounds[:, 1],
        max_gap_bytes=options.max_gap_bytes,
        max_amplification=options.max_amplification,
        max_read_bytes=options.max_read_bytes,
    )
    members: list[list[Piece]] = [[] for _ in first]
    for (start, end), read in zip(bounds.tolist(), owner.tolist(), strict=True):
        members[read] += sharing[start, end]
    ranges = zip(first.tolist(), last.tolist(), strict=True)
    return [Read(ByteRange(key, s, e), tuple(m)) for (s, e), m in zip(ranges, members, strict=True)]


class BatchRead:
    """A batch on its way into the caller's buffers."""

    def __init__(
        self, futures: Sequence[Future[None]], masks: dict[str, npt.NDArray[np.bool_]], n_bytes: int
    ) -> None:
        self._futures = futures
        self.masks = masks
        self.n_bytes = n_bytes

    def wait(self) -> None:
        """Return when every buffer is filled.

        Raises
        ------
        IntegrityError, StorageError, NotFoundError
            The first failed read's error; the others are cancelled.
        """
        try:
            for future in self._futures:
                future.result()
        except BaseException:
            self.cancel()
            raise

    def cancel(self) -> None:
        """Drop reads that have not started."""
        for future in self._futures:
            future.cancel()


class SampleReader:
    """Reads samples of one plan. Picklable: threads and connections stay behind and are made anew on use.

    Parameters
    ----------
    plan
        What to read.
    options
        How to read.
    """

    def __init__(self, plan: Plan, options: FetchOptions | None = None) -> None:
        self.plan = plan
        self.options = options or FetchOptions()
        self._fetcher: Fetcher | None = None
        self._pool: ThreadPoolExecutor | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"plan": self.plan, "options": self.options, "_fetcher": None, "_pool": None}

    @property
    def stats(self) -> FetchStats:
        """What has been read so far."""
        return self._fetcher.stats if self._fetcher is not None else FetchStats()

    def read(self, positions: npt.ArrayLike) -> dict[str, npt.NDArray[np.generic]]:
        """Tensors ``(n, time, band, y, x)`` by handle name, in the stored dtype; fill values where one is missing."""
        at = np.asarray(positions, np.int64)
        out: dict[str, npt.NDArray[np.generic]] = {
            h.name: np.empty((len(at), *h.shape), h.modality.dtype) for h in self.plan.handles
        }
        self.submit(at, out).wait()
        return out

    def submit(self, positions: npt.NDArray[np.int64], out: Buffers) -> BatchRead:
        """Start reading into buffers, each C-contiguous ``(n, time, band, y, x)`` in the stored dtype.

        The buffers belong to the reader until :meth:`BatchRead.wait` returns or raises.
        """
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.options.n_threads, thread_name_prefix="tensorbank-read")
            self._fetcher = Fetcher(Store(self.plan.source.bank, self.plan.storage))
        masks = {}
        for handle in self.plan.handles:
            present = self.plan.addresses[handle.name].key[positions] >= 0
            out[handle.name][~present] = handle.modality.fill_value
            masks[handle.name] = present
        reads = plan_reads(self.plan, positions, self.options)
        futures = [self._pool.submit(self._execute, read, out) for read in reads]
        return BatchRead(futures, masks, sum(r.range.n_bytes for r in reads))

    def close(self) -> None:
        """Stop the threads; the reader can be used again."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _execute(self, read: Read, out: Buffers) -> None:
        data = self._fetch(read.range)
        for piece in read.pieces:
            start = piece.range.start - read.range.start
            handle = self.plan.handles[piece.handle]
            target = out[handle.name][piece.slot]
            try:
                _decode(data[start : start + piece.range.n_bytes], handle, piece.run, target)
            except IntegrityError:
                self._again(piece, handle, target)

    def _again(self, piece: Piece, handle: Handle, target: npt.NDArray[np.generic]) -> None:
        """Read a bad run once more; a second failure is the object's, not the network's."""
        try:
            _decode(self._fetch(piece.range, again=True), handle, piece.run, target)
        except IntegrityError as error:
            r = piece.range
            raise IntegrityError(
                f"{self.plan.source.bank}/{r.key} is damaged in bytes [{r.start}, {r.end}), which hold {handle.name} of "
                f"one sample: {error}; `tensorbank verify` lists all damage"
            ) from error

    def _fetch(self, r: ByteRange, *, again: bool = False) -> memoryview:
        assert self._fetcher is not None, "submit() makes it"
        return self._fetcher.fetch(r.key, r.start, r.end, again=again)


def _decode(data: memoryview, handle: Handle, run: int, target: npt.NDArray[np.generic]) -> None:
    """Verify and decode one run of blocks into a sample's tensor (time, band, y, x)."""
    first, last = handle.runs[run]
    for block, stored in zip(range(first, last), split_blocks(data, last - first), strict=True):
        decode_block(stored, target[handle.slot(block)])
