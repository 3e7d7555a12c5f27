"""Banks, tables and snapshots: what a user opens."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from tensorbank.arguments import instance, whole_number
from tensorbank.catalog import Catalog, Provenance, SnapshotInfo, provenance_of
from tensorbank.errors import ErrorKind, InvalidInputError, NotFoundError, nearest
from tensorbank.layout import LEVELS, check_table_name, part_key
from tensorbank.planning import Planner
from tensorbank.plans import MAX_DATASET_BYTES, Query, Selection
from tensorbank.reading import read_tensors
from tensorbank.schema import TableSchema
from tensorbank.sql import bound
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


@dataclass(frozen=True, slots=True, repr=False)
class Table:
    """A versioned set of samples with one schema. ``version`` is None for the newest."""

    bank: Bank
    name: str
    version: int | None = None

    def __repr__(self) -> str:
        version = "" if self.version is None else f", version {self.version}"
        return f"Table({self.name!r} of {self.bank.url}{version})"

    @property
    def schema(self) -> TableSchema:
        """Return the modalities; NotFoundError with the nearest names if there is no such table."""
        return self.bank.catalog.schema(self.name, self.version)

    def at(self, version: int) -> Table:
        """Return the same table at another version; InvalidInputError if that is no whole number from 0 on."""
        return Table(self.bank, self.name, whole_number("version", version, at_least=0))

    def history(self) -> list[SnapshotInfo]:
        """Return the versions, newest first."""
        return self.bank.catalog.history(self.name)

    def snapshot(self) -> Snapshot:
        """Count what the table holds at its version."""
        levels = {level: self.bank.catalog.files(self.name, level, self.version) for level in LEVELS}
        parts = levels["samples"].parts
        if (
            parts is not None
        ):  # tiles and shards are read at their newest, where parts of other versions lie as well
            levels = {level: files.of_parts(parts) for level, files in levels.items()}
        schema = self.schema
        version = levels["samples"].version
        sums = ", ".join(
            f'coalesce(sum("{m.name}".n_samples), 0)::BIGINT AS n{i}, coalesce(sum("{m.name}".length), 0)::BIGINT AS b{i}'
            for i, m in enumerate(schema)
        )
        bank = self.bank._pinned({self.name: version})
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
        """Summarize every modality, from the roll-ups of the shards: no pixel and no sample row is read."""
        versions = {} if self.version is None else {self.name: self.version}
        return Planner(self.bank.catalog, versions).describe(self.name)

    def read(
        self, sample_id: str, *, split: str | None = None, modalities: Sequence[str] | None = None
    ) -> dict[str, npt.NDArray[np.generic]]:
        """Read one sample: ``(time, band, y, x)`` in the stored dtype, by modality; those that it lacks are left out.

        Parameters
        ----------
        split
            Split that is meant where several splits have a sample of this id.
        modalities
            Names, or names with bands such as ``S2L2A[B04,B08]``; all if not given.

        Raises
        ------
        NotFoundError
            There is no such sample (``kind`` is ``unknown-sample``).
        InvalidInputError
            Several splits have one (``kind`` is ``ambiguous-sample``).
        IntegrityError, StorageError
            Blocks are damaged, or the store does not answer.
        """
        bank = self.bank if self.version is None else self.bank._pinned({self.name: self.version})
        chosen = list(modalities) if modalities is not None else list(self.schema.names)
        found = bank.query(self.name).where(f"sample_id = {_text(sample_id)}")
        if split is not None:
            found = found.where(f"split = {_text(split)}")
        plan = found.select("sample_id", "split", *chosen).plan()
        if not len(plan):
            where = f"{self.name} has no sample {sample_id!r}" + (
                f" in {split!r}" if split is not None else ""
            )
            raise NotFoundError(f"table {where}", kind=ErrorKind.UNKNOWN_SAMPLE)
        if len(plan) > 1:
            splits = ", ".join(map(repr, plan.table["split"].to_pylist()))
            raise InvalidInputError(
                f"{len(plan)} samples are called {sample_id!r}, in splits {splits}; name one with split=",
                kind=ErrorKind.AMBIGUOUS_SAMPLE,
            )
        tensors = read_tensors(plan, MAX_DATASET_BYTES)
        return {h.name: tensors[h.name][0] for h in plan.handles if plan.addresses[h.name].present[0]}

    def provenance(self) -> list[Provenance]:
        """Return the source, revision and licence of every part, by the name of the part."""
        store = self.bank.catalog.store
        return [provenance_of(store, self.name, part) for part in self.parts()]

    def parts(self) -> dict[str, str]:
        """Return the URLs of the parts' Zarr groups, by part."""
        bank = self.bank._pinned({self.name: self.version}) if self.version is not None else self.bank
        names = bank.sql(f'SELECT DISTINCT part FROM "{self.name}" ORDER BY part').arrow()["part"].to_pylist()
        return {part: f"{self.bank.url}/{part_key(self.name, part)}" for part in names}


class Bank:
    """The bank: tables below one URL.

    Parameters
    ----------
    catalog
        Catalog of the tables and their index files.
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
        """Return the same bank with some tables pinned to a version.

        Raises
        ------
        InvalidInputError
            A version is no whole number from 0 on, or the bank has no such table.
        """
        instance("versions", versions, Mapping, "give them by table, such as {'terramesh': 3}")
        pinned = {
            self._known(name): whole_number(f"version of {name}", v, at_least=0)
            for name, v in versions.items()
        }
        return self._pinned(pinned)

    def _pinned(self, versions: Mapping[str, int]) -> Bank:
        """Return the same bank with versions of tables that it has, which are not looked up."""
        other = Bank(self.catalog, {**self.versions, **versions})
        other.registered |= self.registered
        return other

    def tables(self) -> list[str]:
        """Return the names of the tables, sorted.

        Raises
        ------
        StorageError
            The bank cannot be reached, or access is refused.
        """
        return self.catalog.tables()

    def table(self, name: str) -> Table:
        """Return one table, at the version this bank is pinned to."""
        return Table(self, name, self.versions.get(name))

    def read(
        self,
        sample_id: str,
        *,
        table: str | None = None,
        split: str | None = None,
        modalities: Sequence[str] | None = None,
    ) -> dict[str, npt.NDArray[np.generic]]:
        """Read one sample of a table; see :meth:`Table.read`. The table can be left out where there is only one.

        Raises
        ------
        InvalidInputError
            There are several tables, or none.
        """
        if table is None:
            names = self.tables()
            if len(names) != 1:
                listed = ", ".join(names) or "none"
                raise InvalidInputError(
                    f"name a table with table=; {self.url} has {listed}", kind=ErrorKind.AMBIGUOUS_TABLE
                )
            (table,) = names
        return self.table(table).read(sample_id, split=split, modalities=modalities)

    def sql(self, sql: str, /, **parameters: Any) -> Query:
        """A query; nothing is read before it is asked for its plan, rows or batches.

        Parameters
        ----------
        parameters
            Values for ``$name`` in the statement: numbers, texts, dates, lists. They become part of it as literals.

        Raises
        ------
        InvalidInputError
            A parameter has no value, or a value no parameter.
        """
        return Query(bound(sql, parameters), self._planner())

    def query(self, table: str) -> Selection:
        """Return the samples of one table, to be narrowed step by step."""
        return Selection(check_table_name(table), self._planner())

    def register(self, name: str, data: pa.Table | str | os.PathLike[str] | Any) -> None:
        """Make a table of one's own known to this bank's SQL, for joins: Arrow, a Parquet or CSV file, or a data frame.

        Files are read now. The content is part of the fingerprint of every plan that names it.

        Raises
        ------
        InvalidInputError
            The name is no SQL name, or that of a table of the bank; the file cannot be read as what its name says; the data are
            no table that Arrow has types for, or two columns have one name but for capitals, which SQL's names do not have.
        NotFoundError
            There is no such file.
        """
        check_table_name(name)
        if name.lower() in (t.lower() for t in self.catalog.told_tables()):
            raise InvalidInputError(f"the bank has a table {name!r} already; register under another name")
        rows = _as_arrow(data)
        columns = [column.lower() for column in rows.column_names]
        if twice := [
            c for c, lower in zip(rows.column_names, columns, strict=True) if columns.count(lower) > 1
        ]:
            raise InvalidInputError(
                f"{name!r} has the columns {' and '.join(map(repr, twice))}, which are one name in SQL; rename some"
            )
        for other in [n for n in self.registered if n.lower() == name.lower()]:
            del self.registered[other]
        self.registered[name] = rows

    def _known(self, name: str) -> str:
        """Return a table's name as the bank has it; as it is where there are no tables, or no list of them is to be had."""
        try:
            tables = self.tables()
        except NotFoundError:
            tables = []
        if not tables:
            return name
        found = [t for t in tables if t.lower() == str(name).lower()]
        if not found:
            raise InvalidInputError(
                f"{self.url} has no table {name!r} to pin.{nearest(str(name), tables)}",
                kind=ErrorKind.UNKNOWN_TABLE,
            )
        return found[0]

    def _planner(self) -> Planner:
        return Planner(self.catalog, self.versions, self.registered)


def _text(value: str) -> str:
    """A text as SQL and CQL2 write it."""
    if not isinstance(value, str):
        raise InvalidInputError(f"the id or split of a sample is a text, got {value!r}")
    return "'" + value.replace("'", "''") + "'"


def _as_arrow(data: Any) -> pa.Table:
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, str | os.PathLike):
        return _from_file(Path(data))
    if hasattr(data, "__arrow_c_stream__"):
        try:
            return pa.table(data)
        except (pa.ArrowException, TypeError, ValueError) as error:
            reason = str(error.args[0] if error.args else error)[:200]
            raise InvalidInputError(f"this {type(data).__name__} is no table of Arrow: {reason}") from error
    raise InvalidInputError(
        f"a {type(data).__name__} cannot be registered; give an Arrow table, a data frame, or a Parquet or CSV file"
    )


def _from_file(path: Path) -> pa.Table:
    if not path.is_file():
        raise NotFoundError(f"there is no file {path}; give a Parquet or CSV file")
    is_csv = ".csv" in [suffix.lower() for suffix in path.suffixes]
    try:
        return pyarrow.csv.read_csv(path) if is_csv else pyarrow.parquet.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        what = "CSV" if is_csv else "Parquet"
        raise InvalidInputError(
            f"{path} cannot be read as {what}: {error}", kind=ErrorKind.UNREADABLE_FILE
        ) from error
