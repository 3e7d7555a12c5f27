"""The maintenance of tables: small index files merged into sorted ones, and stored objects that nothing needs removed."""

from __future__ import annotations

from tensorbank.maintenance.collection import GRACE, Collected, Collection, collect
from tensorbank.maintenance.compaction import Compaction, LevelSize, compact
from tensorbank.maintenance.rolled_up_again import RollUps

__all__ = ["GRACE", "Collected", "Collection", "Compaction", "LevelSize", "RollUps", "collect", "compact"]
