"""One batch that is being read: each read's bytes to where they belong, and what becomes of bytes that are bad.

Invariants. A block is written to places of the buffers that no other block is written to, so reads are delivered in any order and
at once, without a lock. Nothing is written to the buffers after the batch is finished. A place that no sound block came for
holds the fill value then, and the mask says so; else the batch ends in an error.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt

from tensorbank.errors import ErrorKind, IntegrityError, TensorBankError
from tensorbank.fetch import Fetcher, Wanted
from tensorbank.ranges import ByteRange
from tensorbank.reading.block_places import BlockPlaces, same_bytes
from tensorbank.reading.buffers import LateBuffers
from tensorbank.reading.read_plan import Piece, Read, Reads
from tensorbank.reading.skipped import Skipped, Tally

__all__ = ["BatchInProgress"]

SKIPPED_KINDS = frozenset({ErrorKind.SHORT_READ, ErrorKind.NO_OBJECT})
"""The kinds of errors that are an object's own.
A store that is out of reach or refuses is not skipped object by object."""
N_BAD_TRIES = 10
"""The most reads of blocks whose checksum is wrong, the first included: a network that flips bits is as
passing a fault as one that loses connections, and 1 read in 100 that is bad must not end an epoch."""


@dataclass(slots=True, eq=False)
class BatchInProgress:
    """The samples of one batch, the caller's buffers, the reads that fill them, and what was lost.

    Parameters
    ----------
    places
        Places of blocks in tensors.
    fetcher
        Fetcher that brings the reads; bad ones are asked of it again.
    tally
        Counts of the reader.
    positions
        (n,) int64: the samples; place ``i`` of the buffers is sample ``positions[i]``.
    reads
        Reads of the batch.
    buffers
        Buffers of the batch, with fill values where there is nothing to read.
    masks
        As :attr:`BatchRead.masks`; changed by :meth:`finish` alone.
    """

    places: BlockPlaces
    fetcher: Fetcher
    tally: Tally
    positions: npt.NDArray[np.int64]
    reads: Reads
    buffers: LateBuffers
    masks: dict[str, npt.NDArray[np.bool_]]
    _lost: list[tuple[int, Skipped]] = field(default_factory=list)
    """The slots that are lost, and why. Threads append to it, which needs no lock."""

    @property
    def skips(self) -> bool:
        """True if what is damaged or gone is left out instead of raised."""
        return self.fetcher.options.on_error == "skip"

    def wanted(self, number: int) -> Wanted:
        """Return one of the reads as the fetcher takes it."""
        read = self.reads[number]
        spans = [(piece.start, piece.end) for piece in read.pieces]
        return Wanted(read.range, partial(self._deliver, read), read.n_asked_bytes, spans)

    def recover(self, number: int, error: Exception) -> None:
        """Recover every sound piece of a read that failed, each by a read of its own; what is not sound is lost.

        Raises
        ------
        Exception
            The error is not of the object's own, or another one comes now.
        """
        if getattr(error, "kind", None) not in SKIPPED_KINDS:
            raise error
        read = self.reads[number]
        for pieces in same_bytes(read.pieces):
            self._decode_again(read.range.key, pieces)

    def finish(self) -> None:
        """Make what is lost look like what is missing, and count it. Called once, when every read is over."""
        handles = {h.name: h for h in self.places.addresses.handles}
        out = self.buffers()
        for slot, skipped in {(slot, s.handle): (slot, s) for slot, s in self._lost}.values():
            out[skipped.handle][slot] = handles[skipped.handle].modality.fill_value
            self.masks[skipped.handle][slot] = False
            self.tally.add_skipped(skipped)
        self.buffers.release()

    def _deliver(self, read: Read, data: memoryview) -> None:
        """Decode the bytes of a read into the buffers, in the thread that brought them."""
        started_s = time.perf_counter()
        out = self.buffers()
        for pieces in same_bytes(read.pieces):
            start, end = pieces[0].start - read.range.start, pieces[0].end - read.range.start
            try:
                self.places.decode(data[start:end], pieces, self.positions, out)
            except IntegrityError:
                self._decode_again(read.range.key, pieces)
        self.tally.add_decode_s(time.perf_counter() - started_s)

    def _decode_again(self, key: str, pieces: Sequence[Piece]) -> None:
        """Read a bad run again; what stays bad is the object's fault, not the network's."""
        run = ByteRange(key, pieces[0].start, pieces[0].end)
        try:
            for is_last in [False] * (N_BAD_TRIES - 2) + [True]:
                try:
                    data = self.fetcher.fetch(run, again=True)
                    self.places.decode(data, pieces, self.positions, self.buffers())
                except IntegrityError:
                    if is_last:
                        raise
                else:
                    return
        except TensorBankError as error:
            self._give_up(run, pieces, error)

    def _give_up(self, run: ByteRange, pieces: Sequence[Piece], error: TensorBankError) -> None:
        """Note that the samples of a run are lost, or raise what is wrong with it."""
        addresses = self.places.addresses
        handle = addresses.handles[pieces[0].handle].name
        damaged = isinstance(error, IntegrityError)
        if self.skips and (damaged or error.kind in SKIPPED_KINDS):
            for piece in pieces:
                at = int(self.positions[piece.slot])
                skipped = Skipped(addresses.name_of(at), at, handle, run, str(error))
                self._lost.append((piece.slot, skipped))
            return
        if not damaged:
            raise error
        sample = addresses.name_of(int(self.positions[pieces[0].slot]))
        raise IntegrityError(
            f"{self.fetcher.ranges.url}/{run.key} is damaged in bytes [{run.start}, {run.end}), which hold "
            f"{handle} of {sample}: {error}; `tensorbank verify` lists all damage"
        ) from error
