"""Arrow tables in files that end in a checksum of all before it.

A flipped bit in an Arrow file is another value, a foreign exception, or the end of the process, since offsets are believed. So
nothing of a file is handed to Arrow before its checksum has been compared. The layout is an Arrow IPC file, padded to eight
bytes, and a seal of 32 bytes: magic, bytes of the IPC file, its CRC-32C, and the CRC-32C of the seal itself.
"""

from __future__ import annotations

import stat
import struct
import uuid
from pathlib import Path

import crc32c as crc
import pyarrow as pa
import pyarrow.ipc

from tensorbank.errors import FormatError, NotFoundError, StorageError

__all__ = ["load_table", "save_table"]

MAGIC = b"TBSEAL01"
_SEAL = struct.Struct("<8sQI8xI")
_CRC = struct.Struct("<I")
_ARROW_MAGIC = b"ARROW1"
PIECE_BYTES = 64 << 20


def save_table(path: Path, table: pa.Table) -> None:
    """Write a table; readers, those that have the file mapped included, see the old file or the new one.

    Raises
    ------
    StorageError
        The file cannot be written, or would replace what is no file, such as a device.
    """
    path = path.resolve()  # a link stays, and leads to the new file
    if path.exists() and not path.is_file():
        raise StorageError(f"{path} cannot be written: it exists already and is not a file")
    new = path.with_name(f".{path.name[:100]}-{uuid.uuid4().hex}")
    try:
        try:
            with (
                new.open("xb") as target,
                pa.PythonFile(target, "w") as sink,
                pa.ipc.new_file(sink, table.schema) as writer,
            ):
                writer.write_table(table)
            _seal(new)
            new.replace(path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}") from error


def _seal(path: Path) -> None:
    with pa.memory_map(str(path)) as source:
        content = source.read_buffer()
        n_bytes, checksum = content.size, _checksum(memoryview(content))
    head = _SEAL.pack(MAGIC, n_bytes, checksum, 0)[: -_CRC.size]
    with path.open("ab") as file:
        file.write(b"\0" * (-n_bytes % 8) + head + _CRC.pack(crc.crc32c(head)))


def load_table(path: Path, what: str) -> pa.Table:
    """Map a table that was saved.

    Parameters
    ----------
    what
        Name of what the table is, such as ``a saved plan``, for errors.

    Raises
    ------
    NotFoundError
        There is no such file.
    FormatError
        The file is not what was saved.
    StorageError
        The file cannot be read.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise FormatError(f"{path} is not {what}: it is not a file")
        if found.st_size <= _SEAL.size:
            raise FormatError(f"{path} is not {what}: it has {found.st_size} bytes")
        with pa.memory_map(str(path)) as source:
            return _opened(path, what, source.read_buffer())
    except FileNotFoundError as error:
        raise NotFoundError(
            f"there is no file {path}, so there is no {what.removeprefix('a ')} to load"
        ) from error
    except pa.ArrowException as error:
        raise FormatError(f"{path} is not {what}: {str(error).splitlines()[0][:200]}") from error
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}") from error


def _opened(path: Path, what: str, data: pa.Buffer) -> pa.Table:
    seal = bytes(data.slice(data.size - _SEAL.size))
    magic, n_bytes, checksum, of_seal = _SEAL.unpack(seal)
    if magic != MAGIC or crc.crc32c(seal[: -_CRC.size]) != of_seal:
        if seal.endswith(_ARROW_MAGIC):
            raise FormatError(
                f"{path} is not {what} of this version: it has no checksum, as an older version of TensorBank wrote it; "
                "make and save it again"
            )
        raise FormatError(f"{path} is not {what}, or was damaged: it has no valid checksum")
    if n_bytes + (-n_bytes % 8) + _SEAL.size != data.size:
        raise FormatError(f"{path} is damaged: it has {data.size} bytes, its checksum is of {n_bytes}")
    content = data.slice(0, n_bytes)
    found = _checksum(memoryview(content))
    if found != checksum or any(bytes(data.slice(n_bytes, -n_bytes % 8))):
        raise FormatError(f"{path} is damaged: its checksum is {found:08x}, {checksum:08x} was saved with it")
    table: pa.Table = pa.ipc.open_file(pa.BufferReader(content)).read_all()
    table.validate()
    return table


def _checksum(data: memoryview) -> int:
    """Return the CRC-32C, computed in pieces, each of which releases the GIL."""
    found = 0
    for start in range(0, len(data), PIECE_BYTES):
        found = crc.crc32c(data[start : start + PIECE_BYTES], found)
    return int(found)
