"""Maintenance of tables: small index files merged into sorted ones, and stored objects that nothing refers to removed."""

from __future__ import annotations

from tensorbank.maintenance.compaction import Compaction, LevelSize, compact

__all__ = ["Compaction", "LevelSize", "compact"]
