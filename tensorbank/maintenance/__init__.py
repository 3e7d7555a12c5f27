"""The compaction of tables: small index files merged into sorted ones, and rows that do not count dropped."""

from __future__ import annotations

from tensorbank.maintenance.compaction import Compaction, LevelSize, compact
from tensorbank.maintenance.dead_rows import without
from tensorbank.maintenance.rolled_up_again import RollUps

__all__ = ["Compaction", "LevelSize", "RollUps", "compact", "without"]
