"""Engines: what answers for a bank, whether its files are read here or a service reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from tensorbank.catalog import Catalog, Provenance, SnapshotInfo
from tensorbank.queries import Query, Selection
from tensorbank.retention import Tag, VersionName
from tensorbank.schema import TableSchema
from tensorbank.statistics import Statistics

__all__ = ["Engine", "Snapshot"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One immutable version of a table, in numbers.

    ``format`` is that of the index: 2, or 1 for tables that were written before snapshots pinned all their levels.
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
    format: int = 2


class Engine(Protocol):
    """The answers of one bank. :class:`tensorbank.bank.Bank` and its tables ask an engine and nobody else.

    The contract:

    * A version of None is the newest at the moment of the question.
    * What does not exist is a NotFoundError with the nearest names. A store or service that does not answer is a StorageError.
    * What an engine cannot do is an InvalidInputError whose kind is ``served``, and which says what to do instead.
    * An engine may be used from many threads, and keeps no state that an answer depends on.
    * Engines of one bank give equal queries equal answers: selections and queries of equal engines are equal.
    """

    @property
    def url(self) -> str:
        """The URL of the bank."""
        ...

    @property
    def catalog(self) -> Catalog:
        """The catalog, where the bank's files are read here.

        Raises
        ------
        InvalidInputError
            They are not; the error is an AttributeError, too, so that ``hasattr`` tells.
        """
        ...

    def tables(self) -> list[str]:
        """Return the names of the tables, sorted."""
        ...

    def schema(self, table: str, version: int | None) -> TableSchema:
        """Return the modalities of a table."""
        ...

    def history(self, table: str) -> list[SnapshotInfo]:
        """Return the versions of a table, newest first."""
        ...

    def version_of(self, table: str, name: VersionName) -> int:
        """Return the number of a version that is given by its number, a tag or a time."""
        ...

    def tags(self, table: str) -> Sequence[Tag]:
        """Return the tags of a table by their names."""
        ...

    def tag(self, table: str, version: int | None, name: str, message: str) -> Tag:
        """Give a version a name."""
        ...

    def untag(self, table: str, name: str) -> None:
        """Take a name from a version."""
        ...

    def snapshot(self, table: str, version: int | None) -> Snapshot:
        """Count what a table holds."""
        ...

    def describe(self, table: str, version: int | None) -> dict[str, Statistics]:
        """Summarize every modality of a table, without a look at a sample."""
        ...

    def parts(self, table: str, version: int | None) -> dict[str, str]:
        """Return the URLs of the parts' Zarr groups, by part."""
        ...

    def provenance(self, table: str, version: int | None) -> list[Provenance]:
        """Return the source, revision and licence of every part, by the name of the part."""
        ...

    def query(self, sql: str, versions: Mapping[str, int], registered: Mapping[str, pa.Table]) -> Query:
        """Return a statement as a query; nothing is read yet.

        Parameters
        ----------
        versions
            Tables pinned to a version.
        registered
            Tables of the user's own, by name.
        """
        ...

    def select(
        self, table: str, versions: Mapping[str, int], registered: Mapping[str, pa.Table]
    ) -> Selection:
        """Return the samples of one table; nothing is read yet."""
        ...

    def check_own_table(self, name: str) -> None:
        """Refuse the name of a table of the user's own if a statement could not name it: the bank has one of that name."""
        ...
