"""Places of stored blocks in tensors, and the decoding of runs of blocks to where they belong.

A run of stored blocks is decoded once, however many tensors want it: a sample may come several times in a batch, and several
windows may lie in one block. Whole samples are decoded straight into the first tensor that wants them, and copied from there to
the others. Windows are cut out of a block that is decoded beside them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from tensorbank.plans import Addresses, Handle
from tensorbank.reading.buffers import Buffers
from tensorbank.reading.codec import decode_run
from tensorbank.reading.read_plan import Piece

__all__ = ["BlockPlaces", "same_bytes"]

Places = tuple[tuple[int, int], ...]
"""The (time, band) places of the blocks of one run, in stored order; times count from the first date of the run."""
Window = tuple[slice, slice]
Target = tuple[npt.NDArray[np.generic], Window | None]
"""A tensor (time, band, y, x) from the first date of a run on, and the window of a block that it wants; None: all of it."""


class BlockPlaces:
    """The places of the blocks of some handles in the tensors of samples. May be used from many threads at once."""

    def __init__(self, addresses: Addresses) -> None:
        self.addresses = addresses
        self._runs = [handle.runs for handle in addresses.handles]
        self._blocks = [(h.modality.height, h.modality.width) for h in addresses.handles]
        self._places = [_places_of_runs(handle) for handle in addresses.handles]

    def decode(
        self,
        data: memoryview,
        pieces: Sequence[Piece],
        positions: npt.NDArray[np.int64],
        out: Buffers,
    ) -> None:
        """Verify a run of blocks and decode it into the tensors of all pieces that want it.

        Parameters
        ----------
        data
            The run, from its first byte to its last.
        pieces
            Pieces of these bytes, at least one, as :func:`same_bytes` yields them.
        positions
            (n,) int64: the positions of the batch's samples; those that share a run have the same dates.
        out
            Buffers of the batch.

        Raises
        ------
        IntegrityError
            A block is not what was written.
        """
        number, run, slot, _, _, _ = pieces[0]
        handle, addresses = self.addresses.handles[number], self.addresses.by_handle[number]
        places, tensors, corners = self._places[number][run], out[handle.name], addresses.corners
        if addresses.n_times is not None:
            n_times = int(addresses.n_times[positions[slot]])
            places = places[: handle.n_present(self._runs[number][run], n_times)]
        if handle.window is None or corners is None:
            targets: list[Target] = [(tensors[piece.slot, piece.time :], None) for piece in pieces]
        else:
            height, width = handle.window
            targets = []
            for piece in pieces:
                y, x = corners[positions[piece.slot]].tolist()
                window = slice(y, y + height), slice(x, x + width)
                targets.append((tensors[piece.slot, piece.time :], window))
        _decode(data, places, targets, self._blocks[number])


def same_bytes(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Yield the pieces of the same bytes together, of pieces in the order of their bytes:
    windows of one sample, or a sample that comes several times.
    """
    for _, alike in itertools.groupby(pieces, key=lambda p: (p.handle, p.run, p.start)):
        yield list(alike)


def _places_of_runs(handle: Handle) -> tuple[Places, ...]:
    """Return the places of every block, run by run."""
    runs = [[handle.slot(block) for block in range(*run)] for run in handle.runs]
    return tuple(tuple((time - run[0][0], band) for time, band in run) for run in runs)


def _decode(data: memoryview, places: Places, targets: Sequence[Target], block: tuple[int, int]) -> None:
    """Verify and decode one run of blocks, once, for some targets, which are all whole or all windows."""
    (first, window), *others = targets
    if window is None and not others:
        decode_run(data, [first[place] for place in places])
    else:
        decode_run(data, _shared_out(places, targets, block))


def _shared_out(
    places: Places, targets: Sequence[Target], block: tuple[int, int]
) -> Iterator[npt.NDArray[np.generic]]:
    """Yield the array to decode each block into;
    on the next step, copy the last block to all tensors that want it.
    """
    first, window = targets[0]
    scratch = None if window is None else np.empty(block, first.dtype)
    copies = targets[1:] if scratch is None else targets
    for place in places:
        decoded = first[place] if scratch is None else scratch
        yield decoded
        for tensor, cut in copies:
            tensor[place] = decoded if cut is None else decoded[cut]
