"""Entries of a zip archive in memory or behind range reads.

Sizes come from the central directory, the start of the data from the local header (their extra fields differ
in streamed zip64); of entries with the same name the last counts, as zarr's ``ZipStore`` appends on
overwrite. Nothing but the directory is read until an entry is asked for.

Python's ``zipfile`` reads a local header and a directory record by record, each a request behind range reads, trusts the sizes
that an archive claims, and copies what could be a slice of the member in memory.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, KeysView

from tensorbank.errors import ErrorKind, FormatError, IntegrityError
from tensorbank_indexer.containers.zip_directory import (
    DEFLATED,
    ENCRYPTED,
    LOCAL_NAMES,
    STORED,
    ZipEntry,
    entry_at,
    read_records,
)

__all__ = ["ZipArchive"]

END = struct.Struct("<4s4H2IH")
END64 = struct.Struct("<4sQ2H2I4Q")
LOCATOR64 = struct.Struct("<4sIQI")
LOCAL_BYTES = 30
MAX_COMMENT_BYTES = 0xFFFF
FIRST_TAIL_BYTES = 64 << 10
"""The bytes of the first read of an archive behind range reads:
holds the directory of some thousand entries."""
MAX_DIRECTORY_BYTES = 64 << 20
"""The most bytes of a central directory: some 600,000 entries; a member has 40."""
EXTRA_SLACK_BYTES = 64
"""The bytes read beyond an entry's name for the extra field of its local header,
whose length is not known yet."""

Bytes = bytes | memoryview
ReadRange = Callable[[int, int], Bytes]


class ZipArchive:
    """A zip archive. ``has_deflated`` tells whether any entry is compressed.

    Parameters
    ----------
    read
        Returns bytes ``[start, end)`` of the archive; slices of a buffer or requests.
    size_bytes
        Size of the archive.

    Raises
    ------
    FormatError
        There is no end record (kind ``truncated-archive``), or the directory is damaged (``corrupt-member``).
    """

    def __init__(self, read: ReadRange, size_bytes: int, *, in_memory: bool = False) -> None:
        self._read = read
        self._in_memory = in_memory
        self.size_bytes = size_bytes
        tail_start = max(0, size_bytes - (FIRST_TAIL_BYTES if not in_memory else size_bytes))
        tail = memoryview(read(tail_start, size_bytes))
        directory, n_entries, self._shift = self._find_directory(tail, tail_start)
        self._directory = bytes(directory)
        self._records, self.has_deflated = read_records(self._directory, n_entries)

    @property
    def names(self) -> KeysView[str]:
        """The names of all entries, each once."""
        return self._records.keys()

    def entry(self, name: str) -> ZipEntry:
        """Return what the directory says of the last entry of this name.

        Raises
        ------
        KeyError
            There is no such entry.
        FormatError
            It lacks its zip64 sizes.
        """
        return entry_at(name, self._directory, self._records[name], self._shift)

    @classmethod
    def of(cls, data: Bytes) -> ZipArchive:
        """Return the archive that lies in a buffer; entries are slices of it."""
        view = memoryview(data)
        return cls(lambda start, end: view[start:end], len(view), in_memory=True)

    def __contains__(self, name: object) -> bool:
        return name in self._records

    def read(self, name: str, *, max_bytes: int | None = None, verify: bool = True) -> memoryview:
        """Return the content of an entry, inflated if need be; with ``verify`` its CRC-32 is checked.

        Raises
        ------
        KeyError
            There is no such entry.
        FormatError
            It is encrypted, compressed in another way, its header is damaged, or it is larger than ``max_bytes``
            (kind ``over-limit``).
        IntegrityError
            The CRC-32 or the size is wrong.
        """
        entry = self.entry(name)
        if entry.flags & ENCRYPTED:
            raise FormatError(
                f"{name} is encrypted; only plain entries are read.", kind=ErrorKind.ENCRYPTED_ENTRY
            )
        if entry.method not in (STORED, DEFLATED):
            raise FormatError(
                f"{name} is compressed with method {entry.method}; stored and deflated entries are read.",
                kind=ErrorKind.ZIP_METHOD,
            )
        # Deflate makes short data somewhat longer.
        if max_bytes is not None and (
            entry.size_bytes > max_bytes or entry.stored_bytes > max_bytes + max_bytes // 8 + 1024
        ):
            raise FormatError(
                f"{name} has {entry.size_bytes} bytes, {entry.stored_bytes} stored; at most {max_bytes} make sense.",
                kind=ErrorKind.OVER_LIMIT,
            )
        data = self._stored(entry)
        if entry.method == DEFLATED:
            data = _inflate(entry, data)
        if len(data) != entry.size_bytes:
            raise IntegrityError(f"{name} has {len(data)} bytes instead of {entry.size_bytes}.")
        if verify and zlib.crc32(data) != entry.crc32:
            raise IntegrityError(f"The CRC-32 of {name} does not match.")
        return data

    def _stored(self, entry: ZipEntry) -> memoryview:
        """Return the bytes of an entry as they lie in the archive, in one read if the local extra field is short."""
        start = entry.header_offset
        if not 0 <= start <= self.size_bytes:
            raise FormatError(f"{entry.name} lies outside of the archive.", kind=ErrorKind.CORRUPT_MEMBER)
        slack = 0 if self._in_memory else EXTRA_SLACK_BYTES
        end = min(self.size_bytes, start + LOCAL_BYTES + len(entry.raw_name) + slack + entry.stored_bytes)
        data = memoryview(self._read(start, end))
        if len(data) < LOCAL_BYTES or bytes(data[:4]) != b"PK\x03\x04":
            raise FormatError(f"The local header of {entry.name} is damaged.", kind=ErrorKind.CORRUPT_MEMBER)
        n_name, n_extra = LOCAL_NAMES.unpack_from(data, 26)
        if bytes(data[LOCAL_BYTES : LOCAL_BYTES + n_name]) != entry.raw_name:
            raise FormatError(
                f"The local header of {entry.name} is that of another entry.", kind=ErrorKind.CORRUPT_MEMBER
            )
        first = LOCAL_BYTES + n_name + n_extra
        last = first + entry.stored_bytes
        if start + last > self.size_bytes:
            raise FormatError(
                f"{entry.name} reaches beyond the end of the archive.", kind=ErrorKind.TRUNCATED_ARCHIVE
            )
        if last > len(data):
            return memoryview(self._read(start + first, start + last))
        return data[first:last]

    def _find_directory(self, tail: memoryview, tail_start: int) -> tuple[memoryview, int, int]:
        """Return the central directory, its number of entries, and how far all offsets are shifted by bytes before the
        archive.
        """
        at = _find_end(tail)
        if at < 0:
            if tail_start > 0 and len(tail) < MAX_COMMENT_BYTES + END.size:
                wider = max(0, self.size_bytes - MAX_COMMENT_BYTES - END.size)
                return self._find_directory(memoryview(self._read(wider, self.size_bytes)), wider)
            raise FormatError(
                "The zip archive has no end record: it is cut off or not a zip archive.",
                kind=ErrorKind.TRUNCATED_ARCHIVE,
            )
        _, _, _, _, n_entries, length, offset, _ = END.unpack_from(tail, at)
        end = tail_start + at
        if (
            at >= LOCATOR64.size
            and bytes(tail[at - LOCATOR64.size : at - LOCATOR64.size + 4]) == b"PK\x06\x07"
        ):
            _, _, end64, _ = LOCATOR64.unpack_from(tail, at - LOCATOR64.size)
            # It lies right before its locator; the stated offset is wrong if bytes precede the archive.
            if at - LOCATOR64.size - END64.size >= 0:
                record = tail[at - LOCATOR64.size - END64.size :]
                end64 = end - LOCATOR64.size - END64.size
            elif end64 + END64.size > self.size_bytes:
                record = memoryview(b"")
            else:
                record = memoryview(self._read(end64, end64 + END64.size))
            if len(record) < END64.size or bytes(record[:4]) != b"PK\x06\x06":
                raise FormatError("The zip64 end record is damaged.", kind=ErrorKind.CORRUPT_MEMBER)
            _, _, _, _, _, _, _, n_entries, length, offset = END64.unpack_from(record)
            end = end64
        start = end - length
        if length > MAX_DIRECTORY_BYTES:
            raise FormatError(
                f"The central directory has {length} bytes, more than {MAX_DIRECTORY_BYTES}.",
                kind=ErrorKind.OVER_LIMIT,
            )
        if start < 0:
            raise FormatError(
                "The central directory is larger than the archive.", kind=ErrorKind.CORRUPT_MEMBER
            )
        known = start >= tail_start
        directory = (
            tail[start - tail_start : end - tail_start] if known else memoryview(self._read(start, end))
        )
        return directory, n_entries, start - offset


def _find_end(tail: memoryview) -> int:
    """Return the position of the end record, or -1: usually right at the end, before it only if there is a comment."""
    at = len(tail) - END.size
    if at >= 0 and bytes(tail[at : at + 4]) == b"PK\x05\x06" and bytes(tail[-2:]) == b"\0\0":
        return at
    data = bytes(tail[-(MAX_COMMENT_BYTES + END.size) :])
    skipped = len(tail) - len(data)
    at = data.rfind(b"PK\x05\x06")
    while at >= 0:
        if at + END.size <= len(data) and at + END.size + int.from_bytes(
            data[at + 20 : at + 22], "little"
        ) <= len(data):
            return skipped + at
        at = data.rfind(b"PK\x05\x06", 0, at + 3)
    return -1


def _inflate(entry: ZipEntry, data: memoryview) -> memoryview:
    """Inflate an entry, at most one byte beyond its promised size, so that a bomb does not go off."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        return memoryview(inflater.decompress(data, entry.size_bytes + 1))
    except zlib.error as error:
        raise IntegrityError(f"{entry.name} cannot be inflated: {error}.") from error
