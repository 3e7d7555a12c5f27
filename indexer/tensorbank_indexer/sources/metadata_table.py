"""The Parquet table of a split, one row a member: id, centre, times, cloud cover."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from tensorbank.errors import ErrorKind, FormatError, NotFoundError, StorageError
from tensorbank_indexer.cf import EARLIEST_NS, LATEST_NS, NS_PER_UNIT
from tensorbank_indexer.containers import Boundary, SourceFiles, is_identifier, readable

__all__ = ["MemberRow", "MetadataTable"]

MAX_KEPT_BYTES = 256 << 20
"""The size in bytes up to which tables are read once and kept;
larger ones are read by range for each archive."""
MAX_DECODED_BYTES = 1 << 30
"""The most decoded bytes of the columns in use: 9 million members have 0.6 GB."""
MIN_ROWS = 20_480
"""The number of rows that are looked at for one archive at least:
twice the members of the largest published ones."""
MEMBER_SUFFIX = ".zarr.zip"
DATED = ("S2_time", "cloud_cover")
LIMITS = {"center_lon": 360.0, "center_lat": 90.0}
"""The degrees beyond which a number is no place."""

Problems = list[tuple[str, str]]
"""A list of members (empty for the table), each with what is wrong with its rows."""


@dataclass(frozen=True, slots=True)
class MemberRow:
    """The row of a member. ``lon``, ``lat`` are NaN and ``time_ns`` is 0 where the table does not say."""

    sample_id: str
    lon: float
    lat: float
    time_ns: int
    metadata: Mapping[str, object]


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

    def rows(self, archive_name: str, stems: Iterable[str]) -> tuple[dict[str, MemberRow], Problems]:
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
        problems: Problems = []
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
        problems: Problems,
    ) -> dict[str, MemberRow]:
        """Return the rows that meet a condition.
        A column that cannot be read costs what it says, not the others."""
        most = max(MIN_ROWS, 4 * n_members)

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
                with Boundary(_to(problems, "", f"Column {name}: ")):
                    table = table.append_column(name, read([name])[name])
        if table.num_rows == most:
            problems.append(
                ("", f"The table has {most} rows or more for {n_members} members; the first are used.")
            )
        return _by_stem(table, problems)

    def _place(self) -> tuple[SourceFiles, Any] | None:
        name = f"{self.split}_metadata.parquet"
        for files in (self.files, self.files.beside()) if self.is_split else (self.files,):
            try:
                return files, files.stat([name])[0]
            except NotFoundError:
                continue
            except StorageError:
                # Whoever may read one split need not be allowed to read the folder above.
                if files is self.files:
                    raise
        return None

    def _open(self, files: SourceFiles, stat: Any) -> Any:
        if files.is_local:
            folder = files.root.partition("://")[2] if "://" in files.root else files.root
            return pa.memory_map(str(Path(folder, stat.path)))
        if stat.size_bytes > MAX_KEPT_BYTES:
            return pa.PythonFile(_RangeFile(files, stat.path, stat.size_bytes), mode="r")
        if self._kept is None:
            self._kept = files.read(stat.path, 0, stat.size_bytes)
        return pa.BufferReader(self._kept)


class _RangeFile(io.RawIOBase):
    """A file for pyarrow whose reads are range reads."""

    def __init__(self, files: SourceFiles, path: str, size_bytes: int) -> None:
        self.files, self.path, self.size_bytes, self.position = files, path, size_bytes, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        position = offset + (0, self.position, self.size_bytes)[whence]
        if position < 0:
            raise ValueError(f"byte {position} of {self.path} was asked for")  # by a footer that lies
        self.position = position
        return position

    def read(self, size: int | None = -1) -> bytes:
        end = self.size_bytes if size is None or size < 0 else min(self.position + size, self.size_bytes)
        data = self.files.read(self.path, self.position, end)
        self.position += len(data)
        return data


def _columns() -> list[str]:
    return [
        "zarr",
        "sample_id",
        "center_lon",
        "center_lat",
        *DATED,
        *(f"{name}_{t}" for name in DATED for t in range(4)),
    ]


def _holds_texts(kind: pa.DataType, *, or_numbers: bool = False) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    texts = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return texts or (or_numbers and (pa.types.is_integer(kind) or pa.types.is_floating(kind)))


def _without_views(schema: pa.Schema) -> pa.Schema:
    """The schema with plain texts for views of texts, of which pyarrow can neither compare nor select any."""
    views = [(i, column) for i, column in enumerate(schema) if pa.types.is_string_view(column.type)]
    for i, column in views:
        schema = schema.set(i, column.with_type(pa.string()))
    return schema


def _check_size(table: pq.ParquetFile, columns: list[str], path: str) -> None:
    """Refuse a table whose pages would not fit into memory.

    The footer's sizes of single columns are not asked for: where they contradict its other words pyarrow ends the process,
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


def _by_stem(table: pa.Table, problems: Problems) -> dict[str, MemberRow]:
    factors: dict[str, int] = {}
    for i, column in enumerate(table.schema):
        if pa.types.is_timestamp(column.type):
            # As whole numbers, since Python's dates end before those that a damaged table may hold.
            factors[column.name] = NS_PER_UNIT[column.type.unit]
            table = table.set_column(i, column.name, table[column.name].cast(pa.int64()))
    rows: dict[str, MemberRow] = {}
    for record in table.to_pylist():
        name = record["zarr"]
        if not isinstance(name, str):
            continue
        stem = name.removesuffix(MEMBER_SUFFIX)
        row: MemberRow | None = None
        with Boundary(_to(problems, stem)):
            record |= {name: record[name] * n for name, n in factors.items() if record[name] is not None}
            row = _row(record, stem, problems)
        if row is None:
            continue
        if stem in rows:
            if repr(rows[stem]) != repr(row):
                problems.append(
                    (stem, f"The table has another row of {readable(stem, 100)}; the first is taken.")
                )
        else:
            rows[stem] = row
    return rows


def _to(problems: Problems, member: str, before: str = "") -> Callable[[str, str], None]:
    return lambda _kind, reason: problems.append((member, before + reason))


def _row(record: Mapping[str, Any], stem: str, problems: Problems) -> MemberRow | None:
    def wrong(name: str, value: object) -> None:
        problems.append((stem, f"{name} is {readable(repr(value), 60)} in the table."))

    sample_id = _id(record["sample_id"])
    if sample_id is None:
        wrong("sample_id", record["sample_id"])
        return None
    numbers: dict[str, float] = {}
    for name in ("center_lon", "center_lat", *_of_each_date("cloud_cover")):
        value = record.get(name)
        if value is None:
            continue
        sound = isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)
        # Whether a cloud cover is a share is for the ingest to judge.
        if not sound or (name in LIMITS and not abs(value) <= LIMITS[name]):
            wrong(name, value)
        else:
            numbers[name] = float(value)
    dates: list[int] = []
    for name in _of_each_date("S2_time"):
        if record.get(name) in (None, ""):
            continue
        time_ns = _time_ns(record[name])
        if time_ns is None or not EARLIEST_NS <= time_ns < LATEST_NS:
            wrong(name, record[name])
        else:
            dates.append(time_ns)
    covers = tuple(numbers[name] for name in _of_each_date("cloud_cover") if name in numbers)
    return MemberRow(
        sample_id=sample_id,
        lon=numbers.get("center_lon", math.nan),
        lat=numbers.get("center_lat", math.nan),
        time_ns=min(dates, default=0),
        metadata={"cloud_cover": covers} if covers else {},
    )


def _of_each_date(name: str) -> tuple[str, ...]:
    return (name, *(f"{name}_{t}" for t in range(4)))


def _id(value: object) -> str | None:
    """A sample's id; numbers get back the zeros of SSL4EO-S12's seven digits."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:07d}"
    return value if isinstance(value, str) and is_identifier(value) else None


def _time_ns(value: object) -> int | None:
    """Return the nanoseconds since 1970 UTC of such a number, a date or a text in ISO 8601;
    None of anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lstrip("-").isdigit() and len(value) > 8:
        return int(value) if len(value) < 30 else None
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, datetime):
        moment = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000
    if isinstance(value, date):
        return (value - date(1970, 1, 1)).days * 86_400 * 10**9
    return None
