"""Banks, tables and snapshots: what a user opens."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from tensorbank.catalog import Catalog, SnapshotInfo
from tensorbank.errors import InvalidInputError, NotFoundError
from tensorbank.layout import LEVELS, check_table_name, part_key
from tensorbank.planner import Planner
from tensorbank.query import Query
from tensorbank.schema import TableSchema
from tensorbank.selection import Selection
from tensorbank.statistics import Statistics

__all__ = ["Bank", "Snapshot", "Table"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One immutable version of a table, in numbers.

    ``tensor_bytes`` is the decoded size of all samples' present modalities, ``stored_bytes`` that of their blocks,
    ``index_bytes`` that of the index files of all levels.
    """

    table: str
    version: int
    n_samples: int
    n_parts: int
    n_shards: int
    tensor_bytes: int
    stored_bytes: int
    index_bytes: int


@dataclass(frozen=True, slots=True)
class Table:
    """A versioned set of samples with one schema. ``version`` is None for the newest."""

    bank: Bank
    name: str
    version: int | None = None

    @property
    def schema(self) -> TableSchema:
        """Modalities; NotFoundError with the nearest names if there is no such table."""
        return self.bank.catalog.schema(self.name, self.version)

    def at(self, version: int) -> Table:
        """The same table at another version."""
        return Table(self.bank, self.name, version)

    def history(self) -> list[SnapshotInfo]:
        """Versions, newest first."""
        return self.bank.catalog.history(self.name)

    def snapshot(self) -> Snapshot:
        """What the table holds at its version."""
        levels = {level: self.bank.catalog.files(self.name, level, self.version) for level in LEVELS}
        schema = self.schema
        version = levels["samples"].version
        sums = ", ".join(
            f'coalesce(sum("{m.name}".n_samples), 0)::BIGINT AS n{i}, coalesce(sum("{m.name}".length), 0)::BIGINT AS b{i}'
            for i, m in enumerate(schema)
        )
        bank = self.bank.at({self.name: version})
        row = (
            bank.sql(
                f'SELECT count(*) AS n_shards, count(DISTINCT part) AS n_parts, {sums} FROM "{self.name}".shards'
            )
            .arrow()
            .to_pylist()[0]
        )
        return Snapshot(
            table=self.name,
            version=version,
            n_samples=levels["samples"].n_rows,
            n_parts=int(row["n_parts"]),
            n_shards=int(row["n_shards"]),
            tensor_bytes=sum(int(row[f"n{i}"]) * m.sample_bytes for i, m in enumerate(schema)),
            stored_bytes=sum(int(row[f"b{i}"]) for i, _ in enumerate(schema)),
            index_bytes=sum(files.n_bytes for files in levels.values()),
        )

    def describe(self) -> dict[str, Statistics]:
        """Summary of every modality, from the roll-ups of the shards: no pixel and no sample row is read."""
        versions = {} if self.version is None else {self.name: self.version}
        return Planner(self.bank.catalog, versions).describe(self.name)

    def parts(self) -> dict[str, str]:
        """URLs of the parts' Zarr groups, by part."""
        bank = self.bank.at({self.name: self.version}) if self.version is not None else self.bank
        names = bank.sql(f'SELECT DISTINCT part FROM "{self.name}" ORDER BY part').arrow()["part"].to_pylist()
        return {part: f"{self.bank.url}/{part_key(self.name, part)}" for part in names}


class Bank:
    """Tables below one URL.

    Parameters
    ----------
    catalog
        Where tables and their index files are.
    versions
        Tables pinned to a version.
    """

    def __init__(self, catalog: Catalog, versions: Mapping[str, int] | None = None) -> None:
        self.catalog = catalog
        self.versions = dict(versions or {})
        self.registered: dict[str, pa.Table] = {}

    def __repr__(self) -> str:
        return f"Bank({self.url!r})"

    @property
    def url(self) -> str:
        return self.catalog.store.url

    def at(self, versions: Mapping[str, int]) -> Bank:
        """The same bank with some tables pinned to a version."""
        other = Bank(self.catalog, {**self.versions, **versions})
        other.registered |= self.registered
        return other

    def tables(self) -> list[str]:
        """Names of the tables, sorted.

        Raises
        ------
        StorageError
            The bank cannot be reached, or access is refused.
        """
        return self.catalog.tables()

    def table(self, name: str) -> Table:
        """One table, at the version this bank is pinned to."""
        return Table(self, name, self.versions.get(name))

    def sql(self, sql: str) -> Query:
        """A query; nothing is read before it is asked for its plan, rows or batches."""
        return Query(sql, self._planner())

    def query(self, table: str) -> Selection:
        """Samples of one table, to be narrowed step by step."""
        return Selection(check_table_name(table), self._planner())

    def register(self, name: str, data: pa.Table | str | os.PathLike[str] | Any) -> None:
        """Make a table of one's own known to this bank's SQL, for joins: Arrow, a Parquet file, or what Arrow can read.

        Its content is part of the fingerprint of every plan that names it.

        Raises
        ------
        InvalidInputError
            The name is no SQL name, or that of a table of the bank.
        """
        check_table_name(name)
        if name.lower() in (t.lower() for t in self.tables()):
            raise InvalidInputError(f"the bank has a table {name!r} already; register under another name")
        self.registered[name] = _as_arrow(data)

    def _planner(self) -> Planner:
        return Planner(self.catalog, self.versions, self.registered)


def _as_arrow(data: Any) -> pa.Table:
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, str | os.PathLike):
        if not Path(data).is_file():
            raise NotFoundError(f"there is no Parquet file {os.fspath(data)}")
        return pyarrow.parquet.read_table(os.fspath(data))
    if hasattr(data, "__arrow_c_stream__"):
        return pa.table(data)
    raise InvalidInputError(
        f"a {type(data).__name__} cannot be registered; give an Arrow table, a data frame or a Parquet file"
    )
