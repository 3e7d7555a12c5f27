"""The central directory of a zip archive, record by record (section 4.3.12 of PKWARE's APPNOTE.TXT)."""

from __future__ import annotations

import struct
from typing import NamedTuple

from tensorbank.errors import ErrorKind, FormatError

__all__ = ["DEFLATED", "ENCRYPTED", "LOCAL_NAMES", "STORED", "ZipEntry", "entry_at", "read_records"]

CENTRAL = struct.Struct("<4s6H3I5H2I")
CENTRAL_NAMES = struct.Struct("<2H16x3H")
"""The fields of a central record, from byte 8:
flags, method, and the lengths of name, extra field and comment."""
LOCAL_NAMES = struct.Struct("<2H")
"""The lengths of name and extra field in a local header, and number and length of an extra field."""
STORED, DEFLATED = 0, 8
"""The methods of compression."""
ENCRYPTED, UTF8 = 0x1, 0x800
"""The flags of an entry."""


class ZipEntry(NamedTuple):
    """The facts that the central directory holds of an entry."""

    name: str
    flags: int
    method: int
    crc32: int
    stored_bytes: int
    size_bytes: int
    header_offset: int
    raw_name: bytes


def read_records(data: bytes, n_entries: int) -> tuple[dict[str, int], bool]:
    """Return the offset of each name's last record in the central directory, and whether any entry is deflated.

    Records are taken apart only when asked for: of some 35 entries of a member, a reader wants 12.
    """
    records: dict[str, int] = {}
    has_deflated = False
    at = 0
    unpack, header_bytes = CENTRAL_NAMES.unpack_from, CENTRAL.size
    last = len(data) - header_bytes
    for _ in range(n_entries):
        if at > last or data[at : at + 4] != b"PK\x01\x02":
            raise FormatError("The central directory is damaged.", kind=ErrorKind.CORRUPT_MEMBER)
        flags, method, n_name, n_extra, n_comment = unpack(data, at + 8)
        name_end = at + header_bytes + n_name
        name = data[at + header_bytes : name_end]
        if name.isascii():
            records[name.decode("ascii")] = at
        else:
            records[name.decode("utf-8" if flags & UTF8 else "cp437", "replace")] = at
        has_deflated |= method == DEFLATED
        at = name_end + n_extra + n_comment
    if len(data) - at >= header_bytes and data[at : at + 4] == b"PK\x01\x02":
        raise FormatError(
            f"The central directory has more than the {n_entries} entries that it claims.",
            kind=ErrorKind.CORRUPT_MEMBER,
        )
    return records, has_deflated


def entry_at(name: str, data: bytes, at: int, shift: int) -> ZipEntry:
    """Return the entry whose record is at an offset of the central directory.

    ``shift`` is the number of bytes before the archive, which the offsets of entries do not count.

    Raises
    ------
    FormatError
        A zip64 entry lacks its sizes.
    """
    (_, _, _, flags, method, _, _, crc32, stored, size, n_name, n_extra, _, _, _, _, offset) = (
        CENTRAL.unpack_from(data, at)
    )
    name_end = at + CENTRAL.size + n_name
    if stored == 0xFFFFFFFF or size == 0xFFFFFFFF or offset == 0xFFFFFFFF:
        size, stored, offset = _zip64(data[name_end : name_end + n_extra], size, stored, offset)
    return ZipEntry(
        name, flags, method, crc32, stored, size, offset + shift, data[at + CENTRAL.size : name_end]
    )


def _zip64(extra: bytes, *fields: int) -> list[int]:
    """Replace the fields that do not fit 32 bits, in this order: size, stored size, offset of the local
    header.
    """
    at = 0
    while at + 4 <= len(extra):
        number, length = LOCAL_NAMES.unpack_from(extra, at)
        if number == 1:
            values = iter(struct.unpack_from(f"<{min(length, len(extra) - at - 4) // 8}Q", extra, at + 4))
            wide = [next(values, None) if field == 0xFFFFFFFF else field for field in fields]
            if all(field is not None for field in wide):
                return [field for field in wide if field is not None]
            break
        at += 4 + length
    raise FormatError("A zip64 entry lacks its sizes.", kind=ErrorKind.CORRUPT_MEMBER)
