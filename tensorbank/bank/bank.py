"""Banks: tables below one URL."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tensorbank.arguments import instance
from tensorbank.bank.engine import Engine
from tensorbank.bank.own_tables import read_own_table
from tensorbank.bank.table import Table
from tensorbank.catalog import Catalog
from tensorbank.errors import ErrorKind, InvalidInputError, NotFoundError, nearest
from tensorbank.layout import check_table_name
from tensorbank.queries import Query, Selection
from tensorbank.removal import GRACE, Collection, collect
from tensorbank.retention import VersionName, kept_meanwhile, telling_expired
from tensorbank.sql import bound

__all__ = ["Bank"]


class Bank:
    """The bank: tables below one URL.

    Parameters
    ----------
    engine
        Engine that answers for the bank: :class:`LocalEngine` where its files are read here.
    versions
        Tables pinned to a version.
    """

    def __init__(self, engine: Engine, versions: Mapping[str, int] | None = None) -> None:
        self.engine = engine
        self.versions = dict(versions or {})
        self.registered: dict[str, pa.Table] = {}

    def __repr__(self) -> str:
        return f"Bank({self.url!r})"

    @property
    def url(self) -> str:
        """The URL of the bank."""
        return self.engine.url

    @property
    def catalog(self) -> Catalog:
        """The catalog of the tables and their index files.

        Raises
        ------
        InvalidInputError
            The bank is read through a service, which keeps it (``kind`` is ``served``). The error is an AttributeError, too.
        """
        return self.engine.catalog

    def at(self, versions: Mapping[str, VersionName]) -> Bank:
        """Return the same bank with some tables pinned to a version.

        Parameters
        ----------
        versions
            By table: the number of a version, a tag such as ``"paper-v1"``, or a time such as ``"2026-03-01"``, which means the
            newest version that was there at that time, in UTC.

        Raises
        ------
        InvalidInputError
            A version is none of these, or the bank has no such table.
        NotFoundError
            The table has no such tag, or is younger than the time.
        """
        instance("versions", versions, Mapping, "give them by table, such as {'terramesh': 3}")
        known = {self._known(name): v for name, v in versions.items()}
        pinned = {name: self.engine.version_of(name, v) for name, v in known.items()}
        other = Bank(self.engine, {**self.versions, **pinned})
        other.registered |= self.registered
        return other

    def tables(self) -> list[str]:
        """Return the names of the tables, sorted.

        Raises
        ------
        StorageError
            The bank cannot be reached, or access is refused.
        """
        return self.engine.tables()

    def table(self, name: str) -> Table:
        """Return one table, at the version this bank is pinned to."""
        return Table(self, name, self.versions.get(name))

    def gc(
        self,
        table: str | None = None,
        *,
        older_than: timedelta = GRACE,
        dry_run: bool = True,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Collection:
        """Remove stored objects that no kept snapshot of any table needs; only say which, unless ``dry_run`` is False.

        See :func:`tensorbank.removal.collect`.

        Raises
        ------
        InvalidInputError
            The bank is read through a service; the kind is ``served``.
        NotFoundError, IntegrityError, StorageError
            There is no such table; what a table needs cannot be found out, so nothing is removed; the store cannot be written.
        """
        return collect(self.catalog, table, older_than=older_than, dry_run=dry_run, progress=progress)

    def copy(self, table: str, new: str, *, version: VersionName | None = None) -> Table:
        """Make another table with the samples of one, and return it. Tensors are not copied: both tables lead to the same ones.

        From then on each table has versions of its own; the history of the new one begins with ``copy``. A copy that was stopped
        is completed by the same call.

        Parameters
        ----------
        version
            Version to copy, as :meth:`at` takes it; the newest, or the one the bank is pinned to, if not given.

        Raises
        ------
        InvalidInputError
            The name cannot name a table, or is another table's; or the bank cannot be written to.
        NotFoundError
            There is no such table or version.
        """
        source = self.table(table) if version is None else self.table(table).at(version)
        self.catalog.mirror.require_writable()
        with telling_expired(self.catalog, {table: source.version}):
            at = self.catalog.version(table, source.version)
        with kept_meanwhile(self.catalog, at, "copy"):
            self.catalog.copy(table, new, at.version)
        return Table(self, new)

    def rename(self, table: str, new: str) -> Table:
        """Give a table another name, and return it. Its history is kept, and its tensors stay where they are.

        The old name is refused from then on, for new tables as well, but the table can get it back. The same call
        completes a renaming that was stopped.

        Raises
        ------
        InvalidInputError
            The name cannot name a table, or is another table's; or the bank cannot be written to.
        NotFoundError
            There is no such table.
        ConflictError
            Somebody else gave the table another name meanwhile.
        """
        self.catalog.rename(table, new)
        return Table(self, new)

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
        """Return a query; nothing is read before it is asked for its plan, rows or batches.

        A service answers SQL with rows, for keys whose scope allows it; what is to be streamed is selected with :meth:`query`.

        Parameters
        ----------
        parameters
            Values for ``$name`` in the statement: numbers, texts, dates, lists. They become part of it as literals.

        Raises
        ------
        InvalidInputError
            A parameter has no value, or a value no parameter.
        """
        return self.engine.query(bound(sql, parameters), self.versions, self.registered)

    def query(self, table: str) -> Selection:
        """Return the samples of one table, to be narrowed step by step, by conditions in SQL; of a service, in CQL2."""
        return self.engine.select(check_table_name(table), self.versions, self.registered)

    def register(self, name: str, data: pa.Table | str | os.PathLike[str] | Any) -> None:
        """Make a table of one's own known to this bank's SQL, for joins: Arrow, a Parquet or CSV file, or a data frame.

        Files are read now. The content is part of the fingerprint of every plan that names it.

        Raises
        ------
        InvalidInputError
            The name is no SQL name, or that of a table of the bank; the file cannot be read as what its name says; the data are
            no table that Arrow has types for; two columns have one name but for capitals, which SQL's names do not have; or the
            bank is read through a service, which joins no tables of yours; the kind is ``served``.
        NotFoundError
            There is no such file.
        """
        self.engine.check_own_table(check_table_name(name))
        rows = read_own_table(name, data)
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
