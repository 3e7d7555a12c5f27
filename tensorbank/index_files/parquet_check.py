"""A look at an index file before DuckDB opens it: a footer that lies can end the whole process there.

What is compared is what the log says of the file, its length, checksum and rows, with the file. Of a file without a checksum,
as other programs write them, pages are not looked at, nor what the footer says of single columns: pyarrow ends the process
where that is inconsistent (``RowGroupMetaData.column`` lets an exception of C++ pass), so it must not be asked before the bytes
are known to be sound.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from tensorbank.errors import ErrorKind, IntegrityError
from tensorbank.index_files.checksums import checksum_in_name, crc_of_file
from tensorbank.index_files.level_files import IndexFile

__all__ = ["check_index_file", "checked_footer", "footer_in"]

MAGIC = b"PAR1"
_TAIL = struct.Struct("<I4s")
_COLUMN_OF = {"samples": "stem", "tiles": "tile", "shards": "shard"}
"""A column that a level has and the other levels have not."""


def check_index_file(path: Path, file: IndexFile) -> Any:
    """Compare a local file with what the log says of it, and return its footer, pyarrow's ``FileMetaData``.

    Raises
    ------
    IntegrityError
        It is another file, was cut off, or its footer cannot be right; the message names it.
    """
    footer = None
    try:
        reason = _wrong_with_bytes(path, file)
        if not reason:
            footer = pyarrow.parquet.read_metadata(path)
            reason = _wrong_with_footer(footer, file)
    except FileNotFoundError as error:
        raise IntegrityError(
            f"index file {path} is gone, though its commit is there; if `tensorbank gc` "
            "removed what this version had, take a newer one",
            kind=ErrorKind.NO_OBJECT,
        ) from error
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    if reason:
        raise IntegrityError(f"index file {path} cannot be read: {reason}")
    return footer


def checked_footer(tail: bytes, file: IndexFile, where: str) -> Any:
    """Return the footer in the last bytes of a file, which were compared with their checksum, after a look at what it says.

    Raises
    ------
    IntegrityError
        It is that of another file.
    """
    footer = None
    try:
        footer = footer_in(tail)
        reason = _wrong_with_footer(footer, file)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    if reason:
        raise IntegrityError(f"index file {where} cannot be read: {reason}")
    return footer


def footer_in(tail: bytes) -> Any:
    """Return the footer in the last bytes of a file; these must be known to be sound."""
    return pyarrow.parquet.read_metadata(pa.BufferReader(MAGIC + tail))


def _wrong_with_bytes(path: Path, file: IndexFile) -> str:
    """Return the reason not to look at the footer of a file; an empty text if there is none."""
    with path.open("rb") as opened:
        n_bytes = opened.seek(0, 2)
        if n_bytes != file.n_bytes:
            return f"it has {n_bytes} bytes, its commit says {file.n_bytes}"
        if n_bytes < len(MAGIC) + _TAIL.size:
            return f"it has {n_bytes} bytes, too few for a Parquet file"
        opened.seek(n_bytes - _TAIL.size)
        footer_bytes, magic = _TAIL.unpack(opened.read(_TAIL.size))
        opened.seek(0)
        if magic != MAGIC or opened.read(len(MAGIC)) != MAGIC:
            return "it is no Parquet file"
        footer_starts = n_bytes - _TAIL.size - footer_bytes
        if footer_starts < len(MAGIC):
            return f"its footer would have {footer_bytes} bytes"
    said = checksum_in_name(file.key)
    if said is not None and (found := crc_of_file(path)) != said:
        return f"its checksum is {found:08x}, its commit says {said:08x}"
    return ""


def _wrong_with_footer(footer: Any, file: IndexFile) -> str:
    """Return the reason not to open a file with such a footer; an empty text if there is none."""
    if file.n_rows and footer.num_rows != file.n_rows:
        return f"it has {footer.num_rows} rows, its commit says {file.n_rows}"
    level = file.key.split("/")[-2] if "/" in file.key else ""
    if level in _COLUMN_OF:
        paths = {footer.schema.column(i).path for i in range(footer.num_columns)}
        has = paths & {*_COLUMN_OF.values()}
        if has != {_COLUMN_OF[level]}:
            return f"it holds no rows of {level}"
    in_groups = sum(footer.row_group(g).num_rows for g in range(footer.num_row_groups))
    return (
        ""
        if in_groups == footer.num_rows
        else f"its row groups have {in_groups} rows, it says {footer.num_rows}"
    )
