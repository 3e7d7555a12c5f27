"""Repairs of a table: what was lost or damaged, derived again from what is left of it and from archives that are still there."""

from __future__ import annotations

from tensorbank_indexer.repairs.repair import repair
from tensorbank_indexer.repairs.repair_report import Left, RepairReport

__all__ = ["Left", "RepairReport", "repair"]
