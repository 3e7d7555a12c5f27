"""The Parquet table of a split, one row a member: id, centre, times, cloud cover."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from tensorbank.errors import ErrorKind, FormatError, NotFoundError, StorageError
from tensorbank_indexer.containers import Boundary, SourceFiles
from tensorbank_indexer.sources.member_rows import (
    DATED_COLUMNS,
    MEMBER_SUFFIX,
    MemberRow,
    RowProblems,
    problem_sink,
    rows_by_stem,
)

__all__ = ["MetadataTable"]

MAX_KEPT_BYTES = 256 << 20
"""The size in bytes up to which tables are read once and kept; larger ones are read by range for each archive."""
MAX_DECODED_BYTES = 1 << 30
"""The most decoded bytes of the columns in use: 9 million members have 0.6 GB."""
MIN_ROWS_READ = 20_480
"""The number of rows that are looked at for one archive at least: twice the members of the largest published ones."""


@dataclass
class MetadataTable:
    """The table ``{split}_metadata.parquet``, in the root or, for the folder of one split, beside it.

    It is optional: without it there are no rows. Pickles without what it has read.
    """

    files: SourceFiles
    split: str
    is_split: bool
    _kept: bytes | None = field(default=None, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {"files": self.files, "split": self.split, "is_split": self.is_split, "_kept": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def rows(self, archive_name: str, stems: Iterable[str]) -> tuple[dict[str, MemberRow], RowProblems]:
        """Return the rows of the members of an archive by stem, and what is wrong with some; first those of
        its name, then, if archives were regrouped, those of its stems.

        Raises
        ------
        FormatError
            The table has no usable columns of members and ids, or is larger than one of this kind can be.
        pyarrow.ArrowException, OSError
            It is damaged.
        """
        place = self._place()
        if place is None:
            return {}, []
        stems = set(stems)
        problems: RowProblems = []
        with pq.ParquetFile(self._open(*place)) as table:
            schema = table.schema_arrow
            columns = [name for name in _columns() if name in schema.names]
            _check_size(table, columns, place[1].path)
        for name, kinds in (("zarr", "texts"), ("sample_id", "texts or numbers")):
            if name not in schema.names or not _holds_texts(
                schema.field(name).type, or_numbers=name != "zarr"
            ):
                given = schema.field(name).type if name in schema.names else "not there"
                raise FormatError(f"{place[1].path}: the column {name} is {given}; {kinds} are needed.")
        rows: dict[str, MemberRow] = {}
        if "tar" in schema.names and _holds_texts(schema.field("tar").type):
            rows = self._selected(place, columns, pc.field("tar") == archive_name, len(stems), problems)
        lacking = stems - rows.keys()
        if lacking:
            members = pa.array([stem + MEMBER_SUFFIX for stem in lacking])
            condition = pc.field("zarr").isin(members)
            rows |= self._selected(place, columns, condition, len(lacking), problems)
        told = dict.fromkeys(problems)  # a row without an id is met by its tar and by its stem
        return {stem: row for stem, row in rows.items() if stem in stems}, [
            (member, reason) for member, reason in told if not member or member in stems
        ]

    def _selected(
        self,
        place: tuple[SourceFiles, Any],
        columns: list[str],
        condition: pc.Expression,
        n_members: int,
        problems: RowProblems,
    ) -> dict[str, MemberRow]:
        """Return the rows that meet a condition; a column that cannot be read costs what it says, not the others."""
        most = max(MIN_ROWS_READ, 4 * n_members)

        def read(names: list[str]) -> pa.Table:
            # Stops early: a column of one value repeated takes no room in the file, whatever its length.
            fragment = ds.ParquetFileFormat().make_fragment(self._open(*place))
            schema = _without_views(fragment.physical_schema)
            scanner = ds.Scanner.from_fragment(fragment, schema=schema, columns=names, filter=condition)
            return scanner.head(most)

        table: pa.Table | None = None
        with Boundary(lambda _kind, _reason: None):
            table = read(columns)
        if table is None:
            table = read(["zarr", "sample_id"])
            for name in columns[2:]:
                with Boundary(problem_sink(problems, "", f"Column {name}: ")):
                    table = table.append_column(name, read([name])[name])
        if table.num_rows == most:
            problems.append(
                ("", f"The table has {most} rows or more for {n_members} members; the first are used.")
            )
        return rows_by_stem(table, problems)

    def _place(self) -> tuple[SourceFiles, Any] | None:
        name = f"{self.split}_metadata.parquet"
        for files in (self.files, self.files.beside()) if self.is_split else (self.files,):
            try:
                return files, files.stat([name])[0]
            except NotFoundError:
                continue
            except StorageError:
                # A reader of one split may not be allowed to read the folder above.
                if files is self.files:
                    raise
        return None

    def _open(self, files: SourceFiles, stat: Any) -> Any:
        if files.is_local:
            folder = files.root.partition("://")[2] if "://" in files.root else files.root
            return pa.memory_map(str(Path(folder, stat.path)))
        if stat.size_bytes > MAX_KEPT_BYTES:
            return pa.PythonFile(files.open(stat.path, stat.size_bytes), mode="r")
        if self._kept is None:
            self._kept = files.read(stat.path, 0, stat.size_bytes)
        return pa.BufferReader(self._kept)


def _columns() -> list[str]:
    return [
        "zarr",
        "sample_id",
        "center_lon",
        "center_lat",
        *DATED_COLUMNS,
        *(f"{name}_{t}" for name in DATED_COLUMNS for t in range(4)),
    ]


def _holds_texts(kind: pa.DataType, *, or_numbers: bool = False) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    texts = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return texts or (or_numbers and (pa.types.is_integer(kind) or pa.types.is_floating(kind)))


def _without_views(schema: pa.Schema) -> pa.Schema:
    """Return the schema with plain texts for views of texts, which pyarrow can neither compare nor select."""
    views = [(i, column) for i, column in enumerate(schema) if pa.types.is_string_view(column.type)]
    for i, column in views:
        schema = schema.set(i, column.with_type(pa.string()))
    return schema


def _check_size(table: pq.ParquetFile, columns: list[str], path: str) -> None:
    """Refuse a table whose pages would not fit into memory.

    The footer's sizes of single columns are not asked for: if they contradict the rest of it, pyarrow ends the process,
    since ``RowGroupMetaData.column`` lets an exception of C++ pass.
    """
    layout = table.metadata
    n_bytes = sum(layout.row_group(number).total_byte_size for number in range(layout.num_row_groups))
    if n_bytes > MAX_DECODED_BYTES:  # it may be of columns that are not in use
        n_bytes = 0
        for batch in table.iter_batches(columns=columns):
            n_bytes += batch.nbytes
            if n_bytes > MAX_DECODED_BYTES:
                break
    if n_bytes > MAX_DECODED_BYTES:
        raise FormatError(
            f"{path} has more than {MAX_DECODED_BYTES} bytes in its columns in use, which is the limit.",
            kind=ErrorKind.OVER_LIMIT,
        )
