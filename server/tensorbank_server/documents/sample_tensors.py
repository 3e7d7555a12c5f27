"""Tensors of one sample, by the address in its row: read, verified, decoded."""

# Not the core's SampleReader, which schedules reads of many samples over threads: making its arrays of addresses from a row
# takes as many lines as reading the row's few runs does here, and a local bank's file would be read in another thread than
# the one that waits for it. What must not differ, the fetcher's patience and the verification in `decode_run`, is the core's
# in both.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from tensorbank.errors import ErrorKind, IntegrityError, InvalidInputError, NotFoundError
from tensorbank.fetch import Fetcher
from tensorbank.plans import Handle
from tensorbank.ranges import ByteRange
from tensorbank.reading import decode_block, decode_run
from tensorbank.schema import Modality

__all__ = ["BlockAddress", "Cut", "byte_ranges", "count_times", "read_block", "read_tensor"]


class BlockAddress(TypedDict):
    """The address of a sample's modality, as its row in the index has it.

    ``key`` is that of the shard, ``offset`` the first byte in it, ``block_bytes`` the lengths of the blocks in stored order.
    """

    key: str
    offset: int
    block_bytes: Sequence[int]


@dataclass(frozen=True, slots=True)
class Cut:
    """The wanted part of a modality: bands by number, in the order asked for, and a half-open window of pixels.

    ``window`` is ``(y0, y1, x0, x1)``.
    """

    modality: Modality
    bands: tuple[int, ...]
    window: tuple[int, int, int, int]

    @classmethod
    def of(
        cls, modality: Modality, bands: str | Sequence[str] | None = None, window: str | None = None
    ) -> Cut:
        """Parse the text of a cut, ``B04,B08`` and ``y0,x0,height,width``; what is not given is taken whole.

        Raises
        ------
        NotFoundError
            No such band.
        InvalidInputError
            A band twice, or a window that is none of the sample.
        """
        chosen = tuple(range(len(modality.bands)))
        if bands is not None:
            names = bands.split(",") if isinstance(bands, str) else bands
            chosen = tuple(modality.band_index(name.strip()) for name in names)
            if not chosen or len(set(chosen)) != len(chosen):
                raise InvalidInputError("bands must differ from each other, and one is needed")
        if window is None:
            return cls(modality, chosen, (0, modality.height, 0, modality.width))
        try:
            y0, x0, height, width = (int(part) for part in window.split(","))
        except ValueError:
            raise InvalidInputError("a window is four whole numbers: y0,x0,height,width") from None
        inside = 0 <= y0 < y0 + height <= modality.height and 0 <= x0 < x0 + width <= modality.width
        if not inside:
            raise InvalidInputError(f"the window must lie within {modality.height} x {modality.width} pixels")
        return cls(modality, chosen, (y0, y0 + height, x0, x0 + width))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape (time, band, y, x)."""
        y0, y1, x0, x1 = self.window
        return (self.modality.n_times, len(self.bands), y1 - y0, x1 - x0)

    @property
    def n_bytes(self) -> int:
        """The decoded size in bytes of the blocks that the cut is made from."""
        return self.modality.n_times * len(self.bands) * self.modality.block_bytes

    @property
    def band_names(self) -> tuple[str, ...]:
        return tuple(self.modality.band_names[b] for b in self.bands)


def byte_ranges(ref: BlockAddress, runs: Sequence[tuple[int, int]]) -> list[ByteRange]:
    """Return the byte ranges of runs of blocks of a sample; blocks of dates that it lacks take no bytes."""
    edges = [0, *accumulate(ref["block_bytes"])]
    return [ByteRange(ref["key"], ref["offset"] + edges[a], ref["offset"] + edges[b]) for a, b in runs]


def count_times(ref: BlockAddress, modality: Modality) -> int:
    """Return the number of dates that a sample has."""
    return sum(n_bytes > 0 for n_bytes in ref["block_bytes"][:: len(modality.bands)])


def read_tensor(fetcher: Fetcher, ref: BlockAddress, cut: Cut) -> npt.NDArray[np.generic]:
    """Read a tensor (time, band, y, x) in the stored dtype, C-contiguous.

    Dates that the sample does not have are filled with the modality's fill value.

    Raises
    ------
    IntegrityError, NotFoundError, StorageError
        The blocks are damaged, twice read; the object is gone; the store does not answer.
    """
    m = cut.modality
    handle = Handle(m.name, m, cut.bands)
    n_times = count_times(ref, m)
    out = np.empty(handle.shape, m.dtype)
    out[n_times:] = m.fill_value
    runs = [(start, start + handle.n_present((start, end), n_times)) for start, end in handle.runs]
    for wanted, run in zip(byte_ranges(ref, runs), runs, strict=True):
        if not wanted.n_bytes:
            continue
        try:
            _decode(_bytes_of(fetcher, wanted), handle, run, out)
        except IntegrityError:
            _decode(fetcher.fetch(wanted, n_asked_bytes=wanted.n_bytes, again=True), handle, run, out)
    y0, y1, x0, x1 = cut.window
    return np.ascontiguousarray(out[:, :, y0:y1, x0:x1])


def _bytes_of(fetcher: Fetcher, wanted: ByteRange) -> memoryview:
    """Read a range; from a local bank in this thread, since a disk needs no second request."""
    if fetcher.ranges.is_local:
        return fetcher.ranges.get_range(wanted.key, wanted.start, wanted.end)
    return fetcher.fetch(wanted, n_asked_bytes=wanted.n_bytes)


def _decode(data: memoryview, handle: Handle, run: tuple[int, int], out: npt.NDArray[np.generic]) -> None:
    decode_run(data, [out[handle.slot(block)] for block in range(*run)])


def read_block(fetcher: Fetcher, ref: BlockAddress, modality: Modality, block: int) -> bytes:
    """Read one block as it is stored, and verify it.

    Raises
    ------
    IntegrityError, NotFoundError, StorageError
        The same as of :func:`read_tensor`; NotFoundError, too, if the sample does not have the block.
    """
    (wanted,) = byte_ranges(ref, [(block, block + 1)])
    if not wanted.n_bytes:
        raise NotFoundError("no such chunk", kind=ErrorKind.NO_CHUNK)
    checked = np.empty((modality.height, modality.width), modality.dtype)
    data = _bytes_of(fetcher, wanted)
    try:
        decode_block(data, checked)
    except IntegrityError:
        data = fetcher.fetch(wanted, n_asked_bytes=wanted.n_bytes, again=True)
        decode_block(data, checked)
    return bytes(data)
