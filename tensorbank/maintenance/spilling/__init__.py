"""Rows that wait on the disk for their turn, since they do not fit into memory together."""

from __future__ import annotations

from tensorbank.maintenance.spilling.spilled_rows import SpilledRows, SpilledTiles, max_ranges

__all__ = ["SpilledRows", "SpilledTiles", "max_ranges"]
