"""Repairs of a table: shards that were lost or damaged, made again from archives that are still there."""

from __future__ import annotations

from tensorbank_indexer.repairs.repair import Left, RepairReport, repair

__all__ = ["Left", "RepairReport", "repair"]
