"""Changes of a table: the snapshot that a writer starts from, and what it makes of it. Values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tensorbank.delta import LevelChange, VersionState
from tensorbank.index_files import LevelFiles
from tensorbank.layout import LEVELS
from tensorbank.schema import TableSchema

__all__ = ["COLUMNS_FOLDER", "DELETED", "KEYS", "SORTED_FOLDER", "Change", "Published", "TableVersion"]

KEYS = "keys"
"""The Delta table that holds the keys of all samples."""
DELETED = "deleted"
"""The Delta table that holds the keys and parts of samples whose rows do not count any more."""
COLUMNS_FOLDER = "columns"
"""The folder of the Delta tables of columns that were added to samples later, one a column."""
SORTED_FOLDER = "sorted"
"""The folder of the Delta tables of copies of samples in another order, one a column that they are sorted by."""


@dataclass(frozen=True)
class TableVersion:
    """One version of a table: what readers and writers need to know of it before they open an index file.

    Parameters
    ----------
    state
        The Delta table ``samples``, whose version is that of the table.
    pins
        Versions of the other Delta tables that belong to this version of ``samples``, by their folder below ``index``; None for a
        table of format 1, whose ``tiles`` and ``shards`` are read at their newest.
    columns
        Names of the columns that were added later.
    sorted_copies
        Names of the copies of samples in another order. Each has its level ``sorted/<name>``.
    """

    table: str
    state: VersionState
    schema: TableSchema
    pins: Mapping[str, int] | None
    columns: tuple[str, ...] = ()
    sorted_copies: tuple[str, ...] = ()

    @cached_property
    def samples(self) -> LevelFiles:
        """The files of samples, listed when they are asked for."""
        return self.state.files

    @property
    def version(self) -> int:
        return self.state.version

    @property
    def table_id(self) -> str:
        """The id of the Delta table ``samples``."""
        return self.state.table_id

    @property
    def identity(self) -> tuple[str, int]:
        """The id of the Delta table ``samples``, and the version."""
        return self.table_id, self.version

    def pinned(self, level: str) -> int | None:
        """Return the version of a level, None where it is read at its newest.

        Raises
        ------
        KeyError
            The table has no such level.
        """
        if level == "samples":
            return self.version
        if self.pins is None:
            if level in LEVELS:
                return None
            raise KeyError(level)
        return self.pins[level]

    def has(self, level: str) -> bool:
        """Tell whether the table has a level."""
        return level in LEVELS or (self.pins is not None and level in self.pins)


@dataclass(frozen=True)
class Change:
    """One change of a table, which becomes visible as a whole.

    Parameters
    ----------
    operation
        A word that the history shows: ``ingest``, ``delete``, ...
    levels
        Files added and removed, by level. Every file is in the store already.
    details
        What the history says of the change, as JSON: source, revision, numbers.
    schema
        The modalities after the change, None if they stay.
    columns
        The added columns after the change, None if they stay. Each has its level ``columns/<name>``.
    column_types
        Columns of the Delta table of an added column, by name; for those that are new.
    sorted_copies
        The sorted copies after the change, None if they stay. Each has its level ``sorted/<name>``.
    settings
        Settings of the Delta tables of levels, by level; those that are not given stay.
    pins
        Versions to pin as they are, by level, where no file of it changes; a level without one that had one is unpinned if None.
    """

    operation: str
    levels: Mapping[str, LevelChange] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    schema: TableSchema | None = None
    columns: tuple[str, ...] | None = None
    column_types: Mapping[str, Any] = field(default_factory=dict)
    sorted_copies: tuple[str, ...] | None = None
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    pins: Mapping[str, int | None] = field(default_factory=dict)
    n_rows: int = 0
    part: str | None = None


@dataclass(frozen=True, slots=True)
class Published:
    """The version of the samples table that shows a change;
    the newest version if there was nothing left to change.
    """

    version: int
    added: bool
