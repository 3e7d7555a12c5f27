"""Find the requests that bring some samples of a plan, and the place of each sample's blocks in them.
Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

import numpy as np
import numpy.typing as npt

from tensorbank.fetch import FetchOptions
from tensorbank.plans import Handle, Plan
from tensorbank.ranges import ByteRange, coalesce

__all__ = ["Piece", "Read", "Reads", "plan_reads"]

Int64 = npt.NDArray[np.int64]

OBJECT_BYTES = np.int64(1 << 45)
"""The distance in bytes of objects laid side by side on one axis:
more than a store allows an object, so no read spans two."""


class Piece(NamedTuple):
    """One run of blocks of one sample inside a read. A tuple, since an epoch makes millions of them.

    ``handle`` and ``run`` are numbers in the plan, ``slot`` is the sample's place in the batch, ``time`` that of the run's first
    date among the dates of the sample that are delivered, ``[start, end)`` its bytes in the object.
    """

    handle: int
    run: int
    slot: int
    time: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Read:
    """One request, and the pieces that it brings, by start. ``n_asked_bytes`` is what they cover: the rest are holes."""

    range: ByteRange
    pieces: tuple[Piece, ...]
    n_asked_bytes: int


class Reads(Sequence[Read]):
    """A sequence of reads as arrays; each is made when it is asked for, since a window holds thousands.

    Parameters
    ----------
    keys
        Keys of objects.
    objects, starts, ends, n_asked_bytes
        (n,) int64: number of the object, bytes ``[start, end)``, and what the pieces cover of them.
    edges, pieces
        (n + 1,) int64, and (m, 6) int64, the fields of :class:`Piece`: those of read ``i`` are rows
        ``[edges[i], edges[i + 1])``.
    """

    def __init__(
        self,
        keys: tuple[str, ...],
        objects: Int64,
        starts: Int64,
        ends: Int64,
        n_asked_bytes: Int64,
        edges: Int64,
        pieces: Int64,
    ) -> None:
        self._keys = keys
        self._objects, self._starts, self._ends = objects, starts, ends
        self._n_asked_bytes, self._edges, self._pieces = n_asked_bytes, edges, pieces

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, number: int) -> Read: ...
    @overload
    def __getitem__(self, number: slice) -> list[Read]: ...
    def __getitem__(self, number: int | slice) -> Read | list[Read]:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        if not -len(self) <= number < len(self):
            raise IndexError(number)
        number %= len(self)
        first, last = self._edges[number : number + 2].tolist()
        return Read(
            ByteRange(self._keys[self._objects[number]], int(self._starts[number]), int(self._ends[number])),
            tuple(map(Piece._make, self._pieces[first:last].tolist())),
            int(self._n_asked_bytes[number]),
        )

    @property
    def n_bytes(self) -> int:
        """The number of bytes that all reads bring."""
        return int((self._ends - self._starts).sum())


def plan_reads(plan: Plan, positions: Int64, options: FetchOptions, dates: Int64 | None = None) -> Reads:
    """Return the reads that bring the samples at some positions of a plan.

    Samples that lie side by side share reads, within the limits of ``options``. A position may occur twice and handles
    may share blocks; what is shared is read once.

    Parameters
    ----------
    positions
        (n,) int64 in ``[0, len(plan))``; place ``i`` of the batch is sample ``positions[i]``.
    dates
        (n, k) int64: which dates of each sample are wanted, in which order, of the handles that are read by date. None: all.
    """
    objects: dict[str, int] = {}
    columns = [_pieces_of(plan, number, positions, dates, objects) for number in range(len(plan.handles))]
    handle, run, slot, time, start, end = (np.concatenate(c) for c in zip(*columns, strict=True))
    if not len(start):
        none = np.zeros(0, np.int64)
        return Reads((), none, none, none, none, np.zeros(1, np.int64), none.reshape(0, 6))
    order = np.lexsort((end, start))
    handle, run, slot, time, start, end = (c[order] for c in (handle, run, slot, time, start, end))
    covered = np.maximum.accumulate(end)
    opens = np.concatenate([[True], start[1:] >= covered[:-1]])
    starts, ends = start[opens], covered[np.append(np.flatnonzero(opens)[1:] - 1, len(end) - 1)]
    first, last, owner = coalesce(
        starts,
        ends,
        max_gap_bytes=options.max_gap_bytes,
        max_amplification=options.max_amplification,
        max_read_bytes=options.max_read_bytes,
    )
    asked = np.bincount(owner, weights=ends - starts, minlength=len(first)).astype(np.int64)
    base = first // OBJECT_BYTES * OBJECT_BYTES
    edges = np.searchsorted(start, np.append(first, np.iinfo(np.int64).max))
    local = np.repeat(base, np.diff(edges))
    pieces = np.stack([handle, run, slot, time, start - local, end - local], axis=1)
    return Reads(tuple(objects), first // OBJECT_BYTES, first - base, last - base, asked, edges, pieces)


def _pieces_of(
    plan: Plan, number: int, positions: Int64, dates: Int64 | None, objects: dict[str, int]
) -> Sequence[Int64]:
    """Handle, run, slot, time, start and end of every piece of one handle, bytes on the common axis; names its objects."""
    handle = plan.handles[number]
    a = plan.addresses[handle.name]
    keys = a.key[positions]
    slots = np.flatnonzero(keys >= 0)
    codes, place = np.unique(keys[slots], return_inverse=True)
    numbers = [objects.setdefault(a.keys[code], len(objects)) for code in codes.tolist()]
    begin = np.array(numbers, np.int64)[place] * OBJECT_BYTES
    rows = positions[slots, None]
    run, time = _wanted_runs(handle, None if dates is None else dates[slots])
    start = begin[:, None] + a.starts[rows, run]
    shape, length = start.shape, a.lengths[rows, run]
    pieces = (
        np.full(shape, number, np.int64),
        np.broadcast_to(run, shape),
        np.broadcast_to(slots[:, None], shape),
        np.broadcast_to(time, shape),
        start,
        start + length,
    )
    if a.n_times is None:
        return [column.reshape(-1) for column in pieces]
    return [column[length > 0] for column in pieces]  # of dates that a sample does not have


def _wanted_runs(handle: Handle, dates: Int64 | None) -> tuple[Int64, Int64]:
    """Return the runs to read of each sample, (m or 1, r),
    and where their first dates stand among the delivered ones, (1, r)."""
    if dates is None or not handle.by_date:
        first = [start // len(handle.modality.bands) for start, _ in handle.runs]
        return np.arange(len(first))[None], np.array(first, np.int64)[None]
    n = len(handle.runs) // handle.n_times
    runs = (dates[:, :, None] * n + np.arange(n)).reshape(len(dates), dates.shape[1] * n)
    return runs, np.repeat(np.arange(dates.shape[1]), n)[None]
