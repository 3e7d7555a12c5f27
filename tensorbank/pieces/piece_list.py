"""Checksums of the pieces of an index file, which its footer holds: how they are written, found and proved.

The pieces begin with the file, are of one size and end before the footer. What follows the last of them is the tail: Bloom
filters and the footer, and so the list itself. A reader that has the tail joins the checksums of the pieces and that of the tail:
that is the checksum of the whole file, which its name says and the commit with it. So a list and a footer that pass are those
that were written, and then each piece can be read alone.
"""

from __future__ import annotations

import base64
import re
import struct
from dataclasses import dataclass, field

import crc32c as crc
import numpy as np
import numpy.typing as npt

from tensorbank.pieces.joined_checksums import joined, of_pieces

__all__ = ["PIECES", "PIECE_BYTES", "PieceList"]

PIECES = "tensorbank.pieces"
"""The key of the list in the metadata of a footer."""
PIECE_BYTES = 16 << 10
"""The size of a piece: what is read in vain at each end of a column chunk, half of it on average,
and a piece takes 5.3 bytes of the list."""
MAX_PIECE_BYTES = 64 << 20
_TEXT = re.compile(rb"tensorbank\.pieces\x18[\x80-\xff]{0,4}[\x00-\x7f](\d{1,8}) ([A-Za-z0-9+/]*={0,2})")
"""The list where Thrift's compact protocol puts it: a key, the header of a text, its length, and the text."""
_END = struct.Struct("<I4s")
MAGIC = b"PAR1"


@dataclass(frozen=True, slots=True)
class PieceList:
    """The checksums of the first pieces of a file.

    Parameters
    ----------
    piece_bytes
        Bytes of each piece.
    checksums
        Their CRC-32C, (n,) uint32.
    """

    piece_bytes: int
    checksums: npt.NDArray[np.uint32] = field(repr=False)

    @property
    def n_bytes(self) -> int:
        """The bytes of all pieces: where the tail begins."""
        return len(self.checksums) * self.piece_bytes

    @property
    def text(self) -> str:
        """The list as a footer holds it: bytes of a piece, a space, and the checksums as u32 in base64."""
        data = self.checksums.astype("<u4").tobytes()
        return f"{self.piece_bytes} {base64.b64encode(data).decode('ascii')}"

    def is_of(self, tail: bytes | memoryview, checksum: int) -> bool:
        """Tell whether pieces that have these checksums, and a tail, are a file that has a checksum."""
        of_all = of_pieces(self.checksums, self.piece_bytes)
        return joined(of_all, int(crc.crc32c(tail)), len(tail)) == checksum

    @classmethod
    def find(cls, end: bytes | memoryview, n_bytes: int) -> PieceList | None:
        """Return the list in a footer that nothing is known of yet, None if there is none, or not all of the footer is here.

        It is looked for as text: what reads footers may be broken by one that is damaged.

        Parameters
        ----------
        end
            The last bytes of the file.
        n_bytes
            Bytes of the file.
        """
        footer_bytes = footer_size(end)
        if footer_bytes is None or footer_bytes > len(end):
            return None
        every = list(_TEXT.finditer(end, len(end) - footer_bytes))
        if not every:
            return None
        found = every[-1]
        piece_bytes = int(found[1])
        try:
            data = base64.b64decode(found[2], validate=True)
        except ValueError:
            return None
        n = len(data) // 4
        if (
            len(data) % 4
            or not 0 < piece_bytes <= MAX_PIECE_BYTES
            or n * piece_bytes > n_bytes - footer_bytes
        ):
            return None
        return cls(piece_bytes, np.frombuffer(data, "<u4").astype(np.uint32))


def footer_size(end: bytes | memoryview) -> int | None:
    """Return the bytes of a footer with its length and magic number, None if these are not at the end."""
    if len(end) < _END.size:
        return None
    n_bytes, magic = _END.unpack(end[-_END.size :])
    return n_bytes + _END.size if magic == MAGIC else None
