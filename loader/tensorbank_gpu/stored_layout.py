"""The layout of a batch of stored blocks: where each lies in one buffer, and where its pixels belong. Pure; no torch.

A run of blocks is read and decoded once, however many samples of the batch want it: a sample may come several times, and several
windows may lie in one block. The blocks of one handle are the rows of its region, in the order of their first place in the
tensor; where each place has one block of its own, the region is the tensor.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tensorbank.plans import Addresses, Handle
from tensorbank.reading import Reads
from tensorbank_gpu.frames import Int64, Spans

__all__ = ["Placement", "StoredLayout", "StoredRuns", "lay_out"]


@dataclass(frozen=True, slots=True, eq=False)
class StoredRuns:
    """The n runs of stored blocks that a batch takes, each once, in the order of the reads that bring them.

    Parameters
    ----------
    spans
        Bytes of each run in the batch's buffer; they fill it without a hole.
    reads, offsets
        (n,) int64: the read that brings a run, and where in the read it begins.
    handles, n_blocks
        (n,) int64: number of its handle, and the number of its blocks, at least one.
    """

    spans: Spans
    reads: Int64
    offsets: Int64
    handles: Int64
    n_blocks: Int64

    @property
    def n_bytes(self) -> int:
        """The size of the buffer."""
        return int(self.spans.ends[-1]) if len(self.spans) else 0


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """The places in the tensor of a handle, (n, time, band, y, x), that have a block; all others hold the fill value.

    Parameters
    ----------
    shape
        Shape of the tensor.
    n_blocks
        The number of blocks of the region.
    slots
        (m,) int64, ascending: places with a block, counted over (n, time, band) in C order.
    blocks
        (m,) int64: the row of the region that each place takes.
    corners
        (m, 2) int64: y0 and x0 of the window that is cut out of the block; None: the whole block.
    """

    shape: tuple[int, ...]
    n_blocks: int
    slots: Int64
    blocks: Int64
    corners: Int64 | None

    @property
    def is_region(self) -> bool:
        """True if the region is the tensor as it is."""
        n_slots = int(np.prod(self.shape[:3]))
        return self.corners is None and len(self.slots) == n_slots == self.n_blocks


@dataclass(frozen=True, slots=True, eq=False)
class StoredLayout:
    """The buffer of a batch, and what becomes of its blocks.

    Parameters
    ----------
    runs
        Runs of blocks in the buffer.
    regions, rows
        (b,) int64: handle of each block of the buffer, in the order of the runs, and its row in the region of the handle.
    placements
        Places in tensors, by number of the handle.
    """

    runs: StoredRuns
    regions: Int64
    rows: Int64
    placements: tuple[Placement, ...]


def lay_out(
    addresses: Addresses, positions: Int64, reads: Reads, shapes: tuple[tuple[int, ...], ...]
) -> StoredLayout:
    """Return where the blocks of some samples lie and belong.

    Parameters
    ----------
    positions
        (n,) int64: the samples; place ``i`` of the tensors is sample ``positions[i]``.
    reads
        Reads that bring them, as :func:`tensorbank.reading.plan_reads` plans them.
    shapes
        Shape (n, time, band, y, x) of the tensor of each handle.
    """
    pieces = reads.pieces
    read = np.repeat(np.arange(len(reads)), np.diff(reads.edges))
    n_blocks = _n_blocks(addresses, positions, pieces)
    wanted = np.flatnonzero(n_blocks > 0)
    pieces, read, n_blocks = pieces[wanted], read[wanted], n_blocks[wanted]
    # Handles that share blocks have regions of their own, and so runs of their own.
    key = np.stack([read, pieces["start"], pieces["handle"], pieces["run"]])
    _, first, run_of = np.unique(key, axis=1, return_index=True, return_inverse=True)
    run_of = run_of.reshape(-1)
    sizes = (pieces["end"] - pieces["start"])[first]
    ends = np.cumsum(sizes)
    runs = StoredRuns(
        Spans(ends - sizes, ends),
        read[first],
        pieces["start"][first] - reads.starts[read[first]],
        pieces["handle"][first].astype(np.int64),
        n_blocks[first],
    )
    first_block = np.cumsum(runs.n_blocks) - runs.n_blocks
    regions = np.repeat(runs.handles, runs.n_blocks)
    rows = np.zeros(len(regions), np.int64)
    placements = []
    for number, shape in enumerate(shapes):
        mine = np.flatnonzero(pieces["handle"] == number)
        placement = _placement(
            addresses, number, positions, pieces[mine], first_block[run_of[mine]], n_blocks[mine], shape
        )
        used, began, row = np.unique(placement.blocks, return_index=True, return_inverse=True)
        rank = np.empty(len(used), np.int64)
        rank[np.argsort(began)] = np.arange(len(used))
        rows[used] = rank
        placements.append(
            Placement(shape, len(used), placement.slots, rank[row.reshape(-1)], placement.corners)
        )
    return StoredLayout(runs, regions, rows, tuple(placements))


def _n_blocks(addresses: Addresses, positions: Int64, pieces: npt.NDArray[np.void]) -> Int64:
    """Return the number of blocks of each piece, (m,) int64; fewer than the run's where a sample has fewer dates."""
    found = np.zeros(len(pieces), np.int64)
    for number, (handle, a) in enumerate(zip(addresses.handles, addresses.by_handle, strict=True)):
        mine = np.flatnonzero(pieces["handle"] == number)
        starts, ends = np.array(handle.runs, np.int64).T[:, pieces["run"][mine]]
        found[mine] = ends - starts
        if a.n_times is not None:
            n_times = a.n_times[positions[pieces["slot"][mine]]].astype(np.int64)
            present = np.maximum(n_times * len(handle.modality.bands) - starts, 0)
            found[mine] = np.minimum(found[mine], present)
    return found


def _placement(
    addresses: Addresses,
    number: int,
    positions: Int64,
    pieces: npt.NDArray[np.void],
    first_blocks: Int64,
    n_blocks: Int64,
    shape: tuple[int, ...],
) -> Placement:
    """Return the places of one handle; ``blocks`` are still numbers of the buffer's blocks."""
    handle, corners = addresses.handles[number], addresses.by_handle[number].corners
    of = np.repeat(np.arange(len(pieces)), n_blocks)
    step = np.arange(len(of)) - np.repeat(np.cumsum(n_blocks) - n_blocks, n_blocks)
    time, band = _places_of_runs(handle)[pieces["run"][of], step].T if len(of) else np.zeros((2, 0), np.int64)
    slot = pieces["slot"][of]
    slots = (slot * shape[1] + pieces["time"][of] + time) * shape[2] + band
    order = np.argsort(slots, kind="stable")
    cut = None
    if handle.window is not None and corners is not None:
        cut = corners[positions[slot[order]]].astype(np.int64)
    return Placement(shape, 0, slots[order], (first_blocks[of] + step)[order], cut)


def _places_of_runs(handle: Handle) -> Int64:
    """Return the (date, band) in the tensor of each block of each run, dates from the run's first on; (runs, blocks, 2) int64,
    0 behind the blocks of shorter runs.
    """
    runs = handle.runs
    places = np.zeros((len(runs), max((end - start for start, end in runs), default=0), 2), np.int64)
    for number, (start, end) in enumerate(runs):
        found = np.array([handle.slot(block) for block in range(start, end)], np.int64)
        found[:, 0] -= found[0, 0]
        places[number, : end - start] = found
    return places
