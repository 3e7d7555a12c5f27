"""Header blocks and PAX records of a tar (POSIX.1-2001, and GNU's base-256 numbers)."""

from __future__ import annotations

from typing import NamedTuple

from tensorbank.errors import FormatError

__all__ = [
    "BLOCK_BYTES",
    "TarHeader",
    "decimal_of",
    "is_sound",
    "parse_header",
    "pax_records",
    "text_of_field",
]

BLOCK_BYTES = 512
"""The bytes of a block: a header is one, and data are filled up to whole ones."""
KEPT_RECORDS = frozenset({"path", "size", "GNU.sparse.name"})
"""The PAX records that say where a member is;
of the others it only matters whether there is one of sparse members."""


class TarHeader(NamedTuple):
    """The fields of a header that say where a member lies. ``is_extended``: more blocks of a sparse map follow."""

    name: str
    size_bytes: int
    kind: int
    is_extended: bool


def is_sound(block: bytes) -> bool:
    """Tell whether a block is a header whose checksum matches."""
    if len(block) < BLOCK_BYTES:
        return False
    try:
        parse_header(block)
    except FormatError:
        return False
    return True


def parse_header(block: bytes) -> TarHeader:
    """Parse a header block.

    Raises
    ------
    FormatError
        It is none: its checksum does not match, or a number in it is none.
    """
    stored = _number(block[148:156])
    plain = block[:148] + b"        " + block[156:]
    if stored != sum(plain) and stored != sum(b - 256 if b > 127 else b for b in plain):
        raise FormatError("its checksum does not match")
    name = text_of_field(block[:100])
    is_posix = block[257:263] == b"ustar\0"
    prefix = text_of_field(block[345:500]) if is_posix else ""
    return TarHeader(
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


def decimal_of(text: str) -> int:
    """Parse the size in a PAX record.

    Raises
    ------
    FormatError
        It is no number.
    """
    if not text.isascii() or not text.isdigit():
        raise FormatError(f"the size {text!r} in its extended header is not a number")
    return int(text)


def text_of_field(field: bytes) -> str:
    """Return the text of a field up to its first zero; bytes that are not UTF-8 are escaped."""
    return field.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")


def pax_records(content: bytes) -> dict[str, str]:
    r"""Parse PAX records ``"<length> <key>=<value>\n"``, length in bytes and of the whole record.

    Raises
    ------
    FormatError
        A record is malformed.
    """
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
