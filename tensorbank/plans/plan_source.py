"""Sources of plans: the query and the snapshots that a plan was made from, and what was ruled out on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["LevelReport", "PlanSource"]


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

    ``snapshots`` maps each table to ``(table id, version)``; ``levels`` runs from the coarsest level to the finest;
    ``scan_blocks`` and ``scan_bytes`` are what reading the same handles of every sample would cost. Of the rows that
    ``pixel_predicates`` left open by their own statistics, ``pixels_by_tiles`` were decided by those of their tiles,
    ``pixels_read`` by reading ``pixels_read_bytes``, and ``pixels_undecided`` left open, as the query asked.
    """

    sql: str
    snapshots: dict[str, tuple[str, int]]
    planner_version: int
    levels: tuple[LevelReport, ...] = ()
    scan_blocks: int = 0
    scan_bytes: int = 0
    pixel_predicates: int = 0
    pixels_by_tiles: int = 0
    pixels_read: int = 0
    pixels_read_bytes: int = 0
    pixels_undecided: int = 0

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
