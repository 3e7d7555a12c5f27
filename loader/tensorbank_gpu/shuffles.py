"""Blosc's shuffles, undone by operations of torch, on any device.

A byte shuffle writes the first byte of every element, then the second of every one, and so on. A bit shuffle does so with bits,
lowest first: 8 elements give one byte of each of their bits. Both leave bytes behind the last whole element where they are.
The layout is that of c-blosc 1.21 (``shuffle-generic.h``) and of bitshuffle (https://github.com/kiyo-masui/bitshuffle).
"""

from __future__ import annotations

from enum import IntEnum

import torch

__all__ = ["Shuffle", "unshuffled"]

SWAPS = ((7, 0x00AA00AA00AA00AA), (14, 0x0000CCCC0000CCCC), (28, 0x00000000F0F0F0F0))
"""The steps that transpose 8 x 8 bits in a word of 64: bits of the mask change places with those so many places above (Hacker's
Delight, section 7-3). A shift of signed words brings ones from above, none of which is in a mask."""


class Shuffle(IntEnum):
    """The shuffle of a piece's elements before it was compressed."""

    NONE = 0
    BYTES = 1
    BITS = 2


def unshuffled(pieces: torch.Tensor, shuffle: Shuffle, typesize: int) -> torch.Tensor:
    """Return pieces as they were before they were shuffled; the same tensor where there is nothing to undo.

    Parameters
    ----------
    pieces
        (n, m) uint8, contiguous: n pieces of m bytes. It is read only.
    typesize
        Size of an element in bytes, positive. Bits are shuffled of whole eights of elements: then ``m // typesize`` is a
        multiple of 8.

    Returns
    -------
    (n, m) uint8 on the same device.
    """
    m = pieces.shape[1]
    elements = m // typesize
    whole = elements * typesize
    if shuffle is Shuffle.NONE or whole == 0:
        return pieces
    undo = _bytes_undone if shuffle is Shuffle.BYTES else _bits_undone
    if whole == m:
        return undo(pieces, typesize)
    out = torch.empty_like(pieces)
    out[:, :whole] = undo(pieces[:, :whole].contiguous(), typesize)
    out[:, whole:] = pieces[:, whole:]
    return out


def _bytes_undone(pieces: torch.Tensor, typesize: int) -> torch.Tensor:
    n, m = pieces.shape
    return pieces.view(n, typesize, m // typesize).transpose(1, 2).reshape(n, m)


def _bits_undone(pieces: torch.Tensor, typesize: int) -> torch.Tensor:
    """Gather the eight bits that make a byte of eight elements to a word, and turn its rows to columns."""
    n, m = pieces.shape
    eights = m // typesize // 8
    turned = torch.empty((n, typesize, eights, 8), dtype=torch.uint8, device=pieces.device)
    words = turned.copy_(pieces.view(n, typesize, 8, eights).transpose(2, 3)).view(torch.int64)
    for places, mask in SWAPS:
        swapped = (words >> places).bitwise_xor_(words).bitwise_and_(mask)
        words.bitwise_xor_(swapped).bitwise_xor_(swapped.bitwise_left_shift_(places))
    return turned.view(n, typesize, eights * 8).transpose(1, 2).reshape(n, m)
