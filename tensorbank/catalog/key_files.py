"""Files of ``keys`` and ``deleted``, read as numbers.

A writer looks through the keys of all samples, so they are stored as plain numbers, a page for each row group: pages that may
have a key are read one after the other into memory that is used again. What was written in another way is read by pyarrow.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tensorbank.arrow_numpy import as_numpy
from tensorbank.delta import KnownVersions
from tensorbank.errors import IntegrityError
from tensorbank.index_files import checksum_in_name

__all__ = ["KEYS_SCHEMA", "KeyPages", "StoredKeys", "counts_in", "key_pairs", "read_column", "read_keys"]

KEYS_SCHEMA = pa.schema([pa.field("key", pa.int64()), pa.field("stem_key", pa.int64())])
KEY_BYTES = 8
HEADER_BYTES = 32
"""The number of bytes in which a page says what it is, and how long."""
PLAIN = ({"PLAIN", "RLE"}, {"PLAIN"})
"""The encodings of a column without a dictionary; those of which values are missing have their places by RLE."""

Keys = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class KeyPages:
    """The places of the keys of samples in a file whose row groups have one page of plain numbers each.

    Parameters
    ----------
    path
        File that was checked.
    starts, n_rows
        (p,) int64: the first byte of the values of each page, and how many there are.
    lows, highs
        (p,) int64: the least and the greatest key of each page.
    """

    path: Path
    starts: Keys
    n_rows: Keys
    lows: Keys
    highs: Keys

    @classmethod
    def find(cls, path: Path) -> KeyPages | None:
        """Return the pages of a file, None if its keys are stored in another way.

        A footer is looked at closely if the file's name has its checksum, which was compared; else pyarrow might end the process.
        """
        if checksum_in_name(path.name) is None:
            return None
        with pq.ParquetFile(path) as parquet, path.open("rb", buffering=0) as file:
            footer = parquet.metadata
            groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
            pages = [_page(file, group.column(0), group.num_rows) for group in groups]
        if None in pages:
            return None
        columns = np.array(pages, np.int64).reshape(len(pages), 4).T
        return cls(path, *columns)

    def counts(self, asked: Keys) -> Keys:
        """Return how often each of ascending keys, (n,), is there. Pages that can have none of them are not read.

        Raises
        ------
        IntegrityError
            The file has become shorter.
        """
        found = np.zeros(len(asked), np.int64)
        first = np.searchsorted(asked, self.lows)
        last = np.searchsorted(asked, self.highs, "right")
        memory = np.empty(max(self.n_rows, default=0), np.int64)  # used again: the kernel clears what is new
        with self.path.open("rb", buffering=0) as file:
            for number in np.flatnonzero(first < last).tolist():
                page = memory[: self.n_rows[number]]
                file.seek(int(self.starts[number]))
                if file.readinto(page.data.cast("B")) != page.nbytes:
                    raise IntegrityError(f"index file {self.path} has become shorter; restore it")
                some = slice(first[number], last[number])
                found[some] += counts_in(page, asked[some])
        return found


@dataclass(frozen=True, slots=True, eq=False)
class StoredKeys:
    """The keys of a file that was checked. A :class:`tensorbank.catalog.membership.KeysOfFile`.

    Parameters
    ----------
    key
        Key of the file, by which what is known of it is remembered.
    path
        Where it can be read.
    known
        Memory of where pages lie, and of columns that have none.
    """

    key: str
    path: Path
    known: KnownVersions

    def counts(self, which: int, asked: Keys) -> Keys:
        """See :class:`tensorbank.catalog.membership.KeysOfFile`."""
        if which == 0:
            pages = self.known.found(("pages", self.key), lambda: KeyPages.find(self.path))
            if pages is not None:
                return pages.counts(asked)
        column = self.known.found(("sorted", self.key, which), lambda: read_column(self.path, which))
        return counts_in(column, asked)


def counts_in(there: Keys, asked: Keys) -> Keys:
    """Return how often each of ascending keys, (n,), is among some, which are sorted in place unless they ascend."""
    if not (there[1:] >= there[:-1]).all():
        there.sort()
    found = np.zeros(len(asked), np.int64)
    first = np.searchsorted(there, asked)
    hit = np.flatnonzero(first < len(there))
    hit = hit[there[first[hit]] == asked[hit]]
    found[hit] = np.searchsorted(there, asked[hit], "right") - first[hit]
    return found


def read_column(path: Path, which: int) -> Keys:
    """Read the ascending keys of samples, (n,), of a file, or with 1 those of stems."""
    name = KEYS_SCHEMA.names[which]
    with pq.ParquetFile(path) as file:
        keys = as_numpy(file.read([name], use_threads=False)[name]).astype(np.int64, copy=False)
    return keys if (keys[1:] >= keys[:-1]).all() else np.sort(keys)


def _page(file: io.FileIO, chunk: pq.ColumnChunkMetaData, n_rows: int) -> tuple[int, int, int, int] | None:
    """Return first byte, number, least and greatest of the values of a column of a row group; None unless they are one page."""
    n_bytes = KEY_BYTES * n_rows
    if not n_rows or not _is_plain(chunk) or chunk.num_values != n_rows:
        return None
    file.seek(chunk.data_page_offset)
    if _page_bytes(file.read(HEADER_BYTES)) < n_bytes:
        return None  # there are several pages
    start = chunk.data_page_offset + chunk.total_compressed_size - n_bytes
    return start, n_rows, int(chunk.statistics.min), int(chunk.statistics.max)


def _is_plain(chunk: pq.ColumnChunkMetaData) -> bool:
    """Tell whether the keys of a row group lie there as they are, none of them missing, with their bounds."""
    said = chunk.statistics
    return (
        chunk.path_in_schema == KEYS_SCHEMA.names[0]
        and chunk.physical_type == "INT64"
        and chunk.compression == "UNCOMPRESSED"
        and {*chunk.encodings} in PLAIN
        and not chunk.has_dictionary_page
        and said is not None
        and said.has_null_count
        and said.null_count == 0
        and said.has_min_max
    )


def _page_bytes(header: bytes) -> int:
    """Return the bytes of a page of data by the beginning of its header, 0 if it is another page.

    A header is a ``PageHeader`` in Thrift's compact protocol (https://github.com/apache/parquet-format): its first three fields
    are the type of the page, 0 for data, and its bytes before and after compression, all of them numbers of 32 bits.
    """
    at, found = 0, []
    for _ in range(3):
        if at >= len(header) or header[at] != 0x15:  # the next field, an i32
            return 0
        at, shift, number = at + 1, 0, 0
        while at < len(header):
            number |= (header[at] & 0x7F) << shift
            shift += 7
            at += 1
            if header[at - 1] < 0x80:
                break
        found.append((number >> 1) ^ -(number & 1))
    kind, n_bytes, n_stored = found
    return n_stored if kind == 0 and n_stored == n_bytes else 0


def read_keys(path: Path) -> npt.NDArray[np.int64]:
    """Read (n, 2) keys of a file."""
    with pq.ParquetFile(
        path
    ) as file:  # pq.read_table takes five times as long to begin, and there are some small files
        return key_pairs(file.read(list(KEYS_SCHEMA.names), use_threads=False))


def key_pairs(rows: pa.Table) -> npt.NDArray[np.int64]:
    """Return rows of ``keys`` or ``deleted`` as (n, 2) numbers."""
    return np.stack([as_numpy(rows[name]).astype(np.int64, copy=False) for name in KEYS_SCHEMA.names], axis=1)
