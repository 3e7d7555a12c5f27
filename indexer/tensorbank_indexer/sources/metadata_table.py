"""The Parquet table of a split, one row a member: id, centre, times, cloud cover."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tensorbank.errors import IntegrityError, NotFoundError, StorageError
from tensorbank_indexer.sources.files import SourceFiles

__all__ = ["MemberRow", "MetadataTable"]

MAX_KEPT_BYTES = 256 << 20
"""Tables up to this size are read once and kept; larger ones are read by range for each archive."""
MEMBER_SUFFIX = ".zarr.zip"


@dataclass(frozen=True, slots=True)
class MemberRow:
    """What a table says of a member. ``lon``, ``lat`` are NaN and ``time_ns`` is 0 where it does not."""

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

    def rows(self, archive_name: str, stems: Iterable[str]) -> dict[str, MemberRow]:
        """Rows of the members of an archive by stem; first those of its name, then, if archives were
        regrouped, those of its stems.

        Raises
        ------
        IntegrityError
            The table is not a Parquet file.
        """
        place = self._place()
        if place is None:
            return {}
        stems = set(stems)
        try:
            with pq.ParquetFile(self._open(*place)) as table:
                names = set(table.schema_arrow.names)
            if "zarr" not in names or "sample_id" not in names:
                return {}
            columns = [name for name in _columns() if name in names]
            rows: dict[str, MemberRow] = {}
            if "tar" in names:
                rows = _by_stem(
                    pq.read_table(
                        self._open(*place), columns=columns, filters=pc.field("tar") == archive_name
                    )
                )
            lacking = stems - rows.keys()
            if lacking:
                members = pa.array([stem + MEMBER_SUFFIX for stem in lacking])
                rows |= _by_stem(
                    pq.read_table(self._open(*place), columns=columns, filters=pc.field("zarr").isin(members))
                )
        except pa.ArrowInvalid as error:
            raise IntegrityError(f"{place[1].path} cannot be read as Parquet: {error}") from error
        return {stem: row for stem, row in rows.items() if stem in stems}

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
        self.position = offset + (0, self.position, self.size_bytes)[whence]
        return self.position

    def read(self, size: int | None = -1) -> bytes:
        end = self.size_bytes if size is None or size < 0 else min(self.position + size, self.size_bytes)
        data = self.files.read(self.path, self.position, end)
        self.position += len(data)
        return data


def _columns() -> list[str]:
    dated = ("S2_time", "S1_time", "cloud_cover")
    return [
        "zarr",
        "sample_id",
        "center_lon",
        "center_lat",
        "crs",
        *dated,
        *(f"{name}_{t}" for name in dated for t in range(4)),
    ]


def _by_stem(table: pa.Table) -> dict[str, MemberRow]:
    times = {
        name: i
        for i, name in enumerate(table.column_names)
        if pa.types.is_timestamp(table.schema.field(name).type)
    }
    for name, i in times.items():
        table = table.set_column(i, name, table[name].cast(pa.timestamp("ns")).cast(pa.int64()))
    return {
        row["zarr"].removesuffix(MEMBER_SUFFIX): _row(row)
        for row in table.to_pylist()
        if row["zarr"] and row["sample_id"]
    }


def _row(row: Mapping[str, Any]) -> MemberRow:
    dates = [row[name] for name in ("S2_time", *(f"S2_time_{t}" for t in range(4))) if row.get(name)]
    covers = tuple(
        float(row[name])
        for name in ("cloud_cover", *(f"cloud_cover_{t}" for t in range(4)))
        if row.get(name) is not None
    )
    metadata: dict[str, object] = {"cloud_cover": covers} if covers else {}
    sample_id = row["sample_id"]
    return MemberRow(
        sample_id=f"{sample_id:07d}" if isinstance(sample_id, int) else str(sample_id),
        lon=_number(row.get("center_lon")),
        lat=_number(row.get("center_lat")),
        time_ns=min(dates) if dates else 0,
        metadata=metadata,
    )


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
