"""The sizes that zstd frames state, read without decoding them. Numpy alone.

A frame begins with a magic number and a descriptor, which says how many bytes follow that give the size of the content
(RFC 8878, section 3.1.1). A decoder on a GPU is given a place of a certain size for each frame and checks little, so that a frame
which says something else must not reach it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tensorbank_gpu.frames import Bytes, Int64, Spans, numbers_at

__all__ = ["UNKNOWN", "content_bytes"]

MAGIC = 0xFD2FB528
UNKNOWN = -1
"""The size of frames that do not state one, and of what is no frame."""
SIZE_FIELD_BYTES = np.array([0, 2, 4, 8])
"""The bytes of the size, by the upper two bits of the descriptor; none is one byte, where a frame is a single segment."""
DICTIONARY_BYTES = np.array([0, 1, 2, 4])
MIN_BYTES = 6
"""The shortest beginning that states a size: magic number, descriptor, one byte of size."""


def content_bytes(stored: Bytes, frames: Spans) -> Int64:
    """Return the sizes of the contents of zstd frames, (n,) int64; :data:`UNKNOWN` where one does not state it. Pure.

    Parameters
    ----------
    stored
        (m,) uint8.
    frames
        Bytes of each frame, which lie in ``stored``; they may be too few, or no frame.
    """
    sizes = np.full(len(frames), UNKNOWN, np.int64)
    long_enough = np.flatnonzero(frames.ends - frames.starts >= MIN_BYTES)
    starts, ends = frames.starts[long_enough], frames.ends[long_enough]
    descriptor = stored[starts + 4].astype(np.int64)
    single = (descriptor & 0x20) != 0
    field = SIZE_FIELD_BYTES[descriptor >> 6]
    field = np.where((field == 0) & single, 1, field)
    at = starts + 5 + ~single + DICTIONARY_BYTES[descriptor & 3]
    sound = (
        (numbers_at(stored, starts) == MAGIC)
        & ((descriptor & 0x08) == 0)
        & (field > 0)
        & (at + field <= ends)
    )
    sizes[long_enough[sound]] = _sizes_at(stored, at[sound], field[sound])
    return sizes


def _sizes_at(stored: Bytes, places: Int64, field_bytes: npt.NDArray[np.integer]) -> Int64:
    """Return little-endian numbers of 1, 2, 4 or 8 bytes each; those of two bytes count from 256."""
    steps = np.arange(8)
    inside = steps < field_bytes[:, None]
    digits = np.where(inside, stored[np.where(inside, places[:, None] + steps, places[:, None])], 0)
    unsigned = (digits.astype(np.uint64) << (8 * steps).astype(np.uint64)).sum(axis=1)
    sizes: Int64 = np.minimum(unsigned, np.uint64(np.iinfo(np.int64).max)).astype(np.int64)
    sizes[field_bytes == 2] += 256
    return sizes
