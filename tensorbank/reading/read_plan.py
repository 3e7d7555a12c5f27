"""The reads that bring some samples, and the place of each sample's blocks in them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

import numpy as np
import numpy.typing as npt

from tensorbank.fetch import FetchOptions
from tensorbank.plans import Addresses, Handle
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


PIECE = np.dtype([(name, np.int64) for name in Piece._fields])
"""The dtype of pieces in arrays: a field of it is a column, a row of it a :class:`Piece`."""
Pieces = npt.NDArray[np.void]
"""An array (m,) of :data:`PIECE`."""


@dataclass(frozen=True, slots=True)
class Read:
    """One request, and the pieces that it brings, by start. ``n_asked_bytes`` is what they cover: the rest are holes."""

    range: ByteRange
    pieces: tuple[Piece, ...]
    n_asked_bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class Reads(Sequence[Read]):
    """A sequence of n reads as arrays; each is made when it is asked for, since a window holds thousands.

    Parameters
    ----------
    keys
        Keys of objects.
    objects, starts, ends, n_asked_bytes
        (n,) int64: number of the object, bytes ``[start, end)``, and what the pieces cover of them.
    edges, pieces
        (n + 1,) int64, and (m,) of :data:`PIECE`: the pieces of read ``i`` are rows ``[edges[i], edges[i + 1])``.
    """

    keys: tuple[str, ...]
    objects: Int64
    starts: Int64
    ends: Int64
    n_asked_bytes: Int64
    edges: Int64
    pieces: Pieces

    def __len__(self) -> int:
        return len(self.starts)

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
        first, last = self.edges[number : number + 2].tolist()
        return Read(
            ByteRange(self.keys[self.objects[number]], int(self.starts[number]), int(self.ends[number])),
            tuple(map(Piece._make, self.pieces[first:last].tolist())),
            int(self.n_asked_bytes[number]),
        )

    @property
    def n_bytes(self) -> int:
        """The number of bytes that all reads bring."""
        return int((self.ends - self.starts).sum())


def plan_reads(
    addresses: Addresses,
    positions: Int64,
    options: FetchOptions,
    dates: Int64 | None = None,
    wanted: Mapping[str, npt.NDArray[np.bool_]] | None = None,
) -> Reads:
    """Return the reads that bring some samples.

    Samples that lie side by side share reads, within the limits of ``options``. A position may occur twice and handles
    may share blocks; what is shared is read once.

    Objects are laid side by side on one axis, :data:`OBJECT_BYTES` apart, so that the pieces of all of them are sorted and joined
    at once. Pieces are sorted by start, then end. A piece that begins where all before it have ended opens a new *cover*; covers
    do not overlap, and :func:`tensorbank.ranges.coalesce` joins them to reads::

        pieces   |--a--|      |--b--|
                    |--c--|            |d|
        covers   |--------|   |-----|  |-|
        reads    |--------|   |----------|     where the hole before d is small

    Parameters
    ----------
    positions
        (n,) int64 in ``[0, addresses.n_samples)``; place ``i`` of the batch is sample ``positions[i]``.
    dates
        (n, k) int64: which dates of each sample are wanted, in which order, of the handles that are read by date. None: all.
    wanted
        (n,) bool by handle name: the samples of which a handle is read. Handles that are not named are read of all.
    """
    wanted = wanted or {}
    objects: dict[str, int] = {}
    found = [
        _pieces_of(addresses, number, positions, dates, wanted.get(handle.name), objects)
        for number, handle in enumerate(addresses.handles)
    ]
    pieces = np.concatenate(found) if found else np.zeros(0, PIECE)
    if not len(pieces):
        none = np.zeros(0, np.int64)
        return Reads((), none, none, none, none, np.zeros(1, np.int64), pieces)
    pieces = pieces[np.lexsort((pieces["end"], pieces["start"]))]
    start, end = pieces["start"], pieces["end"]
    reached = np.maximum.accumulate(end)
    opens = np.concatenate([[True], start[1:] >= reached[:-1]])
    starts, ends = start[opens], reached[np.append(np.flatnonzero(opens)[1:] - 1, len(end) - 1)]
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
    of_object = np.repeat(base, np.diff(edges))
    start -= of_object
    end -= of_object
    return Reads(tuple(objects), first // OBJECT_BYTES, first - base, last - base, asked, edges, pieces)


def _pieces_of(
    addresses: Addresses,
    number: int,
    positions: Int64,
    dates: Int64 | None,
    wanted: npt.NDArray[np.bool_] | None,
    objects: dict[str, int],
) -> Pieces:
    """Return every piece of one handle, bytes on the common axis; adds its objects to ``objects``, which numbers them."""
    handle, a = addresses.handles[number], addresses.by_handle[number]
    shards = a.shard_of[positions]
    slots = np.flatnonzero(shards >= 0 if wanted is None else (shards >= 0) & wanted)
    codes, place = np.unique(shards[slots], return_inverse=True)
    numbers = [objects.setdefault(a.shard_keys[code], len(objects)) for code in codes.tolist()]
    begin = np.array(numbers, np.int64)[place] * OBJECT_BYTES
    rows = positions[slots, None]
    run, time = _wanted_runs(handle, None if dates is None else dates[slots])
    start, length = begin[:, None] + a.starts[rows, run], a.lengths[rows, run]
    pieces = np.empty(start.shape, PIECE)
    pieces["handle"], pieces["run"], pieces["slot"], pieces["time"] = number, run, slots[:, None], time
    pieces["start"], pieces["end"] = start, start + length
    if a.n_times is None:
        return pieces.reshape(-1)
    return pieces[length > 0]  # those of dates that a sample does not have are empty


def _wanted_runs(handle: Handle, dates: Int64 | None) -> tuple[Int64, Int64]:
    """Return the runs to read of each sample, (m or 1, r),
    and where their first dates stand among the delivered ones, (1, r).
    """
    if dates is None or not handle.by_date:
        first = [start // len(handle.modality.bands) for start, _ in handle.runs]
        return np.arange(len(first))[None], np.array(first, np.int64)[None]
    n = len(handle.runs) // handle.n_times
    runs = (dates[:, :, None] * n + np.arange(n)).reshape(len(dates), dates.shape[1] * n)
    return runs, np.repeat(np.arange(dates.shape[1]), n)[None]
