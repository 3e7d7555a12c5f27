"""Checksums of index files, as their names and commits say them.

The name of an index file ends with the CRC-32C of its bytes, and a commit has one of its own in its ``commitInfo``, over the
whole file with the digits of the checksum as zeros; as its name is Delta's, the commit says its place, too. A checkpoint has a
small object beside it. Files and commits of other programs have no checksum, and are taken as they are.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import crc32c as crc

from tensorbank.errors import ErrorKind, IntegrityError

__all__ = [
    "checkpoint_seal",
    "checksum_in_name",
    "commit_checksum",
    "crc_of_file",
    "find_commit_flaw",
    "index_file_name",
    "is_sealed_commit",
    "require_sealed",
    "sealed_commit",
]

CHUNK_BYTES = 1 << 20
_NAME = re.compile(r"[0-9a-f]{32}-([0-9a-f]{8})\.parquet")
_SEAL = b'"tensorbank.crc32c":"'
_PLACE = "tensorbank.place"
_OWN = (f'"{_PLACE}":'.encode(), b'"engineInfo":"tensorbank"')
"""The marks of a commit that was written here; it has both."""
_NO_DIGITS = b"00000000"


def index_file_name(data: bytes | memoryview) -> str:
    """Return the name of an index file by its content: 32 hexadecimal digits of its SHA-256, and 8 of its CRC-32C."""
    return f"{hashlib.sha256(data).hexdigest()[:32]}-{crc.crc32c(data):08x}.parquet"


def checksum_in_name(key: str) -> int | None:
    """Return the CRC-32C that the name of an index file says, None if it says none."""
    found = _NAME.fullmatch(key.rsplit("/", 1)[-1])
    return None if found is None else int(found[1], 16)


def crc_of_file(path: Path) -> int:
    """Return the CRC-32C of a local file."""
    checksum = 0
    memory = memoryview(bytearray(CHUNK_BYTES))  # used again, since the kernel clears memory that is new
    with path.open("rb", buffering=0) as file:
        while n_bytes := file.readinto(memory):
            checksum = crc.crc32c(memory[:n_bytes], checksum)
    return checksum


def place_of_commit(key: str) -> str:
    """Return what a commit says of its place: its key below the ``index`` of the table, so that a table may get another name."""
    return key.rpartition("/index/")[2]


def sealed_commit(actions: Sequence[Mapping[str, Any]], info: Mapping[str, Any], key: str) -> bytes:
    """Return the file of a commit: a line an action, the first of them ``commitInfo`` with the checksum of the file.

    A file that was cut has the first line and not the bytes that the checksum is of. ``key`` is that of the file.
    """
    said = {_PLACE: place_of_commit(key), **info, "tensorbank.crc32c": _NO_DIGITS.decode()}
    lines = [{"commitInfo": said}, *actions]
    data = "".join(
        json.dumps(line, separators=(",", ":"), ensure_ascii=True) + "\n" for line in lines
    ).encode()
    start = data.index(_SEAL) + len(_SEAL)
    return data[:start] + f"{crc.crc32c(data):08x}".encode() + data[start + len(_NO_DIGITS) :]


def find_commit_flaw(data: bytes, key: str) -> str:
    """Return what is wrong with a commit by its checksum and place, as a sentence that begins with it; empty if nothing is."""
    checksums = commit_checksum(data)
    if checksums is None:
        return "it has lost its checksum" if any(mark in data for mark in _OWN) else ""
    if checksums[0] != checksums[1]:
        return f"its checksum is {checksums[1]}, it says {checksums[0]}"
    if b'"commitInfo"' not in data[: data.find(b"\n")]:  # as it was written before commits said their places
        return ""
    said = json.loads(data[: data.find(b"\n")])["commitInfo"].get(_PLACE)
    return "" if said is None or said == place_of_commit(key) else f"it is the commit {said}"


def is_sealed_commit(data: bytes) -> bool:
    """Tell whether a commit says the checksum that it has, as those that are written here do."""
    checksums = commit_checksum(data)
    return checksums is not None and checksums[0] == checksums[1]


def commit_checksum(data: bytes) -> tuple[str, str] | None:
    """Return the checksum that a commit says, and the one that it has, as 8 hexadecimal digits each; None if it says none."""
    at = data.find(_SEAL)
    if at < 0:
        return None
    start = at + len(_SEAL)
    end = start + len(_NO_DIGITS)
    return data[start:end].decode(
        "ascii", "replace"
    ), f"{crc.crc32c(data[:start] + _NO_DIGITS + data[end:]):08x}"


def checkpoint_seal(data: bytes) -> bytes:
    """Return the content of the object beside a checkpoint: the CRC-32C and the number of its bytes."""
    return f"{crc.crc32c(data):08x} {len(data)}\n".encode()


def require_sealed(data: bytes, seal: bytes, where: str) -> None:
    """Compare a checkpoint with what the object beside it says.

    Raises
    ------
    IntegrityError
        One of them is damaged.
    """
    if checkpoint_seal(data) != seal:
        raise IntegrityError(
            f"the log file {where} is not what its checksum says: one of the two is damaged; remove both if the commits before "
            "it are there, or restore them",
            kind=ErrorKind.DAMAGED_LOG,
        )
