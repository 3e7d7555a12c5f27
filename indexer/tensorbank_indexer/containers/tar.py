"""Members of a tar archive, found by reading headers only.

Formats: ustar and PAX (POSIX.1-2001; ``x`` and ``g`` records override path and size), GNU (long names ``L``,
base-256 sizes). Sparse members are refused by name: their data is not one range. After a damaged header, and
after one whose size leads beyond the end of the file, the search goes on at the next block that is a sound one.
Every step goes forwards, by a block at least.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from tensorbank.errors import FormatError

__all__ = ["TarIndex", "TarMember", "index_tar"]

BLOCK_BYTES = 512
MAX_EXTENSION_BYTES = 1 << 20
"""The bytes beyond which a long name or PAX record is taken for damage."""
MAX_READAHEAD_BYTES = 1 << 20
RESYNC_BYTES = 1 << 20
REGULAR = frozenset(b"0\x007")
FOLDER = ord("5")
NO_FILES = {"1": "a hard link", "2": "a symbolic link", "3": "a device", "4": "a device", "6": "a pipe"}
PADDING_BYTES = 64 << 10
"""The bytes behind the end-of-archive mark in which more may begin."""
RECORD_BYTES = 10 << 10
"""The bytes of a record; tars are filled up to whole records."""
KEPT_RECORDS = frozenset({"path", "size", "GNU.sparse.name"})
"""The PAX records that say where a member is;
of the others it only matters whether there is one of sparse members."""
MAX_REASONS = 100
"""The most damaged stretches that are told one by one."""
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


class _Header(NamedTuple):
    name: str
    size_bytes: int
    kind: int
    is_extended: bool


class _Window:
    """The stretch of the file read last. Reads ahead as far as pays: far while members are small."""

    def __init__(self, read: ReadRange, size_bytes: int, readahead_bytes: int) -> None:
        self.read = read
        self.size_bytes = size_bytes
        self.least_bytes = readahead_bytes
        self.start = self.end = 0
        self.data = b""

    def get(self, start: int, length: int, step_bytes: int) -> bytes:
        """Return the bytes ``[start, start + length)``, fewer at the end of the file;
        ``step_bytes`` is the distance of recent headers."""
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
                header = _parse(block)
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

    def _advance(self, header: _Header, position: int) -> tuple[int, str]:
        data = position + BLOCK_BYTES
        if chr(header.kind) in "xgLK":
            return self._extension(header, data)
        own, self.own = {**self.shared, **self.own}, {}
        name, self.long_name = own.get("path", self.long_name or header.name), None
        size = header.size_bytes
        if "size" in own:
            size = _decimal(own["size"])
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

    def _extension(self, header: _Header, data: int) -> tuple[int, str]:
        if header.size_bytes > MAX_EXTENSION_BYTES:
            raise FormatError(f"an extended header of {header.size_bytes} bytes")
        content = self.window.get(data, header.size_bytes, 0)
        if len(content) < header.size_bytes:
            return data, f"the extended header at byte {data} is cut off"
        kind = chr(header.kind)
        if kind == "x":
            self.own = _records(content)
        elif kind == "g":
            self.shared |= _records(content)
        elif kind == "L":
            self.long_name = _text(content)
        return data + -(-header.size_bytes // BLOCK_BYTES) * BLOCK_BYTES, ""

    def _continued(self, position: int) -> int:
        """The next header behind the end-of-archive mark, as of tars that were put together by ``cat``, or the end."""
        if self.size_bytes - position <= RECORD_BYTES:  # another tar would have a record at least
            return self.size_bytes
        padding = self.window.get(position, PADDING_BYTES, 0)
        return self._resync(position + BLOCK_BYTES) if padding.strip(b"\0") else self.size_bytes

    def _resync(self, position: int) -> int:
        """The next block that is a sound ustar or GNU header, or the end of the file."""
        while position < self.size_bytes:
            stretch = self.window.get(position, RESYNC_BYTES, 0)
            found = stretch.find(b"ustar", 257)
            while found >= 0:
                offset = found - 257
                if offset % BLOCK_BYTES == 0 and _is_sound(stretch[offset : offset + BLOCK_BYTES]):
                    return position + offset
                found = stretch.find(b"ustar", found + 1)
            position += RESYNC_BYTES
        return self.size_bytes


def _is_sound(block: bytes) -> bool:
    if len(block) < BLOCK_BYTES:
        return False
    try:
        _parse(block)
    except FormatError:
        return False
    return True


def _parse(block: bytes) -> _Header:
    stored = _number(block[148:156])
    plain = block[:148] + b"        " + block[156:]
    if stored != sum(plain) and stored != sum(b - 256 if b > 127 else b for b in plain):
        raise FormatError("its checksum does not match")
    name = _text(block[:100])
    is_posix = block[257:263] == b"ustar\0"
    prefix = _text(block[345:500]) if is_posix else ""
    return _Header(
        f"{prefix}/{name}" if prefix else name, _number(block[124:136]), block[156], block[482] != 0
    )


def _number(field: bytes) -> int:
    """Parse octal digits, or base 256 if the first bit is set (GNU, for sizes of 8 GiB and more)."""
    if field[0] & 0x80:
        value = int.from_bytes(bytes((field[0] & 0x7F,)) + field[1:], "big")
        if field[0] == 0xFF:
            raise FormatError("a number in it is negative")
        return value
    try:
        return int(field.split(b"\0", 1)[0].strip() or b"0", 8)
    except ValueError:
        raise FormatError(f"{field!r} in it is not a number") from None


def _decimal(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise FormatError(f"the size {text!r} in its extended header is not a number")
    return int(text)


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")


def _records(content: bytes) -> dict[str, str]:
    r"""Parse records ``"<length> <key>=<value>\n"``, length in bytes and of the whole record."""
    records: dict[str, str] = {}
    position = 0
    while position < len(content) and content[position] != 0:
        space = content.find(b" ", position, position + 20)
        digits = content[position:space] if space > position else b""
        end = position + int(digits) if digits.isdigit() else position
        if not space < end <= len(content) or content[end - 1 : end] != b"\n":
            raise FormatError("an extended header is malformed")
        key, equals, value = content[space + 1 : end - 1].partition(b"=")
        if not equals:
            raise FormatError("an extended header is malformed")
        name = key.decode("utf-8", "backslashreplace")
        if name.startswith("GNU.sparse"):
            records["GNU.sparse"] = ""
        if name in KEPT_RECORDS:
            records[name] = value.decode("utf-8", "backslashreplace")
        position = end
    return records
