"""Small JSON objects that hold a checksum of themselves. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import crc32c as crc

from tensorbank.errors import IntegrityError

__all__ = ["opened", "sealed"]

_DIGITS = 8


def sealed(fields: Mapping[str, Any]) -> bytes:
    """Return fields as a JSON object of one line, whose last member ``crc32c`` is the CRC-32C of the whole object with zeros in
    its place: 8 hexadecimal digits.
    """
    blank = json.dumps({**fields, "crc32c": "0" * _DIGITS}, ensure_ascii=False).encode()
    return _with_digits(blank, f"{crc.crc32c(blank):08x}".encode())


def opened(data: bytes, url: str) -> dict[str, Any]:
    """Return the fields that :func:`sealed` wrote.

    Raises
    ------
    IntegrityError
        The object is not as it was written.
    """
    digits = data[-_DIGITS - len(_END) : -len(_END)]
    blank = _with_digits(data, b"0" * _DIGITS)
    if not data.endswith(_END) or digits != f"{crc.crc32c(blank):08x}".encode():
        raise IntegrityError(
            f"{url} is damaged: its checksum does not match; if nobody needs it any more, delete it"
        )
    try:
        fields = json.loads(data)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise IntegrityError(
            f"{url} is damaged: it is no JSON object; if nobody needs it any more, delete it"
        )
    del fields["crc32c"]
    return fields


_END = b'"}'


def _with_digits(data: bytes, digits: bytes) -> bytes:
    return data[: -_DIGITS - len(_END)] + digits + _END
