"""One batch of compressed streams: which bytes decode to which, what is only copied, and which shuffle is undone afterwards.

A Blosc buffer is cut into *pieces* of its block size, the last of which may be shorter. The shuffle works on a piece. A piece is
one stream, or, where codec and header ask for it, one for each byte of an element; each stream has its stored size in front.
A stream as long as what it stands for is stored as it is (c-blosc 1.21, ``blosc_d``).

Decoded pieces go to a scratch buffer in which those that are alike lie side by side, whatever their order in the batch: then
one operation undoes the shuffle of all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tensorbank.errors import ErrorKind, FormatError, IntegrityError
from tensorbank_gpu.frames import (
    BIT_SHUFFLED,
    BYTE_SHUFFLED,
    HEADER_BYTES,
    WHOLE,
    Bytes,
    Codec,
    Frames,
    Int64,
    Spans,
    numbers_at,
)
from tensorbank_gpu.shuffles import Shuffle
from tensorbank_gpu.zstd_frames import UNKNOWN, content_bytes

__all__ = ["PieceGroup", "StreamBatch", "Streams", "plan_streams"]

MAX_SPLITS = 16
MIN_SPLIT_ELEMENTS = 128
"""Blosc makes one stream for each byte of an element only of elements up to so many bytes, and of pieces of so many of them."""
SIZE_BYTES = 4


@dataclass(frozen=True, slots=True, eq=False)
class Streams:
    """The places of n streams, (n,) int64 each.

    Stream ``i`` is ``source_bytes[i]`` bytes at ``source_offsets[i]`` of the stored bytes, and decodes to ``dest_bytes[i]`` bytes
    at ``dest_offsets[i]`` of the scratch buffer.
    """

    source_offsets: Int64
    source_bytes: Int64
    dest_offsets: Int64
    dest_bytes: Int64

    def __len__(self) -> int:
        return len(self.source_offsets)

    def only(self, chosen: npt.NDArray[np.bool_]) -> Streams:
        """Return some of the streams."""
        return Streams(
            self.source_offsets[chosen],
            self.source_bytes[chosen],
            self.dest_offsets[chosen],
            self.dest_bytes[chosen],
        )


@dataclass(frozen=True, slots=True, eq=False)
class PieceGroup:
    """The pieces of one region that are alike, side by side in the scratch buffer from ``start`` on.

    Parameters
    ----------
    region
        Number of the region.
    shuffle, typesize
        Shuffle to undo in each piece, and the size of its elements in bytes.
    n_bytes, offset
        Bytes of each piece, and where in its block it begins.
    start
        Offset of the first piece in the scratch buffer.
    rows
        (n,) int64, ascending: the blocks of the region that the pieces belong to.
    """

    region: int
    shuffle: Shuffle
    typesize: int
    n_bytes: int
    offset: int
    start: int
    rows: Int64


@dataclass(frozen=True, slots=True, eq=False)
class StreamBatch:
    """A batch of blocks as a decoder of streams takes it.

    A *region* is a table of blocks of one decoded size, one a row; tensors are made of regions.

    Parameters
    ----------
    n_bytes
        Size of the scratch buffer: that of all blocks decoded. Streams and copies fill it exactly.
    lz4, zstd
        LZ4 block streams, and zstd frames.
    copies
        Bytes that are stored as they are.
    groups
        Pieces in the scratch buffer, and where they belong.
    """

    n_bytes: int
    lz4: Streams
    zstd: Streams
    copies: Streams
    groups: tuple[PieceGroup, ...]

    @property
    def n_streams(self) -> int:
        """The number of streams to decode."""
        return len(self.lz4) + len(self.zstd)


@dataclass(frozen=True, slots=True, eq=False)
class _Pieces:
    """The pieces of some frames, (n,) int64 each: the frame of each, its number in the frame, bytes, and kind of shuffle."""

    frames: Int64
    numbers: Int64
    n_bytes: Int64
    shuffles: Int64


def plan_streams(stored: Bytes, frames: Frames, regions: Int64, rows: Int64) -> StreamBatch:
    """Return what decodes some frames. Pure; nothing is decoded, and no byte outside of a frame is looked at.

    Parameters
    ----------
    stored
        (m,) uint8.
    frames
        The n frames.
    regions, rows
        (n,) int64: the region that each frame's block belongs to, and its row there; all frames of a region decode to as many
        bytes, and have rows of their own.

    Raises
    ------
    IntegrityError
        A stream lies outside of its frame, or states another size than its place has.
    FormatError
        A zstd frame does not state its size, without which it is not decoded on a device; the kind is ``codec``.
    """
    pieces = _pieces_of(frames)
    of = pieces.frames
    keys = np.stack(
        [
            regions[of],
            pieces.shuffles,
            frames.typesizes[of],
            pieces.n_bytes,
            pieces.numbers * frames.block_bytes[of],
        ]
    )
    order = np.lexsort((rows[of], *keys[::-1]))
    sizes = pieces.n_bytes[order]
    offsets = np.empty(len(order), np.int64)
    offsets[order] = np.cumsum(sizes) - sizes
    streams, codecs = _streams_of(stored, frames, pieces, offsets)
    zstd = streams.only(codecs == Codec.ZSTD)
    _check_sizes(stored, zstd)
    return StreamBatch(
        int(sizes.sum()),
        streams.only(codecs == Codec.LZ4),
        zstd,
        streams.only(codecs == 0),
        _groups_of(keys[:, order], rows[of][order], offsets[order]),
    )


def _pieces_of(frames: Frames) -> _Pieces:
    """Return the pieces of frames, in order. A copied frame is one piece, and so is one of a single block."""
    block_bytes = np.where(frames.copied, frames.n_bytes, frames.block_bytes)
    n_pieces = -(-frames.n_bytes // block_bytes)
    room = (frames.spans.ends - frames.spans.starts - HEADER_BYTES) // SIZE_BYTES
    _refuse(
        ~frames.copied & (n_pieces > room),
        np.arange(len(frames)),
        "is cut into more pieces than it has bytes",
    )
    of = np.repeat(np.arange(len(frames)), n_pieces)
    numbers = np.arange(len(of)) - np.repeat(np.cumsum(n_pieces) - n_pieces, n_pieces)
    n_bytes = np.minimum(block_bytes[of], frames.n_bytes[of] - numbers * block_bytes[of])
    return _Pieces(of, numbers, n_bytes, _shuffles(frames.only(of), n_bytes))


def _shuffles(frames: Frames, n_bytes: Int64) -> Int64:
    """Return the :class:`Shuffle` of each piece; frames are those of the pieces.

    Bits are shuffled only of whole eights of elements: Blosc 1 leaves a piece as it is that has another number of them.
    """
    elements = n_bytes // frames.typesizes
    by_byte = ((frames.flags & BYTE_SHUFFLED) != 0) & (frames.typesizes > 1) & (elements > 1)
    by_bit = ((frames.flags & BIT_SHUFFLED) != 0) & (elements > 0) & (elements % 8 == 0)
    first = (frames.flags & BYTE_SHUFFLED != 0) & (frames.typesizes > 1)
    found = np.select([by_byte, ~first & by_bit], [int(Shuffle.BYTES), int(Shuffle.BITS)], int(Shuffle.NONE))
    return np.where(frames.copied, int(Shuffle.NONE), found)


def _streams_of(stored: Bytes, frames: Frames, pieces: _Pieces, offsets: Int64) -> tuple[Streams, Int64]:
    """Return the streams of all pieces, and the codec of each, 0 for those that are copied.

    Parameters
    ----------
    offsets
        (p,) int64: offset of each piece in the scratch buffer.
    """
    whole = frames.copied[pieces.frames]
    at = np.flatnonzero(whole)
    of = pieces.frames[at]
    found = [
        Streams(frames.spans.starts[of] + HEADER_BYTES, pieces.n_bytes[at], offsets[at], pieces.n_bytes[at])
    ]
    codecs = [np.zeros(len(at), np.int64)]
    at = np.flatnonzero(~whole)
    if len(at):
        of = pieces.frames[at]
        starts, ends = frames.spans.starts[of], frames.spans.ends[of]
        place = starts + numbers_at(stored, starts + HEADER_BYTES + SIZE_BYTES * pieces.numbers[at])
        n_splits = _n_splits(frames.only(of), pieces.n_bytes[at])
        each = pieces.n_bytes[at] // n_splits
        _refuse(each * n_splits != pieces.n_bytes[at], of, "is split where elements are not whole")
        for number in range(int(n_splits.max())):
            going = np.flatnonzero(n_splits > number)
            here, end, frame, size = place[going], ends[going], of[going], each[going]
            _refuse(here + SIZE_BYTES > end, frame, "has a stream that starts after its end")
            source = here + SIZE_BYTES
            n_stored = numbers_at(stored, here)
            _refuse(n_stored > end - source, frame, "has a stream that ends after its end")
            _refuse(n_stored == 0, frame, "has a stream of no bytes")
            found.append(Streams(source, n_stored, offsets[at][going] + number * size, size))
            codecs.append(np.where(n_stored == size, 0, frames.codecs[frame]))
            place[going] = source + n_stored
    return _joined(found), np.concatenate(codecs)


def _n_splits(frames: Frames, n_bytes: Int64) -> Int64:
    """Return the number of streams of each piece; frames are those of the pieces. A last, shorter piece is one stream."""
    t = frames.typesizes
    splits = (
        ((frames.flags & WHOLE) == 0)
        & (t <= MAX_SPLITS)
        & (n_bytes // t >= MIN_SPLIT_ELEMENTS)
        & (n_bytes == frames.block_bytes)
    )
    return np.where(splits, t, 1)


def _check_sizes(stored: Bytes, zstd: Streams) -> None:
    """Raise an error about zstd frames that do not state the size of their place."""
    said = content_bytes(stored, Spans(zstd.source_offsets, zstd.source_offsets + zstd.source_bytes))
    if (said == UNKNOWN).any():
        raise FormatError(
            "a zstd stream does not state its size, and is not decoded on a device for that; the loader on the CPU reads it",
            kind=ErrorKind.CODEC,
        )
    _refuse(
        said != zstd.dest_bytes,
        np.arange(len(zstd)),
        "of zstd states another size than its place has",
        "stream",
    )


def _groups_of(keys: Int64, rows: Int64, offsets: Int64) -> tuple[PieceGroup, ...]:
    """Return the groups of pieces in the order of their offsets.

    Parameters
    ----------
    keys
        (5, p) int64, sorted: region, shuffle, typesize, bytes, offset in the block.
    rows, offsets
        (p,) int64: row, and offset in the scratch buffer.
    """
    if not len(rows):
        return ()
    begins = np.append(0, np.flatnonzero((keys[:, 1:] != keys[:, :-1]).any(axis=0)) + 1)
    ends = np.append(begins[1:], len(rows))
    groups = []
    for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
        region, shuffle, typesize, n_bytes, offset = keys[:, begin].tolist()
        start = int(offsets[begin])
        groups.append(PieceGroup(region, Shuffle(shuffle), typesize, n_bytes, offset, start, rows[begin:end]))
    return tuple(groups)


def _joined(parts: list[Streams]) -> Streams:
    return Streams(
        np.concatenate([p.source_offsets for p in parts]),
        np.concatenate([p.source_bytes for p in parts]),
        np.concatenate([p.dest_offsets for p in parts]),
        np.concatenate([p.dest_bytes for p in parts]),
    )


def _refuse(wrong: npt.NDArray[np.bool_], numbers: Int64, reason: str, noun: str = "block") -> None:
    """Raise IntegrityError about the first thing of which ``wrong`` is true."""
    if wrong.any():
        raise IntegrityError(f"{noun} {numbers[int(np.argmax(wrong))]} {reason}")
