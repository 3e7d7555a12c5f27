"""Sources of plans: the query and the snapshots that a plan was made from, and what was ruled out on the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["LevelReport", "PlanSource", "ReadSnapshot", "by_name"]

_MARK = "@"
"""The sign between the name of a table and a version of it, which no name of a table has."""


@dataclass(frozen=True, slots=True)
class ReadSnapshot:
    """A version of a table that a plan was made from; ``table_id`` tells tables of one name that were there one after another."""

    table: str
    table_id: str
    version: int


@dataclass(frozen=True, slots=True)
class LevelReport:
    """The numbers of rows of one level of the index that were considered and kept."""

    level: str
    considered: int
    kept: int

    @property
    def pruned(self) -> int:
        """The number of rows that were ruled out."""
        return self.considered - self.kept


@dataclass(frozen=True, slots=True)
class PlanSource:
    """The facts that a plan was made from.

    ``snapshots`` maps each table to ``(table id, version)``, as :func:`by_name` does, and :attr:`read_snapshots` lists them;
    ``levels`` runs from the coarsest level to the finest; ``sorted_copies`` names the tables of which a sorted copy was read
    in the place of samples, and the columns that these copies are sorted by; ``scan_blocks`` and ``scan_bytes`` are what
    reading the same handles of every sample would cost. Of the rows that ``pixel_predicates`` left open by their own
    statistics, ``pixels_by_tiles`` were decided by those of their tiles, ``pixels_read`` by reading ``pixels_read_bytes``,
    and ``pixels_undecided`` left open, as the query asked.
    """

    sql: str
    snapshots: dict[str, tuple[str, int]]
    planner_version: int
    levels: tuple[LevelReport, ...] = ()
    sorted_copies: dict[str, str] = field(default_factory=dict)
    scan_blocks: int = 0
    scan_bytes: int = 0
    pixel_predicates: int = 0
    pixels_by_tiles: int = 0
    pixels_read: int = 0
    pixels_read_bytes: int = 0
    pixels_undecided: int = 0

    @property
    def read_snapshots(self) -> tuple[ReadSnapshot, ...]:
        """The versions of tables that were read, several of a table where the statement names several."""
        found = self.snapshots.items()
        return tuple(ReadSnapshot(name.partition(_MARK)[0], i, v) for name, (i, v) in found)

    def to_json(self) -> dict[str, Any]:
        """Return the facts as the file of a plan has them."""
        return asdict(self)

    @classmethod
    def from_json(cls, described: Mapping[str, Any]) -> PlanSource:
        """Return what :meth:`to_json` wrote.

        Raises
        ------
        KeyError, TypeError, ValueError
            The description is none.
        """
        levels = tuple(LevelReport(**r) for r in described["levels"])
        snapshots = {t: (str(i), int(v)) for t, (i, v) in described["snapshots"].items()}
        return cls(**{**described, "levels": levels, "snapshots": snapshots})


def by_name(snapshots: Iterable[tuple[str, str, int]]) -> dict[str, tuple[str, int]]:
    """Return tables, their ids and versions by name: the newest version of each table by the table's own, older ones that are
    read beside it by a name such as ``terramesh@3``.
    """
    found: dict[str, tuple[str, int]] = {}
    newest_first = sorted(set(snapshots), key=lambda s: (s[0], -s[2]))
    for table, table_id, version in newest_first:
        found[f"{table}{_MARK}{version}" if table in found else table] = (table_id, version)
    return found
