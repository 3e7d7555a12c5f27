"""A range of a Blosc buffer, without decoding the rest.

A Blosc 1 buffer is a 16-byte header, the start of each block, and the blocks, each compressed for itself
(https://github.com/Blosc/c-blosc/blob/main/README_CHUNK_FORMAT.rst). The blocks that a range touches, behind
a header of their own, are again a Blosc buffer. This is what ``blosc_getitem`` is for, which numcodecs no
longer exports.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt
from numcodecs import blosc

from tensorbank.errors import IntegrityError

__all__ = ["decode_range"]

HEADER = struct.Struct("<4B3I")
IS_COPY = 0x2
"""The flag of a buffer whose data follow the header uncompressed."""


def decode_range(buffer: bytes | memoryview, start: int, end: int) -> npt.NDArray[np.uint8]:
    """Return the decoded bytes ``[start, end)`` of a Blosc buffer, as (end - start,) uint8.

    Raises
    ------
    IntegrityError
        The buffer is damaged or shorter than the range.
    """
    view = memoryview(buffer).cast("B")
    if len(view) < HEADER.size:
        raise IntegrityError(f"A Blosc buffer has {len(view)} bytes.")
    version, inner_version, flags, typesize, n_bytes, block_bytes, stored_bytes = HEADER.unpack_from(view)
    if not 0 <= start <= end <= n_bytes or stored_bytes > len(view) or (n_bytes and not block_bytes):
        raise IntegrityError(
            f"A Blosc buffer of {n_bytes} bytes ({len(view)} of {stored_bytes} stored) lacks byte {end}."
        )
    if start == end:
        return np.empty(0, np.uint8)
    if flags & IS_COPY:
        return np.frombuffer(view[HEADER.size + start : HEADER.size + end], np.uint8)
    n_blocks = -(-n_bytes // block_bytes)
    first, last = start // block_bytes, -(-end // block_bytes)
    if first == n_blocks - 1 and first and n_bytes % block_bytes:
        # Blosc refuses a buffer that is smaller than its block, so the short last block takes the one before it along.
        first -= 1
    if HEADER.size + 4 * n_blocks > stored_bytes:
        raise IntegrityError("A Blosc buffer ends before its blocks.")
    starts = np.frombuffer(view, "<u4", n_blocks, HEADER.size).astype(np.int64)
    # Threads store blocks in the order in which they finish: one ends where the next in the buffer starts.
    edges = np.append(np.sort(starts), stored_bytes)
    ends = edges[np.searchsorted(edges, starts, side="right").clip(max=n_blocks)]
    lengths = (ends - starts)[first:last]
    if starts.min() < HEADER.size + 4 * n_blocks or starts.max() >= stored_bytes:
        raise IntegrityError("A Blosc buffer has blocks outside of itself.")
    table_end = HEADER.size + 4 * (last - first)
    new_starts = table_end + np.cumsum(lengths) - lengths
    decoded_bytes = min(last * block_bytes, n_bytes) - first * block_bytes
    header = HEADER.pack(
        version, inner_version, flags, typesize, decoded_bytes, block_bytes, table_end + int(lengths.sum())
    )
    blocks = [view[starts[i] : ends[i]] for i in range(first, last)]
    decoded = np.empty(decoded_bytes, np.uint8)
    try:
        blosc.decompress(b"".join((header, new_starts.astype("<u4").tobytes(), *blocks)), decoded)
    except RuntimeError as error:
        raise IntegrityError(f"Blosc blocks {first} to {last} cannot be decoded: {error}.") from error
    return decoded[start - first * block_bytes : end - first * block_bytes]
