"""Members of a tar archive, found by reading headers only.

Formats: ustar and PAX (POSIX.1-2001; ``x`` and ``g`` records override path and size), GNU (long names ``L``,
base-256 sizes). Sparse members are refused by name: their data is not one range. After a damaged header, and
after one whose size leads beyond the end of the file, the search goes on at the next block that is a sound one.
Every step goes forwards, by a block at least.

Python's ``tarfile`` ends at the first damaged header and has no reading ahead, so that each header is a request; here headers are
read ahead, and only what is damaged is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from tensorbank.errors import FormatError
from tensorbank_indexer.containers.tar_header import (
    BLOCK_BYTES,
    TarHeader,
    decimal_of,
    is_sound,
    parse_header,
    pax_records,
    text_of_field,
)

__all__ = ["TarIndex", "TarMember", "index_tar"]

MAX_EXTENSION_BYTES = 1 << 20
"""The bytes beyond which a long name or PAX record is taken for damage."""
MAX_READAHEAD_BYTES = 1 << 20
"""The most bytes of a read ahead."""
RESYNC_BYTES = 1 << 20
"""The bytes of a read in search of the next sound header."""
REGULAR = frozenset(b"0\x007")
FOLDER = ord("5")
NO_FILES = {"1": "a hard link", "2": "a symbolic link", "3": "a device", "4": "a device", "6": "a pipe"}
PADDING_BYTES = 64 << 10
"""The bytes behind the end-of-archive mark in which more may begin."""
RECORD_BYTES = 10 << 10
"""The bytes of a record; tars are filled up to whole records."""
MAX_REASONS = 100
"""The most damaged stretches that are reported one by one; the others are counted."""
ZERO_BLOCK = bytes(BLOCK_BYTES)

ReadRange = Callable[[int, int], bytes]


class TarMember(NamedTuple):
    """A regular file in a tar: its data are bytes ``[offset, offset + size_bytes)``."""

    name: str
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class TarIndex:
    """The complete members in order, and how the archive ended.

    ``truncated`` says, in words, what the end of the file cuts off, or is empty. ``damaged`` has a sentence
    for each stretch that could not be understood, ``refused`` for each member that is not supported.
    """

    members: tuple[TarMember, ...]
    truncated: str = ""
    damaged: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


class _Window:
    """The stretch of the file read last. Reads further ahead while members are small."""

    def __init__(self, read: ReadRange, size_bytes: int, readahead_bytes: int) -> None:
        self.read = read
        self.size_bytes = size_bytes
        self.least_bytes = readahead_bytes
        self.start = self.end = 0
        self.data = b""

    def get(self, start: int, length: int, step_bytes: int) -> bytes:
        """Return the bytes ``[start, start + length)``, fewer at the end of the file; ``step_bytes`` is the distance of
        recent headers.
        """
        if not (self.start <= start and start + length <= self.end):
            ahead = self.least_bytes
            # A request costs about as much time as 256 KiB: worth it if two headers lie within the read.
            if self.least_bytes > BLOCK_BYTES and 0 < step_bytes <= MAX_READAHEAD_BYTES // 4:
                ahead = MAX_READAHEAD_BYTES
            self.start = start
            self.end = min(start + max(length, ahead), self.size_bytes)
            self.data = self.read(start, self.end) if self.end > start else b""
        return self.data[start - self.start : start - self.start + length]


def index_tar(read: ReadRange, size_bytes: int, *, readahead_bytes: int = BLOCK_BYTES) -> TarIndex:
    """Find the members of a tar.

    Parameters
    ----------
    read
        Returns bytes ``[start, end)`` of the tar.
    size_bytes
        Size of the tar.
    readahead_bytes
        Least bytes of a read. 512 where reads are system calls; some 4096 where they are requests, then it
        grows to 1 MiB while members are smaller than 256 KiB.
    """
    return _Indexer(read, size_bytes, readahead_bytes).run()


class _Indexer:
    def __init__(self, read: ReadRange, size_bytes: int, readahead_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.window = _Window(read, size_bytes, readahead_bytes)
        self.members: list[TarMember] = []
        self.damaged: list[str] = []
        self.n_damaged = 0
        self.refused: list[str] = []
        self.shared: dict[str, str] = {}
        self.own: dict[str, str] = {}
        self.long_name: str | None = None
        self.step_bytes = 0

    def run(self) -> TarIndex:
        position = 0
        truncated = ""
        while True:
            block = self.window.get(position, BLOCK_BYTES, self.step_bytes)
            if len(block) < BLOCK_BYTES:
                if block:
                    truncated = f"the header at byte {position} is cut off"
                elif not self.damaged or position < self.size_bytes:
                    truncated = "the end-of-archive mark is missing"
                break
            if block == ZERO_BLOCK:
                end = self._continued(position)
                if end >= self.size_bytes:
                    break
                self._damage(f"the end-of-archive mark at byte {position} is followed by more members")
                position = end
                continue
            try:
                header = parse_header(block)
                end, cut = self._advance(header, position)
                if cut:
                    truncated = truncated or cut
                    # Either the file was cut off, or the size is wrong and sound members follow.
                    end = self._resync(position + BLOCK_BYTES)
                    if end >= self.size_bytes:
                        break
                    self._damage(cut)
                    truncated = ""
                    self.own, self.long_name = {}, None
            except FormatError as error:
                end = self._resync(position + BLOCK_BYTES)
                self._damage(f"bytes {position} to {end} are not a tar header ({error})")
                self.own, self.long_name = {}, None
            self.step_bytes = end - position
            position = end
        if self.n_damaged > MAX_REASONS:
            self.damaged.append(f"{self.n_damaged - MAX_REASONS} more stretches could not be understood")
        return TarIndex(tuple(self.members), truncated, tuple(self.damaged), tuple(self.refused))

    def _damage(self, reason: str) -> None:
        self.n_damaged += 1
        if self.n_damaged <= MAX_REASONS:
            self.damaged.append(reason)

    def _advance(self, header: TarHeader, position: int) -> tuple[int, str]:
        data = position + BLOCK_BYTES
        if chr(header.kind) in "xgLK":
            return self._extension(header, data)
        own, self.own = {**self.shared, **self.own}, {}
        name, self.long_name = own.get("path", self.long_name or header.name), None
        size = header.size_bytes
        if "size" in own:
            size = decimal_of(own["size"])
        if header.kind == ord("S"):
            while header.is_extended:
                block = self.window.get(data, BLOCK_BYTES, 0)
                data += BLOCK_BYTES
                header = header._replace(is_extended=len(block) == BLOCK_BYTES and block[504] != 0)
        end = data + -(-size // BLOCK_BYTES) * BLOCK_BYTES
        name = name.removeprefix("./")
        if header.kind == ord("S") or "GNU.sparse" in own:
            self.refused.append(f"{own.get('GNU.sparse.name', name)} is a sparse member")
        elif header.kind in REGULAR and not name.endswith("/"):
            if data + size > self.size_bytes:
                return data, f"{name} needs {size} bytes from byte {data}, the file ends at {self.size_bytes}"
            self.members.append(TarMember(name, data, size))
        elif header.kind not in REGULAR:
            what = NO_FILES.get(chr(header.kind))
            if what:
                self.refused.append(f"{name} is {what}")
            # Links, folders and devices have no data, whatever their size field says.
            end = data if what or header.kind == FOLDER else end
        return end, ""

    def _extension(self, header: TarHeader, data: int) -> tuple[int, str]:
        if header.size_bytes > MAX_EXTENSION_BYTES:
            raise FormatError(f"an extended header of {header.size_bytes} bytes")
        content = self.window.get(data, header.size_bytes, 0)
        if len(content) < header.size_bytes:
            return data, f"the extended header at byte {data} is cut off"
        kind = chr(header.kind)
        if kind == "x":
            self.own = pax_records(content)
        elif kind == "g":
            self.shared |= pax_records(content)
        elif kind == "L":
            self.long_name = text_of_field(content)
        return data + -(-header.size_bytes // BLOCK_BYTES) * BLOCK_BYTES, ""

    def _continued(self, position: int) -> int:
        """Return the next header behind the end-of-archive mark, as of tars that were put together by ``cat``, or the end."""
        if self.size_bytes - position <= RECORD_BYTES:  # another tar would have a record at least
            return self.size_bytes
        padding = self.window.get(position, PADDING_BYTES, 0)
        return self._resync(position + BLOCK_BYTES) if padding.strip(b"\0") else self.size_bytes

    def _resync(self, position: int) -> int:
        """Return the next block that is a sound ustar or GNU header, or the end of the file."""
        while position < self.size_bytes:
            stretch = self.window.get(position, RESYNC_BYTES, 0)
            found = stretch.find(b"ustar", 257)
            while found >= 0:
                offset = found - 257
                if offset % BLOCK_BYTES == 0 and is_sound(stretch[offset : offset + BLOCK_BYTES]):
                    return position + offset
                found = stretch.find(b"ustar", found + 1)
            position += RESYNC_BYTES
        return self.size_bytes
