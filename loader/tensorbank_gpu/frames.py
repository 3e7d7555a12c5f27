"""Frames: the Blosc buffers of many stored blocks, found in their runs, verified, and read into arrays. Numpy alone.

A stored block is a Blosc 1 buffer and its CRC-32C (FORMAT.md, section 2.4). Blocks of a run lie side by side, and each one's
header says where the next begins. The walk goes from block to block, but over all runs at once. What headers mean, and which of
them are refused, is that of c-blosc 1.21 (https://github.com/Blosc/c-blosc/blob/main/README_CHUNK_FORMAT.rst and ``blosc.c``):
nothing here believes a length before it has been compared with the bytes that are there.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from tensorbank.errors import ErrorKind, FormatError, IntegrityError
from tensorbank.reading import crc32c

__all__ = [
    "Bytes",
    "Codec",
    "Frames",
    "Int64",
    "Spans",
    "check_sums",
    "numbers_at",
    "read_frames",
    "walk_runs",
]

Bytes = npt.NDArray[np.uint8]
Int64 = npt.NDArray[np.int64]

CRC_BYTES = 4
HEADER_BYTES = 16
BLOSC_VERSION = 2
STREAM_VERSION = 1
"""The version of the format of streams, of LZ4 as of zstd."""
BYTE_SHUFFLED, COPIED, BIT_SHUFFLED, FUTURE, WHOLE = 0x01, 0x02, 0x04, 0x08, 0x10
"""The bits of a header's flags; the three bits above them are the codec."""


class Codec(IntEnum):
    """The codec of a stream, by the number that Blosc has for it."""

    LZ4 = 1
    ZSTD = 4


@dataclass(frozen=True, slots=True, eq=False)
class Spans:
    """The bytes ``[starts[i], ends[i])`` of n things in one buffer, (n,) int64 each."""

    starts: Int64
    ends: Int64

    def __len__(self) -> int:
        return len(self.starts)


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """The headers of n Blosc buffers, all of which have been checked against the bytes that are there.

    Parameters
    ----------
    spans
        Bytes of each buffer, header included and checksum not.
    codecs
        (n,) int64: :class:`Codec` of its streams; of copied buffers, which have none, any number.
    flags
        (n,) int64: flags of the header.
    typesizes, n_bytes, block_bytes
        (n,) int64, all positive: size of an element, bytes after decoding, and bytes of Blosc's own blocks, into which the
        buffer is cut; the last may be shorter.
    """

    spans: Spans
    codecs: Int64
    flags: Int64
    typesizes: Int64
    n_bytes: Int64
    block_bytes: Int64

    def __len__(self) -> int:
        return len(self.spans)

    @property
    def copied(self) -> npt.NDArray[np.bool_]:
        """The buffers whose bytes are stored as they are, (n,) bool."""
        copied: npt.NDArray[np.bool_] = (self.flags & COPIED) != 0
        return copied

    def only(self, chosen: npt.NDArray[Any]) -> Frames:
        """Return some of the frames, by a mask or by numbers."""
        return Frames(
            Spans(self.spans.starts[chosen], self.spans.ends[chosen]),
            self.codecs[chosen],
            self.flags[chosen],
            self.typesizes[chosen],
            self.n_bytes[chosen],
            self.block_bytes[chosen],
        )


def numbers_at(stored: Bytes, places: Int64) -> Int64:
    """Return the little-endian u32 at each place, in the shape of ``places``. All four bytes of each must be there."""
    four = stored[places[..., None] + np.arange(4)]
    return np.ascontiguousarray(four).view("<u4")[..., 0].astype(np.int64)


def walk_runs(stored: Bytes, runs: Spans, n_blocks: Int64) -> Spans:
    """Return the Blosc buffers of some runs of blocks, in the order of the runs. Pure.

    Parameters
    ----------
    stored
        (m,) uint8.
    runs
        Bytes of each run, which lie in ``stored``.
    n_blocks
        (n,) int64: the number of blocks of each run.

    Raises
    ------
    IntegrityError
        A run does not hold as many blocks as it should, or they do not end where it does.
    """
    first = np.cumsum(n_blocks) - n_blocks
    starts = np.zeros(int(n_blocks.sum()), np.int64)
    ends = np.zeros_like(starts)
    at = runs.starts.copy()
    for number in range(int(n_blocks.max(initial=0))):
        going = np.flatnonzero(n_blocks > number)
        here, limit = at[going], runs.ends[going]
        _refuse(here + HEADER_BYTES > limit, first[going] + number, "starts after the end of its run")
        n_stored = numbers_at(stored, here + 12)
        _refuse(n_stored < HEADER_BYTES, first[going] + number, "is not a block: it is shorter than a header")
        end = here + n_stored
        _refuse(end + CRC_BYTES > limit, first[going] + number, "ends after the end of its run")
        starts[first[going] + number], ends[first[going] + number] = here, end
        at[going] = end + CRC_BYTES
    _refuse(at != runs.ends, first, "begins a run whose blocks do not end where it does")
    return Spans(starts, ends)


def check_sums(stored: Bytes, frames: Spans) -> None:
    """Compare the CRC-32C of each frame with the one stored behind it.

    Raises
    ------
    IntegrityError
        They differ.
    """
    if not len(frames):
        return
    view = stored.data
    bounds = zip(frames.starts.tolist(), frames.ends.tolist(), strict=True)
    found = np.array([crc32c(view[start:end]) for start, end in bounds], np.int64)
    wrong = found != numbers_at(stored, frames.ends)
    _refuse(wrong, np.arange(len(frames)), "has another checksum than the one stored behind it")


def read_frames(stored: Bytes, spans: Spans, n_bytes: Int64) -> Frames:
    """Read and check the headers of Blosc buffers. Pure.

    Parameters
    ----------
    stored
        (m,) uint8.
    spans
        Bytes of each buffer, at least 16, which lie in ``stored``.
    n_bytes
        (n,) int64: the bytes that each must decode to, positive.

    Raises
    ------
    IntegrityError
        A header is none, or says something else than the bytes that are there.
    FormatError
        A header is sound, and its codec is neither LZ4 nor zstd; the kind is ``codec``.
    """
    numbers = np.arange(len(spans))
    heads = stored[spans.starts[:, None] + np.arange(HEADER_BYTES)].astype(np.int64)
    flags, typesizes = heads[:, 2], heads[:, 3]
    said_bytes, block_bytes, n_stored = numbers_at(stored, spans.starts[:, None] + np.array([4, 8, 12])).T
    _refuse(heads[:, 0] != BLOSC_VERSION, numbers, "is of another version of Blosc than 2")
    _refuse((flags & FUTURE) != 0, numbers, "has a flag that Blosc 1 does not know")
    _refuse(n_stored != spans.ends - spans.starts, numbers, "claims another length than it has")
    _refuse(said_bytes != n_bytes, numbers, "decodes to another number of bytes than a block has")
    _refuse(typesizes == 0, numbers, "has elements of no bytes")
    _refuse((block_bytes == 0) | (block_bytes > n_bytes), numbers, "is cut into blocks of an impossible size")
    copied = (flags & COPIED) != 0
    _refuse(copied & (n_bytes + HEADER_BYTES != n_stored), numbers, "is a copy of another length than it has")
    codecs = flags >> 5
    known = np.isin(codecs, (Codec.LZ4, Codec.ZSTD))
    _refuse(
        ~copied & known & (heads[:, 1] != STREAM_VERSION), numbers, "has streams of another version than 1"
    )
    if not (known | copied).all():
        number = int(np.argmin(known | copied))
        raise FormatError(
            f"block {number} is encoded by Blosc's codec number {codecs[number]}; only LZ4 and zstd are decoded on a device, "
            "the loader on the CPU reads all",
            kind=ErrorKind.CODEC,
        )
    return Frames(spans, codecs, flags, typesizes, n_bytes, block_bytes)


def _refuse(wrong: npt.NDArray[np.bool_], numbers: Int64, reason: str) -> None:
    """Raise IntegrityError about the first block of which ``wrong`` is true."""
    if wrong.any():
        raise IntegrityError(f"block {numbers[int(np.argmax(wrong))]} {reason}")
