"""Arithmetic of CRC-32C: the checksum of bytes that follow each other, from the checksums of each. Pure.

A checksum is linear in its bytes, so that of A and B together is the checksum of A, carried over as many zeros as B has bytes,
and that of B, added without carry (Mark Adler, zlib's ``crc32_combine``). What carries over n zeros is a 32 x 32 matrix of bits.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

__all__ = ["joined", "of_pieces"]

POLYNOMIAL = 0x82F63B78
"""Castagnoli's polynomial, its bits reversed."""
Checksums = npt.NDArray[np.uint32]
_BITS: Checksums = np.uint32(1) << np.arange(32, dtype=np.uint32)


def joined(first: int, second: int, n_second_bytes: int) -> int:
    """Return the checksum of some bytes and the ``n_second_bytes`` that follow them, from those of each."""
    return int(_applied(_over_zeros(n_second_bytes), np.array([first], np.uint32))[0]) ^ second


def of_pieces(checksums: Checksums, piece_bytes: int) -> int:
    """Return the checksum of pieces of one size that follow each other, 0 of none.

    Parameters
    ----------
    checksums
        Those of the pieces, (n,) uint32.
    """
    n_bytes = piece_bytes
    while len(checksums) > 1:
        if len(checksums) % 2:  # no bytes before the first piece: their checksum is 0
            checksums = np.concatenate([np.zeros(1, np.uint32), checksums])
        checksums = _applied(_over_zeros(n_bytes), checksums[0::2]) ^ checksums[1::2]
        n_bytes *= 2
    return int(checksums[0]) if len(checksums) else 0


def _over_zeros(n_bytes: int) -> Checksums:
    """Return the matrix that carries a checksum over some bytes of zeros: what becomes of each of its bits, (32,) uint32."""
    over = _BITS
    for power in range(n_bytes.bit_length()):
        if n_bytes >> power & 1:
            over = _applied(_over_power(power), over)
    return over


@cache
def _over_power(power: int) -> Checksums:
    """Return the matrix over ``2**power`` bytes of zeros."""
    if power == -3:  # one bit
        return np.concatenate([np.array([POLYNOMIAL], np.uint32), _BITS[:-1]])
    half = _over_power(power - 1)
    return _applied(half, half)


def _applied(matrix: Checksums, checksums: Checksums) -> Checksums:
    """Return what a matrix makes of checksums."""
    bits = (checksums[:, None] >> np.arange(32, dtype=np.uint32)) & np.uint32(1)
    found: Checksums = np.bitwise_xor.reduce(bits * matrix, axis=1)
    return found
