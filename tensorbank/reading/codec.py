"""The encoding of blocks: Blosc, and a crc32c of the compressed bytes behind it.

This is Zarr v3's inner chain ``bytes, blosc, crc32c``. A Blosc buffer carries its own compressed length
(header bytes 12-16, https://github.com/Blosc/c-blosc/blob/main/README_CHUNK_FORMAT.rst), so the blocks of a contiguous run are
found by walking it, and a plan needs no length for each block. A damaged length leads to other bytes, whose checksum is wrong.
numcodecs releases the GIL; crc32c keeps it, and is too short to matter. The former is imported with the first block, since it
looks through all that is installed, and who only plans needs none of it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import crc32c as crc
import numpy as np
import numpy.typing as npt

from tensorbank.errors import ErrorKind, IntegrityError, InvalidInputError, nearest
from tensorbank.schema import Modality

__all__ = [
    "DECODE_S_PER_GB",
    "DEFAULT_PROFILE",
    "PROFILES",
    "BlockCodec",
    "codec_for",
    "crc32c",
    "decode_block",
    "decode_run",
    "forbid_blosc_threads",
]

CRC_BYTES = 4
HEADER_BYTES = 16
_LENGTHS = struct.Struct("<III")  # nbytes, blocksize, cbytes at header offset 4
_CRC = struct.Struct("<I")
_SHUFFLES = {"shuffle": 1, "bitshuffle": 2, "noshuffle": 0}
"""The numbers that Blosc has for its filters."""
_MAX_TYPESIZE = 32
_ROWS_LOOKED_AT = 8

DEFAULT_PROFILE = "balanced"
PROFILES: tuple[str, ...] = ("balanced", "small", "hot", "raw")
"""The codec profiles. ``balanced``: decodes twice as fast as ``small``, at a few percent more bytes. ``small``: the fewest bytes,
for archives that are read over slow networks. ``hot``: quickest to decode, slow to write. ``raw``: not compressed, for
incompressible pixels, or a network faster than one core decodes; checksums stay. What they take and cost is measured by
``benchmarks/bench_codec.py``."""

DECODE_S_PER_GB: Mapping[str, float] = {"balanced": 0.5, "small": 1.15, "hot": 0.31, "raw": 0.11}
"""The CPU seconds in which one core decodes a GB of TerraMesh's tensors, by profile; their ratios matter."""


@dataclass(frozen=True, slots=True)
class BlockCodec:
    """The encoding of one array's blocks. Readers need none of it: Blosc buffers describe themselves.

    ``blocksize_bytes`` is the whole block: Blosc's automatic choice halves the decode rate. ``doubled`` encodes blocks whose
    pixels stand in equal pairs along x: bands of 20 m and 60 m that were resampled to 10 m by the nearest neighbour. Their second
    pixels cost almost nothing where ``typesize`` is that of a pair.
    """

    cname: str
    clevel: int
    shuffle: str
    typesize: int
    blocksize_bytes: int
    doubled: BlockCodec | None = None

    def configuration(self) -> Mapping[str, object]:
        """Return the configuration of Zarr's ``blosc`` codec, which is that of blocks that are not doubled."""
        return {
            "cname": self.cname,
            "clevel": self.clevel,
            "shuffle": self.shuffle,
            "typesize": self.typesize,
            "blocksize": self.blocksize_bytes,
        }

    def encode(self, block: npt.NDArray[np.generic]) -> bytes:
        """Encode one block (y, x), C-contiguous and little-endian, as stored bytes with checksum."""
        codec = self.doubled if self.doubled is not None and _is_doubled(block) else self
        data: bytes = _encoder(codec).encode(block)
        return data + _CRC.pack(crc32c(data))


@cache
def _blosc() -> Any:
    """Return numcodecs' module of Blosc."""
    from numcodecs import blosc

    return blosc


@lru_cache(maxsize=64)
def _encoder(codec: BlockCodec) -> Any:
    return _blosc().Blosc(
        codec.cname,
        codec.clevel,
        _SHUFFLES[codec.shuffle],
        blocksize=codec.blocksize_bytes,
        typesize=codec.typesize,
    )


def _is_doubled(block: npt.NDArray[np.generic]) -> bool:
    """Return whether some rows of a block (y, x) are pairs of equal pixels. Only sizes hang on it, so some are enough."""
    height, width = block.shape
    rows = block[:: max(height // _ROWS_LOOKED_AT, 1)]
    return width % 2 == 0 and bool(np.array_equal(rows[:, ::2], rows[:, 1::2]))


def codec_for(profile: str, modality: Modality) -> BlockCodec:
    """Return the codec of a modality under a named profile."""
    size, block_bytes = np.dtype(modality.dtype).itemsize, modality.block_bytes
    if profile == "balanced":
        return _balanced(modality)
    if profile == "small":  # float16 mantissas and 8-bit classes have no slowly varying high bits
        wide_integer = np.dtype(modality.dtype).kind in "iu" and size > 1
        return BlockCodec("zstd", 1, "bitshuffle" if wide_integer else "shuffle", size, block_bytes)
    if profile == "hot":
        pair = None
        if size > 1:
            typesize = _pair_typesize(modality.width * size, 2 * size)
            pair = BlockCodec("lz4hc", 5, "shuffle", typesize, block_bytes)
        return BlockCodec("lz4hc", 5, "shuffle", size, block_bytes, doubled=pair)
    if profile == "raw":  # level 0 is Blosc's header and a copy, so readers and layout need no second case
        return BlockCodec("lz4", 0, "noshuffle", size, block_bytes)
    raise InvalidInputError(
        f"no codec profile {profile!r}.{nearest(profile, PROFILES)}", kind=ErrorKind.UNKNOWN_PROFILE
    )


def _balanced(modality: Modality) -> BlockCodec:
    """Return the codec of a modality under ``balanced``.

    LZ4 of bit planes is nearly as small as zstd, and three times as quick. Not so for doubled pixels, half of which only zstd
    finds, and for classes, whose runs are worth a search since they are few bytes.
    """
    size, block_bytes = np.dtype(modality.dtype).itemsize, modality.block_bytes
    if modality.categorical:
        return BlockCodec("lz4hc", 3, "shuffle", size, block_bytes)
    pair = BlockCodec("zstd", 1, "shuffle", 2 * size, block_bytes) if size > 1 else None
    return BlockCodec("lz4", 9, "bitshuffle", size, block_bytes, doubled=pair)


def _pair_typesize(row_bytes: int, pair_bytes: int) -> int:
    """Return the largest typesize that holds whole pairs and divides a row, so that equal pixels come to lie near."""
    fitting = range(pair_bytes, _MAX_TYPESIZE + 1, pair_bytes)
    return max((n for n in fitting if row_bytes % n == 0), default=pair_bytes)


def crc32c(data: bytes | memoryview) -> int:
    """Return the CRC-32C (Castagnoli) of contiguous bytes.

    Keeps the GIL: at 20 GB/s a block takes less than getting the GIL back among busy threads.
    """
    return crc.crc32c(data, 0, 0)


def decode_run(data: memoryview, outs: Iterable[npt.NDArray[np.generic]]) -> None:
    """Verify and decode stored blocks that lie side by side, checksums included, one into each of ``outs``.

    The next of ``outs`` is asked for when the one before has been filled. May be called concurrently with distinct ``outs``.

    Parameters
    ----------
    data
        The run, from its first byte to its last.
    outs
        C-contiguous and native little-endian, in stored order.

    Raises
    ------
    IntegrityError
        A checksum or a decoded length is not what was written, or the blocks do not end where the bytes do.
    """
    decompress = _blosc().decompress
    position = 0
    for number, out in enumerate(outs):
        if position + HEADER_BYTES > len(data):
            raise IntegrityError(f"block {number} starts after the end of the {len(data)} bytes read")
        n_bytes, _, n_stored = _LENGTHS.unpack_from(data, position + 4)
        end = position + n_stored
        if n_stored < HEADER_BYTES:  # zeros, as in a hole of a file, would pass every check as an empty block
            raise IntegrityError(f"block {number} is not a block: it claims {n_stored} bytes")
        if end + CRC_BYTES > len(data):
            raise IntegrityError(f"block {number} ends after the end of the {len(data)} bytes read")
        body = data[position:end]
        (stored,) = _CRC.unpack_from(data, end)
        if crc32c(body) != stored:
            raise IntegrityError(f"checksum of block {number} is {crc32c(body):08x}, stored is {stored:08x}")
        if n_bytes != out.nbytes:
            raise IntegrityError(f"block {number} decodes to {n_bytes} bytes, {out.nbytes} are expected")
        try:
            decompress(body, out)
        except RuntimeError as error:
            raise IntegrityError(f"block {number} does not decode: {error}") from error
        position = end + CRC_BYTES
    if position != len(data):
        raise IntegrityError(f"the blocks take {position} of the {len(data)} bytes read")


def decode_block(block: memoryview, out: npt.NDArray[np.generic]) -> None:
    """Verify one stored block and decode it into ``out``; see :func:`decode_run`."""
    decode_run(block, (out,))


def forbid_blosc_threads() -> None:
    """Have Blosc use the calling thread alone in this process, also where it is the main thread.

    For processes of which there are as many as processors. A setting of the whole process: not for one that belongs to a caller.
    """
    blosc = _blosc()
    blosc.use_threads = False
    # Its first use makes a lock. Made now, it is among those that a process gives back when it is ended while it works.
    blosc.decompress(blosc.compress(bytes(16), b"lz4", 1))
